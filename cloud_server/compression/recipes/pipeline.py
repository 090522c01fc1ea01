"""`cloud-server compress`: a job, from its files to its results."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from cloud_server.compression.recipes.recipe import read_recipe
from cloud_server.models.backend import Progress
from fleet_model.durable import make_directory, telling_of_the_disk
from fleet_model.errors import CheckpointError


class CompressJob(BaseModel):
    """What the command line hands to its child process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path  # .keras
    pipeline: Path  # .toml
    out: Path  # folder of the results
    work: Path  # folder of the steps' results


def run_compression(job: CompressJob, tell: Progress) -> dict[str, Any]:
    """Do what is not done yet, write the results; return what pipeline.json says.

    Raises:
        FleetError: as the steps do.
    """
    from cloud_server.compression.recipes.chain import Chain
    from cloud_server.compression.recipes.results import written
    from cloud_server.pipelines.places import require_out

    recipe = read_recipe(job.pipeline)
    if job.checkpoint.suffix != ".keras" or not job.checkpoint.is_file():
        raise CheckpointError(
            f"{job.checkpoint}: no such .keras file; `cloud-server models export DIR --format "
            "keras` writes one of a fleet's version"
        )
    require_out(str(job.out), {})
    work = job.work.absolute()
    with telling_of_the_disk(str(job.work), "name another folder: --work"):
        make_directory(work)
    chain = Chain(job.checkpoint, work, tell)
    found = list(chain.files(recipe, {}))
    measures = chain.measured(recipe, found)
    told = {
        "checkpoint": job.checkpoint.name,
        "recipe": recipe.model_dump(mode="json"),
    }
    return written(found, measures, told, job.out, work, all_files=True)
