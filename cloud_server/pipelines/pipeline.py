"""The steps, one after the other, without Flyte."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from cloud_server.models.backend import Progress
from cloud_server.pipelines.options import PipelineJob, PipelineOptions
from cloud_server.pipelines.places import data_at, deliver, model_at, require_out
from cloud_server.pipelines.prepare import prepare
from cloud_server.pipelines.results import METRICS, PICTURE
from cloud_server.pipelines.steps import content_digest, folder_of, key_of, step, working_folder
from cloud_server.pipelines.tokens import tokenize
from cloud_server.pipelines.training import train

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


class Found(NamedTuple):
    """What a job reads, on this machine."""

    data: Path
    model: Path


def run_pipeline(job: PipelineJob, tell: Progress) -> dict[str, Any]:
    """Fetch, do what is not done yet, deliver; return what pipeline.json says.

    Raises:
        FleetError: as the steps and places do.
    """
    data, model = places = found(job, tell)
    work, options = job.work.absolute(), job.options
    keys = keys_of(content_digest(data), content_digest(model), options)
    texts = prepared(work, keys.prepare, data, options, tell)
    tokens = tokenized(work, keys.tokenize, texts, model, options, tell)
    return delivered(job, places, trained(work, keys.train, tokens, model, options, tell))


def found(job: PipelineJob, tell: Progress) -> Found:
    """Return where data and model are, fetched where they are elsewhere.

    Raises:
        FleetError: one of them, or the place for the result, is not as it should be.
    """
    require_out(job.out, job.bucket)
    work = working_folder(job.work)
    return Found(
        data_at(job.data, work, job.bucket, tell), model_at(job.model, work, job.bucket, tell)
    )


def delivered(job: PipelineJob, places: Found, result: Path) -> dict[str, Any]:
    """Bring a result to its place; return what pipeline.json says."""
    data, model = (content_digest(path) for path in places)
    metrics = json.loads((result / METRICS).read_text("utf-8"))
    told = {
        "data": {"from": job.data, "sha256": data},
        "model": {"from": job.model, "sha256": model},
        "options": job.options.model_dump(mode="json"),
        "key": keys_of(data, model, job.options).train,
        "files": ["model", METRICS, PICTURE],
        **{name: metrics[name] for name in ("labels", "accuracy", "macro_f1", "loss", "examples")},
    }
    deliver(result, told, job.out, job.bucket)
    return told
