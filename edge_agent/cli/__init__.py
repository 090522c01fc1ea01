"""Command line of the robot side: edge-agent."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_agent.cli.collect_command import collect
from edge_agent.cli.frame_commands import LABELS, Json, extract
from edge_agent.cli.inspect_command import inspect
from edge_agent.cli.k8s_command import k8s_controller
from edge_agent.cli.label_command import label
from edge_agent.cli.options import CONFIG, Config
from edge_agent.cli.predict_command import predict
from edge_agent.cli.serve_command import serve
from edge_agent.cli.status_lines import status_lines
from edge_agent.data.frames.source import is_live
from fleet_model.command_line.app import make_app, run_app, show_findings
from fleet_model.errors import SettingsError

if TYPE_CHECKING:
    from edge_agent.models.install import Installer

app = make_app(
    "Federated learning for fleets of robots: the robot's side.",
    "0 done, 2 wrong settings or flags, 3 damaged bundle, 4 message does not fit, 5 bag or image "
    "cannot be read, 12 disk full or not writable, 13 done but something was damaged",
)
app.command()(extract)
app.command()(collect)
app.command()(inspect)
app.command()(predict)
app.command()(serve)
app.command()(label)
app.command()(k8s_controller)


@app.command()
def enroll(
    kit: Annotated[Path, typer.Argument(help="the kit folder of the server (DIR/kit)")],
    directory: Annotated[Path, typer.Option("--dir", help="folder for key and settings")] = Path(),
    examples: Annotated[
        list[Path] | None,
        typer.Option(
            help="bag, labelled folder, YOLO, COCO or TFDS directory; table of texts (CSV, JSON "
            "lines, Parquet, a folder of them); repeatable"
        ),
    ] = None,
    spool: Annotated[
        Path | None,
        typer.Option(help="folder where new bags appear; the agent copies their frames"),
    ] = None,
    topic: Annotated[str, typer.Option(help="camera topic; empty: the only one in the bag")] = "",
    label_topic: Annotated[
        str,
        typer.Option(*LABELS, help="topic with labels of the bags, a CSV file, or a data set"),
    ] = "/camera/label",
    train: Annotated[bool, typer.Option(help="--no-train: only follow published models")] = True,
    name: Annotated[
        str, typer.Option(help="name for the robot, if the kit has a token; default: host name")
    ] = "",
    models: Annotated[
        str,
        typer.Option(help="https://host/folder or s3://bucket/folder, if the server has no models"),
    ] = "",
    json_output: Json = False,
) -> None:
    """Make this robot's key and settings; print the public key that the server must admit.

    Example: edge-agent enroll kit --dir robot --examples /data/bags
    """
    from edge_agent.cli.doctor import labels_of_kit, learns_answers
    from edge_agent.cli.enroll import enroll as make
    from edge_agent.data.label_words import require_label_file
    from edge_agent.examples.look import look_at_examples
    from edge_agent.examples.source import source_for
    from edge_agent.robot.join_token import has_token, machine_name
    from edge_agent.robot.settings import ExampleSettings, load_settings
    from fleet_model.protocol.proof import fingerprint
    from fleet_model.protocol.routes import store_address

    require_label_file(label_topic)
    if label_topic and Path(label_topic).exists():
        label_topic = str(Path(label_topic).absolute())
    try:
        place = store_address(models)
    except ValueError as error:
        raise SettingsError(f"--models {models}: {error}") from None
    kit = kit.parent if kit.name == "kit.toml" else kit
    paths = tuple(path if is_live(path) else path.absolute() for path in examples or ())
    settings = ExampleSettings(
        source=source_for(paths),
        paths=paths,
        topic=topic,
        label_topic=label_topic,
        spool=spool and spool.absolute(),
    )
    line = make(kit, directory, settings, train=train, name=name, models=place)
    config = load_settings(directory / "agent.toml", {})
    labels, boxes = labels_of_kit(kit)
    answers = learns_answers(kit)
    found = look_at_examples(config, labels, boxes=boxes, answers=answers) if train else []
    if json_output:
        told = {"public_key": line, "fingerprint": fingerprint(line)}
        typer.echo(json.dumps({**told, "findings": [one.as_json() for one in found]}))
        return
    show_findings(found, json_output=False, err=True)
    typer.echo(line)
    pub = directory / "robot.pub"
    admit = (
        "with the kit's token it admits itself when this runs"
        if has_token(directory)
        else f"the line above is in {pub}. Copy that file to the server, and run there, with "
        f"its own directory for DIR:\n"
        f"  cloud-server robots add DIR {machine_name()} --site SITE --key {pub.name}\nthen here"
    )
    typer.echo(
        f"fingerprint: {fingerprint(line)}\nenrolled; {admit}:\n"
        f"  edge-agent run --config {directory / 'agent.toml'}",
        err=True,
    )


@app.command()
def doctor(
    config: Config = CONFIG,
    kit: Annotated[
        Path | None, typer.Option(help="kit of the server: compare labels before there is a model")
    ] = None,
    json_output: Json = False,
) -> None:
    """Look at server, model and examples: can this robot train? Exit code 1 if something fails."""
    from edge_agent.cli.doctor import examine, labels_of_kit, learns_answers
    from edge_agent.robot.settings import load_settings

    labels, boxes = labels_of_kit(kit) if kit else ((), False)
    answers = kit is not None and learns_answers(kit)
    found = examine(load_settings(config), labels, boxes=boxes, answers=answers)
    show_findings(found, json_output=json_output)
    if any(one.state == "fail" for one in found):
        raise typer.Exit(1)


@app.command()
def run(
    config: Config = CONFIG,
    alive: Annotated[
        Path | None,
        typer.Option(help="touch this file while the agent's loop turns, for a container's probe"),
    ] = None,
) -> None:
    """Run the agent: join the fleet, train when asked, install published models, until SIGTERM.

    If the server is away or does not know this robot yet, the agent waits: see `edge-agent status`.
    """
    from edge_agent.agent.service import leave, serve
    from edge_agent.robot.logs import log_to_stderr
    from edge_agent.robot.settings import load_settings

    log_to_stderr()
    serve(load_settings(config), alive)
    leave()


@app.command()
def pause(
    config: Config = CONFIG,
    reason: Annotated[str, typer.Option(help="sent to the server, one line")] = "",
) -> None:
    """Take no part in training until `edge-agent resume`; new models are still installed."""
    from edge_agent.robot.pause import pause as pause_robot
    from edge_agent.robot.settings import load_settings

    pause_robot(load_settings(config).state, reason)
    typer.echo("paused; `edge-agent resume` ends it")


@app.command()
def resume(config: Config = CONFIG) -> None:
    """Take part in training again."""
    from edge_agent.robot.pause import resume as resume_robot
    from edge_agent.robot.settings import load_settings

    was = resume_robot(load_settings(config).state)
    typer.echo("resumed" if was else "it was not paused")


@app.command()
def status(config: Config = CONFIG, json_output: Json = False) -> None:
    """Show what the agent on this robot last did, and what the server thinks of it."""
    from edge_agent.agent.status import read_status
    from edge_agent.examples.taught import TEACHERS, tell_teachers
    from edge_agent.examples.texts.told import FILE as TEXTS_FILE
    from edge_agent.examples.texts.told import read_told
    from edge_agent.labeling.answer import FOLDER, read_answers, told
    from edge_agent.models.trials import TrialFile
    from edge_agent.robot.pause import pause_reason
    from edge_agent.robot.settings import load_settings, settings_file

    settings = load_settings(config)
    answer = read_status(settings.state)
    paused = pause_reason(settings.state)
    if answer:
        answer["paused"] = paused
        tried = TrialFile(settings.state / "models").read().last  # also of a robot that stopped
        answer["trial"] = tried.model_dump(exclude_defaults=True) if tried else None
        answer["labels"] = told(read_answers(settings.state / FOLDER))
        answer["teachers"] = tell_teachers(settings.state / TEACHERS)
        answer["texts"] = read_told(settings.state / TEXTS_FILE)
    if json_output:
        typer.echo(json.dumps(answer))
        return
    if not answer:
        typer.echo("the agent has not run yet")
        return
    for line in status_lines(answer):
        typer.echo(line)
    config = settings_file(config)
    if config.stat().st_mtime > answer.get("started_at", math.inf) and answer["state"] != "stopped":
        typer.echo(f"settings {config} was changed after the agent started: restart the agent")


@app.command()
def install(
    config: Config = CONFIG,
    force: Annotated[
        bool, typer.Option(help="also if it is worse here than the running model; it must run")
    ] = False,
) -> None:
    """Have a refused model tried again: the agent does it at its next poll."""
    refused = _installer(config).allow(force=force)
    if refused is None:
        typer.echo("no model is refused; `edge-agent run` installs what the channel offers")
        return
    typer.echo(f"the agent tries it again at its next poll; until now {refused.words}")


@app.command()
def rollback(config: Config = CONFIG) -> None:
    """Go back to the version before, now; the given version is not installed again by itself."""
    typer.echo(_installer(config).roll_back())


@app.command()
def site(
    site: Annotated[str, typer.Argument(metavar="SITE", help="as the server's register has it")],
    config: Config = CONFIG,
) -> None:
    """Choose models by another site: a robot keeps the one that it was told first."""
    from edge_agent.link.choosing.kept_site import KeptSite
    from edge_agent.robot.settings import load_settings

    KeptSite(load_settings(config).state / "trust").change(site)
    typer.echo(f"the agent chooses models by site {site} from its next poll on")


def _installer(config: Path) -> "Installer":
    from threading import Event

    from edge_agent.models.deploy import Models
    from edge_agent.models.install import Installer
    from edge_agent.robot.settings import load_settings

    settings = load_settings(config)
    models = Models(settings.state / "models", settings.server.channel)
    return Installer(settings, models, Event())


def main() -> None:
    """Run the command line."""
    run_app(app, "edge-agent")
