"""The steps, one after the other, without Flyte."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from cloud_server.models.backend import Progress
from cloud_server.pipelines.options import PipelineJob, PipelineOptions
from cloud_server.pipelines.places import data_at, deliver, model_at, require_out
from cloud_server.pipelines.prepare import prepare
from cloud_server.pipelines.results import METRICS, PICTURE
from cloud_server.pipelines.steps import content_digest, folder_of, key_of, step
from cloud_server.pipelines.tokens import tokenize
from cloud_server.pipelines.training import train
from fleet_model.durable import make_directory, telling_of_the_disk

_READING = {"text", "label", "labels", "encoding", "held_out"}  # what `prepare` goes by
_TOKENS = {"max_length"}  # what `tokenize` goes by besides


class Keys(NamedTuple):
    """What names the results of the steps, see `key_of`."""

    prepare: str
    tokenize: str
    train: str


def keys_of(data: str, model: str, options: PipelineOptions) -> Keys:
    """Return the keys for data and a model of these digests."""
    values = options.model_dump(mode="json")
    reading = {name: values[name] for name in sorted(_READING)}
    prepared = key_of("prepare", {"data": data, **reading})
    tokens = {name: values[name] for name in sorted(_TOKENS)}
    tokenized = key_of("tokenize", {"prepared": prepared, "model": model, **tokens})
    rest = {name: values[name] for name in sorted(values.keys() - _READING - _TOKENS)}
    return Keys(prepared, tokenized, key_of("train", {"tokens": tokenized, **rest}))


def prepared(work: Path, key: str, data: Path, options: PipelineOptions, tell: Progress) -> Path:
    """Return the result of the first step."""
    return step(work, "prepare", key, lambda into: prepare(data, options, into, tell), tell)


def tokenized(
    work: Path, key: str, texts: Path, model: Path, options: PipelineOptions, tell: Progress
) -> Path:
    """Return the result of the second step."""
    return step(
        work, "tokenize", key, lambda into: tokenize(texts, model, options, into, tell), tell
    )


def trained(
    work: Path, key: str, tokens: Path, model: Path, options: PipelineOptions, tell: Progress
) -> Path:
    """Return the result of the last step; killed, it resumes from what it has saved."""
    state = folder_of(work, "train", key).with_suffix(".state")
    found = step(
        work, "train", key, lambda into: train(tokens, model, options, into, state, tell), tell
    )
    state.unlink(missing_ok=True)
    return found


def run_pipeline(job: PipelineJob, tell: Progress) -> dict[str, Any]:
    """Fetch, do what is not done yet, deliver; return what pipeline.json says.

    Raises:
        FleetError: as the steps and places do.
    """
    require_out(job.out, job.bucket)
    work = job.work.absolute()
    with telling_of_the_disk(str(job.work), "name another folder: --work"):
        make_directory(work)
    data = data_at(job.data, work, job.bucket, tell)
    model = model_at(job.model, work, job.bucket, tell)
    digests = content_digest(data), content_digest(model)
    keys = keys_of(*digests, job.options)
    texts = prepared(work, keys.prepare, data, job.options, tell)
    tokens = tokenized(work, keys.tokenize, texts, model, job.options, tell)
    result = trained(work, keys.train, tokens, model, job.options, tell)
    told = summary(job, digests, keys, result)
    deliver(result, told, job.out, job.bucket)
    return told


def summary(job: PipelineJob, digests: tuple[str, str], keys: Keys, result: Path) -> dict[str, Any]:
    """Return what a result is of; whoever has the same has the same model."""
    metrics = json.loads((result / METRICS).read_text("utf-8"))
    return {
        "data": {"from": job.data, "sha256": digests[0]},
        "model": {"from": job.model, "sha256": digests[1]},
        "options": job.options.model_dump(mode="json"),
        "key": keys.train,
        "files": ["model", METRICS, PICTURE],
        **{name: metrics[name] for name in ("labels", "accuracy", "macro_f1", "loss", "examples")},
    }
