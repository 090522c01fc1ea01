"""Run the server until SIGTERM or Ctrl-C: both wires, the model that the agent switches."""

import asyncio
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.robot.local_address import (
    Address,
    cannot_listen,
    listen,
    make_room,
    open_to_group,
    parse_address,
    remove,
)
from edge_agent.robot.serve_settings import ServeSettings
from edge_agent.serving.http import GRACE_S, start_http
from edge_agent.serving.inference import Bounds, Inference
from edge_agent.serving.rest import RestApp
from edge_agent.serving.served import served_models
from edge_agent.serving.turns import Turns
from fleet_model.command_line.systemd import notify, watchdog_s
from fleet_model.engine import TFLiteEngine
from fleet_model.errors import SettingsError
from fleet_model.following import FollowedModel

if TYPE_CHECKING:
    import grpc
    import uvicorn

NEEDED = ("grpc", "google.protobuf", "httptools", "uvicorn")
LOOK_S = 1.0  # for the first model
IDLE_S = 3600.0  # where there is no watchdog
BODIES = 8  # of the longest size, in memory at once
log = logging.getLogger(__name__)


def serve(settings: ServeSettings, current: Path, precision: str, *, pod: bool = False) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        settings: addresses and bounds.
        current: the agent's link to the model in use, or a bundle directory.
        precision: "fp32" or "int8".
        pod: whether other machines may ask, by any name: something before it decides who does.

    Raises:
        SettingsError: an address is taken or none is given, or a package is missing.
    """
    if missing := [name for name in NEEDED if not _is_installed(name)]:
        raise SettingsError(
            f"serving needs {missing[0]}, which is not installed; run: "
            "pip install 'fleetlearn[serve]'"
        )
    if not (settings.rest or settings.grpc):
        raise SettingsError("serve.rest and serve.grpc are both empty: nothing would be served")
    main = _serve(settings, current, precision, pod)
    if not _is_installed("uvloop"):
        asyncio.run(main)
        return
    import uvloop  # a request over REST takes two thirds of the time

    uvloop.run(main)


async def _serve(settings: ServeSettings, current: Path, precision: str, pod: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    bounds = Bounds(int(settings.max_body_mb * 1e6), BODIES, settings.slow_s)
    turns = Turns(settings.max_waiting, bounds.bodies * bounds.max_body)
    inference = Inference(turns, settings.max_batch)

    def answers(engine: TFLiteEngine) -> None:
        inference.current = served_models(engine, settings.name, precision)
        served = inference.current
        log.info(
            "serving version %s by LiteRT's %s: %s", served.version, served.runtime, engine.runs
        )

    addresses: list[Address] = []
    with _removed(addresses):
        rest = grpc_server = None
        if settings.rest:
            app = RestApp(inference, bounds, any_host=pod)
            rest = await _start_rest(parse_address(settings.rest, pod=pod), app, bounds, addresses)
        if settings.grpc:
            address = parse_address(settings.grpc, pod=pod)
            grpc_server = await _start_grpc(address, inference, bounds, addresses)
        watching = asyncio.create_task(_feed_watchdog())
        following = asyncio.create_task(_follow(current, precision, settings.threads, answers))
        for task in filter(None, (following, watching, rest and rest[1])):
            task.add_done_callback(lambda _: stop.set())  # what ends by itself has failed
        notify("READY=1")
        await stop.wait()
        log.info("ending")
        notify("STOPPING=1")
        inference.is_ending = True
        watching.cancel()
        following.cancel()
        await _end(rest, grpc_server, inference)
        for task in (following, watching):
            with suppress(asyncio.CancelledError):
                await task


async def _end(rest: Any, grpc_server: Any, inference: Inference) -> None:
    """Answer what has been asked, in bounded time."""
    ends = []
    if rest is not None:
        server, task = rest
        server.should_exit = True
        ends.append(task)
    if grpc_server is not None:
        ends.append(grpc_server.stop(GRACE_S))
    await asyncio.gather(*ends)
    await asyncio.to_thread(inference.turns.close, GRACE_S)


async def _follow(current: Path, precision: str, threads: int, answers: Any) -> None:
    """Load the model of now and those that come, beside the requests."""
    model = await asyncio.to_thread(FollowedModel, current, precision, threads, answers)
    try:
        told = ""
        while model.engine is None:
            if model.problem != told:
                log.warning("%s", model.problem)
                told = model.problem
            await asyncio.sleep(LOOK_S)
            await asyncio.to_thread(model.look)
        await asyncio.Event().wait()
    finally:
        model.close()


async def _start_rest(
    address: Address, app: RestApp, bounds: Bounds, addresses: list[Address]
) -> "tuple[uvicorn.Server, asyncio.Task[None]]":
    listener = listen(address)
    addresses.append(address)
    server, task = await start_http(app, listener, bounds.slow_s)
    log.info("REST on %s", _bound(address, listener.getsockname()))
    return server, task


async def _start_grpc(
    address: Address, inference: Inference, bounds: Bounds, addresses: list[Address]
) -> "grpc.aio.Server":
    from edge_agent.serving.grpc_service import grpc_server

    if address.path:
        make_room(address)
    server = grpc_server(inference, bounds)
    try:
        port = server.add_insecure_port(str(address))
        open_to_group(address)
    except (RuntimeError, OSError):  # gRPC has told its own log why
        raise cannot_listen(address, "it is in use, or this user may not") from None
    addresses.append(address)
    await server.start()
    log.info("gRPC on %s", address._replace(port=port) if address.host else address)
    return server


def _bound(address: Address, name: Any) -> Address:
    return address._replace(port=name[1]) if address.host else address


async def _feed_watchdog() -> None:
    """Tell systemd that requests are taken: a loop that hangs does not."""
    due_s = watchdog_s()
    while True:
        await asyncio.sleep(due_s or IDLE_S)
        if due_s is not None:
            notify("WATCHDOG=1")


@contextmanager
def _removed(addresses: list[Address]) -> Iterator[None]:
    try:
        yield
    finally:
        for address in addresses:
            remove(address)


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of the package that it would be in
        return False
