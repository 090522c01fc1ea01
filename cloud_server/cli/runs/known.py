"""Runs as the running server knows them, else as it wrote them down."""

from typing import TYPE_CHECKING, Any

from fleet_model.errors import ConnectionFailed, RoundError

if TYPE_CHECKING:
    from cloud_server.cli.admin_client import AdminClient
    from cloud_server.runs.run_store import Run
    from cloud_server.state.directory import ServerDirectory


def server_dir_of(directory: Any) -> "ServerDirectory":
    """Return a server directory; raises SettingsError if it is none."""
    from cloud_server.state.directory import ServerDirectory

    server_dir = ServerDirectory(directory)
    server_dir.require()
    return server_dir


def client_of(directory: Any) -> "AdminClient":
    """Return who asks the running server."""
    from cloud_server.cli.admin_client import AdminClient

    return AdminClient(server_dir_of(directory))


def known_runs(directory: Any) -> list[dict[str, Any]]:
    """Return runs as the server knows them, else as it wrote them down; with those apart."""
    from cloud_server.runs.run_store import RunStore

    server_dir = server_dir_of(directory)
    try:
        own = client_of(directory).runs()
    except ConnectionFailed:
        own = [run.as_json() for run in RunStore(server_dir.runs).load()]
    known = [{**run, "apart": False} for run in own]
    known += [{**run.as_json(), "apart": True} for run in RunStore(server_dir.runs_apart).load()]
    return sorted(known, key=lambda run: (run["started_at"], run["id"]))


def newest_run(directory: Any) -> str:
    """Return the name of the newest run; raises RoundError if there is none."""
    known = known_runs(directory)
    if not known:
        raise RoundError(f"there is no run yet; `cloud-server train {directory}` begins one")
    return str(known[-1]["id"])


def known_run(directory: Any, run_id: str) -> dict[str, Any]:
    """Return one run as `known_runs` does, with its closed rounds."""
    from cloud_server.runs.run_store import RunStore
    from cloud_server.state.history import ClosedRounds

    server_dir = server_dir_of(directory)
    apart = run = apart_run(directory, run_id)
    if run is None:
        try:
            return {**client_of(directory).run(run_id), "apart": False}
        except ConnectionFailed:
            run = RunStore(server_dir.runs).get(run_id)
            if run is None:
                raise
    lineage = server_dir.of(run.channel) if run.channel else server_dir.trained()
    for record in ClosedRounds(lineage, run_id):
        run.add(record.as_json())
    return {**run.as_json(), "apart": apart is not None}


def apart_run(directory: Any, run_id: str) -> "Run | None":
    """Return a run of a ServerApp apart, None if it is none."""
    from cloud_server.runs.run_store import RunStore

    return RunStore(server_dir_of(directory).runs_apart).get(run_id)


def require_of_server(directory: Any, run_id: str) -> None:
    """Raise RoundError for a run that a ServerApp apart works on."""
    if apart_run(directory, run_id) is not None:
        raise RoundError(
            f"run {run_id} is of a separate SuperLink: the same `flwr run` that has begun it goes "
            "on with it, `flwr stop` ends it (docs/separate-superlink.md)"
        )


def with_robots(directory: Any, run: dict[str, Any]) -> dict[str, Any]:
    """Return a run with robots' records in every round; the server holds those of small rounds."""
    from cloud_server.state.history import ClosedRounds

    if all("robots" in record for record in run["closed"]):
        return run
    server_dir, channel = server_dir_of(directory), run["channel"]
    lineage = server_dir.of(channel) if channel else server_dir.trained()
    rounds = {r.round: r.as_json() for r in ClosedRounds(lineage, run["id"])}
    return {**run, "closed": [rounds.get(one["round"], one) for one in run["closed"]]}
