"""`cloud-server runs compare`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_server.cli.terminal import Directory, Json, table
from fleet_model.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_server.report.run_comparison import RunCurve
    from cloud_server.state.directory import ServerDirectory


def runs_compare(
    directory: Directory,
    runs: Annotated[
        list[str], typer.Argument(metavar="ID ID...", help="as `runs list` shows them")
    ],
    measure: Annotated[str, typer.Option(help="e.g. accuracy, loss  [the workload's first]")] = "",
    plot: Annotated[
        Path | None, typer.Option(help="write the curves to this PNG", show_default=False)
    ] = None,
    json_output: Json = False,
) -> None:
    """Compare training runs: by rounds, by bytes and by seconds; the server need not run."""
    from cloud_server.report.run_comparison import draw

    told, curves = compared(directory, runs, measure)
    if plot is not None:
        draw(plot, curves, told["measure"])
    if json_output:
        typer.echo(json.dumps(told))
        return
    _show(told, curves)
    if plot is not None:
        typer.echo(f"drawn: {plot}")


def compared(
    directory: Path, runs: "Sequence[str]", measure: str
) -> "tuple[dict[str, Any], Sequence[RunCurve]]":
    """Return runs side by side as JSON values, and their curves; raises SettingsError."""
    from cloud_server.report.run_comparison import MAX_RUNS, as_json, measure_of
    from cloud_server.state.directory import ServerDirectory

    server_dir = ServerDirectory(directory)
    server_dir.require()
    if not 2 <= len(set(runs)) == len(runs) <= MAX_RUNS:
        raise SettingsError(
            f"name 2 to {MAX_RUNS} different runs, as `cloud-server runs list {directory}` shows"
        )
    curves, measures = [], dict[str, str]()
    for run in runs:
        curve, of_run = _read(server_dir, run)
        curves.append(curve)
        measures |= of_run
    name = measure_of(curves, measures, measure)
    higher = measures.get(name, "higher") == "higher"
    return as_json(curves, name, higher=higher), curves


def _read(server_dir: "ServerDirectory", run_id: str) -> "tuple[RunCurve, dict[str, str]]":
    """Return a run, and the measures of its workload with the direction that is better."""
    from cloud_server.models.release_log import ReleaseLog
    from cloud_server.report.run_comparison import curve_of
    from cloud_server.runs.conditions import read
    from cloud_server.runs.run_store import RunStore
    from cloud_server.state.checkpoints import Checkpoints
    from cloud_server.state.history import ClosedRounds
    from fleet_model.bundle import TRAINER, parse_trainer
    from fleet_model.workload import rebuild

    stores = [RunStore(server_dir.runs), RunStore(server_dir.runs_apart)]
    store, run = next(
        ((store, run) for store in stores if (run := store.get(run_id)) is not None), (None, None)
    )
    if store is None or run is None:
        raise SettingsError(
            f"there is no run {run_id}; `cloud-server runs list {server_dir.root}` shows them"
        )
    lineage = server_dir.of(run.channel) if run.channel else server_dir.trained()
    records = list(ClosedRounds(lineage, run_id))
    if run.kind != "train" or not records:
        why = "only measures a model" if run.kind != "train" else "has closed no round"
        raise SettingsError(f"run {run_id} {why}: there is nothing to compare")
    releases = ReleaseLog(lineage.releases).by_version()
    last = records[-1].version
    release = next((one for one in releases.values() if one.root == last and one.after), None)
    newest = Checkpoints(lineage.checkpoints).newest()  # that of the run may be gone
    spec = parse_trainer((lineage.model_of(newest or 0) / TRAINER).read_bytes())
    measures = (spec.task or rebuild(spec.workload).task).measures
    conditions = read(store.directory(run_id))
    return curve_of(run_id, records, release, conditions), dict(measures)


def _show(told: dict[str, Any], curves: "Sequence[RunCurve]") -> None:
    measure, target = told["measure"], told["target"]
    table(
        ("run", "rounds", "robots", "MB sent", "seconds", f"best {measure}"),
        [
            (
                one["run"], str(one["rounds"]), str(one["robots"]), f"{one['megabytes']:.3g}",
                f"{one['seconds']:.1f}", f"{one['best']:.4g}",
            )
            for one in told["runs"]
        ],
    )  # fmt: skip
    typer.echo(f"until {measure} {target:.4g}, which all have reached:")
    for one in told["runs"]:
        at = one["until_target"]
        typer.echo(
            f"  {one['run']}: {at['rounds']} rounds, {at['megabytes']:.3g} MB, "
            f"{at['seconds']:.1f} s"
        )
    if unknown := [one.run for one in curves if not one.conditions]:
        typer.echo(f"settings were not written down for {', '.join(unknown)}: an earlier release")
    rows = [(name, *values) for name, values in told["differences"].items()]
    if rows:
        table(("differs", *(one["run"] for one in told["runs"])), rows)
    else:
        typer.echo("settings and versions that are known do not differ")
