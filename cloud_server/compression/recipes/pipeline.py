"""`cloud-server compress`: a job, from its files to its results."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from cloud_server.compression.recipes.recipe import read_recipe
from cloud_server.compression.recipes.sweep import Limits, Variant, parsed, picked, variants
from cloud_server.models.backend import NOTE, Progress
from fleet_model.errors import CheckpointError, ExportError, WithheldError

if TYPE_CHECKING:
    from cloud_server.compression.recipes.chain import Chain
    from cloud_server.compression.recipes.measure import Candidate


class CompressJob(BaseModel):
    """What the command line hands to its child process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: Path  # .keras
    pipeline: Path  # .toml
    out: Path  # folder of the results
    work: Path  # folder of the steps' results
    sweep: tuple[str, ...] = ()  # "STEP.KEY=VALUE,VALUE"; comes after that of the file
    limits: Limits = Limits()
    for_robots: bool = False  # they run .tflite: no other file is picked


def run_compression(job: CompressJob, tell: Progress) -> dict[str, Any]:
    """Do what is not done yet, write the results; return what pipeline.json says.

    Raises:
        WithheldError: no model keeps the limits; the results are written.
        FleetError: as the steps do.
    """
    from cloud_server.compression.recipes.chain import Chain
    from cloud_server.compression.recipes.results import written
    from cloud_server.pipelines.places import require_out
    from cloud_server.pipelines.steps import working_folder

    recipe = read_recipe(job.pipeline)
    if job.checkpoint.suffix != ".keras" or not job.checkpoint.is_file():
        raise CheckpointError(
            f"{job.checkpoint}: no such .keras file; `cloud-server models export DIR --format "
            "keras` writes one of a fleet's version"
        )
    require_out(str(job.out), {})
    grid = {**recipe.sweep, **dict(map(parsed, job.sweep))}
    several = variants(recipe, grid)
    work = working_folder(job.work)
    chain = Chain(job.checkpoint, work, tell)
    found, refused = _all_files(chain, several, tell)
    measures = chain.measured(recipe, found)
    choice, none_keeps = None, ""
    try:
        asked = [one for one in measures if one.format == "tflite" or not job.for_robots]
        choice = asked[picked(asked, job.limits)].name if job.limits.any else None
    except WithheldError as error:
        none_keeps = str(error)
    told = {
        "checkpoint": job.checkpoint.name,
        "sha256": chain.digest,
        **chain.about(recipe),
        "recipe": {**recipe.model_dump(mode="json"), "sweep": grid},
        "limits": job.limits.model_dump(),
        "picked": choice,
        "refused": refused,
    }
    whole = written(found, measures, told, job.out, work, all_files=len(several) == 1)
    if none_keeps:
        raise WithheldError(f"{none_keeps}. {job.out} has the table and the files")
    return whole


def _all_files(
    chain: "Chain", several: Sequence[Variant], tell: Progress
) -> tuple[list["Candidate"], list[dict[str, str]]]:
    """Return the files of all recipes, each once, and what a sweep has refused.

    Raises:
        ExportError: of one recipe, or of all.
    """
    found: dict[Path, Candidate] = {}
    refused: list[dict[str, str]] = []
    for number, (recipe, chosen) in enumerate(several, 1):
        words = ", ".join(chosen.values())
        if words:
            tell(f"{number} of {len(several)}: {words}")
        try:
            for one in chain.files(recipe, chosen):
                found.setdefault(one.file, one)
        except ExportError as error:
            if number == len(several) and len(refused) == len(several) - 1:
                raise
            refused.append({"what": words, "why": str(error)})
            tell(f"{NOTE}{words}: {error}")
    return list(found.values()), refused
