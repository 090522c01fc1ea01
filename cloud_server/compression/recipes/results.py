"""What a pipeline leaves: pipeline.json, table.md, plot.png, and the files."""

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cloud_server.compression.measuring import Latency, Row, Scores, table
from cloud_server.compression.recipes.learning import NETWORK
from cloud_server.compression.recipes.measure import Candidate, Measure, front
from cloud_server.compression.recipes.plot import Panel, Point, picture
from cloud_server.pipelines.places import deliver

TABLE, PLOT, MODELS = "table.md", "plot.png", "models"


def kept(measures: Sequence[Measure]) -> list[bool]:
    """Return which models are on the Pareto front of accuracy, size and latency."""
    return front([(-one.accuracy, one.size_bytes, one.p50_ms) for one in measures])


def written(
    found: Sequence[Candidate],
    measures: Sequence[Measure],
    told: Mapping[str, Any],
    out: Path,
    work: Path,
    *,
    all_files: bool,
) -> dict[str, Any]:
    """Bring the results to `out`, in place of those that are there; return pipeline.json.

    Args:
        found: the files.
        measures: of each.
        told: what else is to be told; JSON values.
        out: a new or an empty folder, or one of former results.
        work: folder on whose disk they are put together.
        all_files: whether files that are not on the Pareto front are kept as well.
    """
    on_front = kept(measures)
    with tempfile.TemporaryDirectory(prefix=".results-", dir=work) as aside:
        result = Path(aside) / "result"
        (result / MODELS).mkdir(parents=True)
        models = []
        for one, measure, is_front in zip(found, measures, on_front, strict=True):
            file = network = None
            if all_files or is_front or one.name == told.get("picked"):
                file = f"{MODELS}/{file_name(one)}"
                shutil.copyfile(one.file, result / file)
                network = _with_network(one, found, result)
            files = {"file": file, "network": network, "front": is_front}
            models.append({**measure.model_dump(), **files})
        (result / TABLE).write_text(_table(measures, on_front) + "\n", "utf-8")
        (result / PLOT).write_bytes(_plot(measures))
        whole = {**told, "models": models, "files": [TABLE, PLOT]}
        deliver(result, whole, str(out), {})
    return whole


def file_name(one: Candidate) -> str:
    """Return the name of a delivered file, of letters, digits, points and dashes."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", one.name).strip("-") + one.file.suffix


def _with_network(one: Candidate, found: Sequence[Candidate], result: Path) -> str:
    """Return the name of the Keras network that a file was made of, which lies beside it."""
    first = next(other for other in found if other.network == one.network)
    name = f"{MODELS}/{Path(file_name(first)).stem}.keras"
    if not (result / name).exists():
        shutil.copyfile(one.network / NETWORK, result / name)
    return name


def _table(measures: Sequence[Measure], on_front: Sequence[bool]) -> str:
    rows = [
        Row(
            f"**{one.name}**" if is_front else one.name,
            one.size_bytes,
            one.parameters,
            Scores(one.accuracy, one.macro_f1),
            Latency(one.p50_ms, one.p95_ms),
            one.memory_bytes,
        )
        for one, is_front in zip(measures, on_front, strict=True)
    ]
    return (
        f"{table(rows)}\n\n**Bold**: on the Pareto front of accuracy, size and p50: no other one "
        "is as good in all three and better in one."
    )


def _plot(measures: Sequence[Measure]) -> bytes:
    sizes = [Point(one.name, one.size_bytes / 1e6, one.accuracy) for one in measures]
    times = [Point(one.name, one.p50_ms, one.accuracy) for one in measures]
    return picture(
        [Panel("accuracy over size", "MB", sizes), Panel("accuracy over time", "ms (p50)", times)]
    )
