"""`edge-agent k8s-controller`."""

from pathlib import Path
from typing import Annotated

import typer


def k8s_controller(
    state: Annotated[Path, typer.Option(help="the agent's state directory; it is only read")],
    alive: Annotated[
        Path | None, typer.Option(help="file whose time is that of the last look, for a probe")
    ] = None,
) -> None:
    """Let the agent of this Kubernetes cluster follow its RobotModels, until SIGTERM.

    It runs in a pod: see deploy/kubernetes/overlays/one-robot.
    """
    from edge_agent.kubernetes.controller import Controller, run_until_signal
    from edge_agent.kubernetes.in_cluster import in_cluster
    from edge_agent.robot.logs import log_to_stderr

    connection, namespace = in_cluster()
    log_to_stderr()
    run_until_signal(Controller(connection, namespace, state, alive))
