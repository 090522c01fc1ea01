"""Look at everything that this robot needs before it fails: `edge-agent doctor`."""

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from edge_agent.agent.status import read_status
from edge_agent.examples.look import look_at_examples
from edge_agent.link.addresses import Addresses
from edge_agent.link.elsewhere import open_elsewhere
from edge_agent.link.server_link import HttpsStore
from edge_agent.models.deploy import Models
from edge_agent.robot.settings import AgentSettings
from fleet_model.command_line.app import Finding
from fleet_model.errors import FleetError
from fleet_model.protocol.routes import METADATA, path_of
from fleet_model.workload import Workload, rebuild, takes_instructions

ENROLL = "run `edge-agent enroll` in an empty folder, or copy the file from a backup"


def examine(
    settings: AgentSettings,
    labels: Sequence[str] = (),
    *,
    boxes: bool = False,
    answers: bool = False,
) -> list[Finding]:
    """Look at server, model, training and examples; nothing is changed.

    Args:
        settings: of this robot; the agent may run.
        labels: that the fleet learns; without them those of the installed model.
        boxes: whether boxes have these labels, and no whole frames.
        answers: whether answers to instructions are learned, and no labels.
    """
    found = [*_server(settings), *_models_elsewhere(settings)]
    model, workload = _model(settings)
    found.append(model)
    if not settings.training.enabled:
        return [*found, Finding("training", "ok", "off: this robot follows published models only")]
    if workload and not labels:
        task, answers = workload.task, takes_instructions(workload)
        labels, boxes = task.classes, task.answer == "boxes"
    looked = look_at_examples(settings, labels, boxes=boxes, answers=answers)
    return [*found, *_training(settings), *looked]


def _server(settings: AgentSettings) -> Iterator[Finding]:
    try:
        store = HttpsStore(settings.server)
        store.use(Addresses(settings.server.address, settings.state).current)
    except FleetError as error:
        yield Finding("key", "fail", str(error), ENROLL)
        return
    try:
        name, site = store.whoami()
        standing = store.standing
    except FleetError as error:
        yield Finding("server", "fail", str(error), "see docs/troubleshooting.md for the message")
        return
    finally:
        store.close()
    known = f"{store.address} knows this robot as {name}, site {site}"
    if standing.state == "approved":
        yield Finding("server", "ok", known)
    else:
        reason = standing.reason or "no reason given"
        yield Finding("server", "warn", f"{known}: {standing.state}", reason)


def _models_elsewhere(settings: AgentSettings) -> Iterator[Finding]:
    try:
        elsewhere = open_elsewhere(settings.server)
        if elsewhere is None:
            return
        with closing(elsewhere):
            found = elsewhere.small(path_of("", METADATA, name="timestamp.json"))
    except FleetError as error:
        yield Finding("models", "fail", str(error), "see server.models in agent.toml")
        return
    if found is None:
        text = f"{elsewhere.name} has no metadata/timestamp.json below the folder of server.models"
        yield Finding("models", "fail", text, "on the server: `cloud-server models sync`")
    else:
        yield Finding("models", "ok", f"are fetched from {elsewhere.name}, which answers")


def _model(settings: AgentSettings) -> tuple[Finding, Workload | None]:
    """Return what is installed, and what it was trained for."""
    try:
        models = Models(settings.state / "models", settings.server.channel)
        offer = models.active(settings.engine.precision)
    except (FleetError, OSError) as error:
        return Finding("model", "warn", str(error), "the agent fetches it again"), None
    if offer is None:
        reason = read_status(settings.state).get("not_installed") or "start the agent"
        return Finding("model", "warn", "none is installed yet", str(reason)), None
    workload = rebuild(offer.manifest.workload)
    return Finding("model", "ok", f"version {offer.manifest.version}"), workload


def _training(settings: AgentSettings) -> Iterator[Finding]:
    frameworks = {"litert": "ai_edge_litert", "keras": "keras", "torch": "torch"}
    needed = frameworks.get(settings.training.trainer)
    missing = [p for p in ("flwr", needed) if p and importlib.util.find_spec(p) is None]
    if missing or sys.version_info < (3, 11):
        text = f"needs Python 3.11 or newer with {', '.join(missing) or 'flwr'}"
        extra = {"keras": "keras", "torch": "torch"}.get(settings.training.trainer, "agent")
        yield Finding("training", "fail", text, f"pip install 'fleetlearn[{extra}]'")


def learns_answers(kit: Path) -> bool:
    """Return whether a kit is of a fleet that learns answers to instructions."""
    from fleet_model.settings import read_toml

    return read_toml(kit / "kit.toml").get("answers") is True


def labels_of_kit(kit: Path) -> tuple[Sequence[str], bool]:
    """Return the labels that a kit names, and whether boxes have them; earlier kits name none."""
    from fleet_model.settings import read_toml

    values = read_toml(kit / "kit.toml")
    labels = values.get("labels", ())
    named = [str(label) for label in labels] if isinstance(labels, list) else []
    return named, values.get("boxes") is True
