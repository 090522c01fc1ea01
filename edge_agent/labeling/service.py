"""Run the page until SIGTERM or Ctrl-C."""

import asyncio
import getpass
import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from edge_agent.labeling.access import Access
from edge_agent.labeling.advice import Advice
from edge_agent.labeling.answer import FOLDER, in_words, told
from edge_agent.labeling.answers import Answers
from edge_agent.labeling.desk import MOST_CLASSES, Desk
from edge_agent.labeling.frames import INDEX, KeptFrames, require_frames
from edge_agent.labeling.ranking import Ranking
from edge_agent.labeling.server import LabelApp
from edge_agent.robot.local_address import Address, listen, remove
from edge_agent.robot.settings import AgentSettings
from edge_agent.serving.http import start_http
from fleet_model.engine import open_engine
from fleet_model.errors import SettingsError

PORT, LOOPBACK = 8765, "127.0.0.1"
NICENESS = 5  # the robot's own work comes first; a person waits for answers, too
SLOW_S = 20.0  # that a request may take to arrive: through a tunnel, from a phone
NEEDED = ("httptools", "uvicorn")
_STEP = "choose another with --port or --socket"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelOptions:
    """What a person asks for."""

    port: int = PORT  # 0: any that is free
    socket: Path | None = None  # of a unix socket, in place of the port
    by: str = ""  # who labels; "" is the user of this process
    classes: tuple[str, ...] = ()  # without a model, or beside its own
    boxes: bool | None = None  # None: as the model answers
    everything: bool = False  # also frames that have a label already
    json: bool = False


def label(settings: AgentSettings, options: LabelOptions, echo: Callable[[str], None]) -> None:
    """Serve the page until SIGINT or SIGTERM.

    Raises:
        SettingsError: the address is taken, a package is missing, nothing names the classes, the
            examples are no frames, or another process labels.
        StorageError: the state directory cannot be written.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise SettingsError(
            f"the page needs {missing[0]}, which is not installed; run: "
            "pip install 'fleetlearn[serve]'"
        )
    require_frames(settings, "this page shows")
    engine = settings.engine
    advice = Advice(settings.state / "models", partial(open_engine, precision=engine.precision))
    advice.look()
    classes, of_boxes = _what_is_labelled(advice, options)
    os.nice(NICENESS)
    folder = settings.state / FOLDER
    answers = Answers(folder, options.by or user())
    try:
        index, everything = folder / INDEX, options.everything
        frames = KeptFrames(settings, index, boxes=of_boxes, everything=everything)
        ranking = Ranking(frames, advice, answers.known())
        desk = Desk(answers, ranking, classes, of_boxes=of_boxes)
        before = len(answers.given)
        asyncio.run(_serve(desk, ranking, options, echo))
        _tell_end(answers, before, options, echo)
    finally:
        answers.close()


def _what_is_labelled(advice: Advice, options: LabelOptions) -> tuple[tuple[str, ...], bool]:
    """Return the classes, and whether boxes are drawn."""
    task = advice.task
    if task is not None and task.answer == "text":
        raise SettingsError("the model of this robot answers texts; this page labels classes")
    classes = tuple(dict.fromkeys((*(task.classes if task else ()), *options.classes)))
    if not classes:
        raise SettingsError(
            f"{advice.problem or 'the model has no classes'}, so nothing names the classes; "
            "name them: --classes clear,blocked"
        )
    if len(classes) > MOST_CLASSES:
        raise SettingsError(f"{len(classes)} classes; this page has room for {MOST_CLASSES}")
    by_model = task is not None and task.answer == "boxes"
    return classes, by_model if options.boxes is None else options.boxes


async def _serve(
    desk: Desk, ranking: Ranking, options: LabelOptions, echo: Callable[[str], None]
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    access = Access()
    path = options.socket
    address = Address(path=str(path.absolute())) if path else Address("", LOOPBACK, options.port)
    listener = listen(address, _STEP)
    try:
        if address.host:
            address = address._replace(port=listener.getsockname()[1])
        server, task = await start_http(LabelApp(desk, access), listener, SLOW_S)
        task.add_done_callback(lambda _: stop.set())
        ranking.start()
        _tell_address(address, access, options, echo)
        await stop.wait()
        ranking.close()
        server.should_exit = True
        await task
    finally:
        ranking.close()
        remove(address)


def _tell_address(
    address: Address, access: Access, options: LabelOptions, echo: Callable[[str], None]
) -> None:
    port = address.port or PORT
    url = f"http://localhost:{port}/?token={access.token}"
    there = address.path or f"127.0.0.1:{port}"
    tunnel = f"ssh -L {port}:{there} {user()}@{socket.gethostname()}"
    if options.json:
        echo(json.dumps({"url": url, "tunnel": tunnel, "socket": address.path or None}))
        return
    echo(f"open     {url}")
    echo(f"from a laptop, first: {tunnel}")
    echo("frames and labels stay on this robot; Ctrl-C ends")


def _tell_end(
    answers: Answers, before: int, options: LabelOptions, echo: Callable[[str], None]
) -> None:
    """Say what was done in this session."""
    done = told(answers.given)
    done["answers"] = len(answers.given) - before
    if options.json:
        echo(json.dumps(done))
    else:
        echo(f"{done['answers']} answers in this session; {in_words(done)}")


def user() -> str:
    """Return who runs this; behind sudo the person."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container without that user
        return str(os.getuid())
