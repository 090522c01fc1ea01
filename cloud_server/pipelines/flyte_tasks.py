"""The steps as tasks of Flyte: the same functions, on this machine or unchanged on a cluster.

    cloud-server pipeline run out ... --flyte local          no cluster is needed
    cloud-server pipeline run out ... --flyte config.yaml    the cluster that the file names

What Flyte caches by is the key of a step (steps.py) and the digest of all code. Paths of folders
are left out of it: on a cluster each run has others, and here the same path may hold other data.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flyte
import flyte.errors
from flyte.io import Dir

from cloud_server.models.backend import Progress
from cloud_server.pipelines.child import PROGRESS
from cloud_server.pipelines.options import PipelineJob, PipelineOptions
from cloud_server.pipelines.pipeline import delivered, found, keys_of, prepared, tokenized, trained
from cloud_server.pipelines.steps import code_digest, content_digest
from fleet_model import errors
from fleet_model.errors import FleetError, SettingsError, TrainingError

IMAGE, GPU = "FLEETLEARN_PIPELINE_IMAGE", "FLEETLEARN_PIPELINE_GPU"
WORK = "FLEETLEARN_PIPELINE_WORK"  # folder of the steps' results; of a pod its temporary one
_image = flyte.Image.from_base(os.environ.get(IMAGE, "fleetlearn/pipeline:0.1.0"))


class SourcesPolicy:
    """The version of a cached result: all code, not a task's own lines alone, as Flyte has it."""

    def get_version(self, salt: str, params: Any) -> str:
        """Return the digest of the code here; on a cluster it is that of the image."""
        del params  # the lines of one task
        return salt + code_digest()


def _cached(*folders: str) -> flyte.Cache:
    return flyte.Cache(
        behavior="auto", policies=[SourcesPolicy()], ignored_inputs=("options", *folders)
    )


reading = flyte.TaskEnvironment(
    name="fleetlearn_reading", image=_image, resources=flyte.Resources(cpu=1, memory="2Gi")
)
training = flyte.TaskEnvironment(
    name="fleetlearn_training",
    image=_image,
    resources=flyte.Resources(cpu=4, memory="8Gi", gpu=os.environ.get(GPU) or None),
)
whole = flyte.TaskEnvironment(
    name="fleetlearn_pipeline",
    image=_image,
    resources=flyte.Resources(cpu=1, memory="2Gi"),
    depends_on=[reading, training],
)


@reading.task(cache=_cached("data"))
async def prepare_texts(key: str, data: Dir, options: str) -> Dir:
    """Do the first step; `options` are PipelineOptions in JSON."""
    folder = Path(await data.download())
    return await _done(prepared, key, _sole(folder), options)


@reading.task(cache=_cached("texts", "model"))
async def tokenize_texts(key: str, texts: Dir, model: Dir, options: str) -> Dir:
    """Do the second step."""
    folders = Path(await texts.download()), Path(await model.download())
    return await _done(tokenized, key, *folders, options)


@training.task(cache=_cached("tokens", "model"))
async def train_model(key: str, tokens: Dir, model: Dir, options: str) -> Dir:
    """Do the last step."""
    folders = Path(await tokens.download()), Path(await model.download())
    return await _done(trained, key, *folders, options)


@whole.task
async def text_pipeline(data: Dir, model: Dir, options: str) -> Dir:
    """Do all steps; it is not cached itself, since what it is given are paths."""
    folders = _sole(Path(await data.download())), Path(await model.download())
    digests = [await asyncio.to_thread(content_digest, folder) for folder in folders]
    keys = keys_of(digests[0], digests[1], PipelineOptions.model_validate_json(options))
    texts = await _kept(prepare_texts, key=keys.prepare, data=data, options=options)
    tokens = await _kept(
        tokenize_texts, key=keys.tokenize, texts=texts, model=model, options=options
    )
    return await _kept(train_model, key=keys.train, tokens=tokens, model=model, options=options)


def run_in_flyte(job: PipelineJob, tell: Progress) -> dict[str, Any]:
    """Do a job as tasks of Flyte, and deliver its result; as `run_pipeline`.

    Raises:
        FleetError: as the steps do.
        SettingsError: the cluster's file is missing.
    """
    assert job.flyte is not None
    places = found(job, tell)
    is_local = job.flyte == "local"
    if is_local:
        os.environ[WORK] = str(job.work.absolute())
        flyte.init()
    elif Path(job.flyte).is_file():
        flyte.init_from_config(job.flyte)
    else:
        raise SettingsError(f'--flyte {job.flyte}: expected "local", or the file of a cluster')
    # The code is that of the image: what lies on this machine is not sent.
    context = flyte.with_runcontext(
        mode="local" if is_local else "remote", copy_style="none", version=code_digest()[:20]
    )
    with tempfile.TemporaryDirectory() as scratch:
        try:
            run = context.run(
                text_pipeline,
                data=Dir.from_local_sync(_foldered(places.data, Path(scratch))),
                model=Dir.from_local_sync(places.model),
                options=job.options.model_dump_json(),
            )
            run.wait()
            (result,) = run.outputs()
            folder = Path(result.download_sync())
        except flyte.errors.BaseRuntimeError as error:
            raise _of_ours(error) from None
    return delivered(job, places, folder)


async def _kept(task: Any, **inputs: Any) -> Dir:
    """Return a task's result; done again where the cache names a folder that is gone."""
    result: Dir = await task(**inputs)
    if await result.exists():
        return result
    again: Dir = await task.override(cache="disable")(**inputs)
    return again


async def _done(do: Callable[..., Path], key: str, *given: Any) -> Dir:
    *folders, options = given
    work = Path(os.environ.get(WORK) or Path(tempfile.gettempdir()) / "fleetlearn-pipeline")
    work.mkdir(parents=True, exist_ok=True)
    asked = PipelineOptions.model_validate_json(options)
    folder = await asyncio.to_thread(do, work, key, *folders, asked, _tell)
    return await Dir.from_local(str(folder))


def _tell(line: str) -> None:
    print(f"{PROGRESS}{line}", flush=True)  # noqa: T201  (read by run_in_child, or a pod's log)


def _foldered(data: Path, scratch: Path) -> Path:
    """Return a folder with the data: a table that is named itself is alone in it."""
    if data.is_dir():
        return data
    (scratch / "table").mkdir()
    (scratch / "table" / data.name).symlink_to(data.absolute())
    return scratch / "table"


def _sole(folder: Path) -> Path:
    """Return the table that is alone in a folder, or the folder; so errors name it."""
    files = list(folder.iterdir())
    return files[0] if len(files) == 1 and files[0].is_file() else folder


def _of_ours(error: Any) -> FleetError:
    """Return the error that a step raised: Flyte keeps the name of its class and its words."""
    kind = getattr(errors, str(error.code), TrainingError)
    words = str(error).strip().partition("\n")[0]
    if not (isinstance(kind, type) and issubclass(kind, FleetError)):
        kind = TrainingError
    made: FleetError = kind(words)
    return made
