"""Commands over robots that are Kubernetes clusters of their own."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_server.cli.terminal import Json, console, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloud_server.kubernetes.apply import Applied
    from cloud_server.kubernetes.robots import Outcome
    from cloud_server.kubernetes.status import Seen
    from fleet_model.kubernetes.connection import Patience

app = typer.Typer(
    no_args_is_help=True, help="Robots that are Kubernetes clusters, one context each."
)

Config = Annotated[
    Path | None, typer.Option(help="file with the contexts  [KUBECONFIG, ~/.kube/config]")
]
Contexts = Annotated[
    list[str] | None,
    typer.Option("--context", help="a robot, or a pattern as 'robot-*'; repeatable"),
]
Parallel = Annotated[int, typer.Option(min=1, max=256, help="robots that are asked at once")]
Connect = Annotated[
    float, typer.Option(min=0.1, max=600, help="seconds to reach a robot, and for its first word")
]
Timeout = Annotated[float, typer.Option(min=0.1, max=3600, help="seconds of silence, at most")]
Retries = Annotated[int, typer.Option(min=0, max=20, help="of what fails at once, not of silence")]
Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="YAML with objects; - is stdin")
]


@app.command("apply")
def k8s_apply(
    files: Files,
    kubeconfig: Config = None,
    contexts: Contexts = None,
    dry_run: Annotated[bool, typer.Option(help="let the robots judge, and change nothing")] = False,
    force_conflicts: Annotated[
        bool, typer.Option(help="take over fields that something else has set")
    ] = False,
    parallel: Parallel = 16,
    connect_timeout: Connect = 3.0,
    timeout: Timeout = 15.0,
    retries: Retries = 2,
    json_output: Json = False,
) -> None:
    """Apply manifests to many robots; what is wrong in a file is found before any is asked.

    Run it again for those that did not answer: what is there already stays as it is.

    Example: cloud-server k8s apply models.yaml --context 'robot-*'
    """
    from cloud_server.kubernetes.apply import Applied, apply_all, in_order
    from cloud_server.kubernetes.documents import find_mistakes, read_documents
    from cloud_server.kubernetes.kubeconfig import find_kubeconfig
    from cloud_server.kubernetes.robots import ask_all, chosen_contexts, require_all

    documents = read_documents(files)
    _require_right(find_mistakes(documents))
    config = find_kubeconfig(kubeconfig)
    robots = chosen_contexts(config, contexts or ())
    ordered, spaces = in_order(documents), {one: config.namespace(one) for one in robots}
    empty: type[list[Applied]] = list
    outcomes = ask_all(
        config, robots, _patience(connect_timeout, timeout, retries), parallel, empty,
        lambda cluster, into: apply_all(
            cluster, ordered, into, namespace=spaces[cluster.name], force=force_conflicts,
            dry_run=dry_run,
        ),
    )  # fmt: skip
    if json_output:
        _print_json(outcomes, "objects", dry_run=dry_run)
    else:
        _show_applied(outcomes, len(documents))
    require_all(outcomes, "did not take all of it" if not dry_run else "would not take all of it")


@app.command("status")
def k8s_status(
    kubeconfig: Config = None,
    contexts: Contexts = None,
    namespace: Annotated[str, typer.Option(help="of the RobotModels  [all]")] = "",
    parallel: Parallel = 16,
    connect_timeout: Connect = 3.0,
    timeout: Timeout = 15.0,
    retries: Retries = 2,
    json_output: Json = False,
) -> None:
    """Show what each robot runs and wants, and why it does not; robots without an answer, too.

    Example: cloud-server k8s status --context 'robot-*'
    """
    from cloud_server.kubernetes.kubeconfig import find_kubeconfig
    from cloud_server.kubernetes.robots import ask_all, chosen_contexts, require_all
    from cloud_server.kubernetes.status import Seen, read_models

    config = find_kubeconfig(kubeconfig)
    empty: type[list[Seen]] = list
    outcomes = ask_all(
        config, chosen_contexts(config, contexts or ()),
        _patience(connect_timeout, timeout, retries), parallel, empty,
        lambda cluster, into: read_models(cluster, into, namespace=namespace),
    )  # fmt: skip
    if json_output:
        _print_json(outcomes, "models")
    else:
        _show_status(outcomes)
    require_all(outcomes, "say nothing of a model")


def _patience(connect_s: float, silence_s: float, retries: int) -> "Patience":
    from fleet_model.kubernetes.connection import Patience

    return Patience(
        connect_s=connect_s, silence_s=silence_s, answer_s=2 * silence_s, retries=retries
    )


def _require_right(mistakes: "Sequence[str]") -> None:
    from fleet_model.errors import SettingsError, one_line

    if mistakes:
        for one in mistakes[:-1]:
            typer.echo(one_line(one), err=True)
        more = f" ({len(mistakes)} mistakes)" if len(mistakes) > 1 else ""
        raise SettingsError(f"{mistakes[-1]}; nothing was sent{more}")


def _print_json(outcomes: "Sequence[Outcome[Any]]", name: str, **more: Any) -> None:
    robots = [
        {
            "robot": one.robot,
            "ok": one.error is None,
            "error": one.problem,
            "exit_code": 0 if one.error is None else one.error.exit_code,
            "seconds": round(one.seconds, 3),
            name: [result.as_json() for result in one.result],
        }
        for one in outcomes
    ]
    typer.echo(json.dumps({**more, "robots": robots}))


def _show_applied(outcomes: "Sequence[Outcome[list[Applied]]]", objects: int) -> None:
    rows = []
    for one in outcomes:
        states = [applied.state for applied in one.result]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        missing = f"{objects - len(states)} not applied" if one.error else ""
        rows.append((one.robot, ", ".join(filter(None, (counts, missing))), one.problem))
    table(("robot", "objects", "problem"), rows)
    if any(applied.state == "unknown" for one in outcomes for applied in one.result):
        console().print(
            "unknown: a robot cannot judge what lies in a namespace or is of a kind that this dry "
            "run would make",
            soft_wrap=True,
        )


def _show_status(outcomes: "Sequence[Outcome[list[Seen]]]") -> None:
    rows = []
    for one in outcomes:
        rows += [_row(one.robot, seen) for seen in one.result]
        if one.error is not None:
            rows.append((one.robot, "-", "-", "-", "-", "unknown", one.problem))
    columns = ("robot", "model", "channel", "version", "verified by", "ready", "why not")
    table(columns, rows)


def _row(robot: str, seen: "Seen") -> tuple[str, ...]:
    status, signed = seen.status, seen.status.verified_by
    version = "-" if status.active_version is None else str(status.active_version)
    if status.tried is not None and status.tried.version != status.active_version:
        version += f" ({status.tried.version} {status.tried.state})"
    channel = seen.wanted
    if status.channel and status.channel != seen.wanted:
        channel += f" (follows {status.channel})"
    by = "-" if signed is None else " ".join([signed.role, *(key[:8] for key in signed.keys)])
    return robot, seen.name, channel, version, by, seen.ready, seen.why
