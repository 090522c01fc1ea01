"""The server process: Flower's SuperLink, model store, runs on one HTTPS port."""

import gc
import logging
import os
import shutil
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import ServerSettings, load_settings
from fleet_model.durable import remove_asides
from fleet_model.errors import BundleError, SettingsError
from fleet_model.protocol.proof import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable

    import uvicorn
    from fastapi import FastAPI

    from cloud_server.flower.flower_link import LinkGrid
    from cloud_server.models.older_agents import OlderAgents
    from cloud_server.robots.refused_answers import RefusedAnswers
    from cloud_server.state.round_record import RoundRecord

log = logging.getLogger(__name__)


def serve(server_dir: ServerDirectory) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        SettingsError: wrong settings, another server on the directory, or the port is taken.
    """
    from cloud_server.signing.signing import Signing

    server_dir.require()
    settings = load_settings(server_dir.settings)
    if settings.moved:
        log.warning("%s: %s", server_dir.settings, settings.moved)
    with server_dir.locked("start"):
        _require_free_port(settings)
        _tidy(server_dir)
        server = build(server_dir, settings)
        log.info(
            "listening on https://%s:%d for robots and operators (pid %d)",
            settings.network.host, settings.network.port, os.getpid(),
        )  # fmt: skip
        for number in (signal.SIGINT, signal.SIGTERM):
            # uvicorn raises the signal again once it has shut down: here that is a clean end
            signal.signal(number, lambda *_: None)
        signing = Signing(server_dir)
        signing.start()
        gc.freeze()  # hundreds of thousands of objects of libraries, that stay: collecting is fast
        try:
            server.run()
        finally:
            signing.stop()
        if not server.started:
            raise SettingsError("the server did not start; its log says why")
        log.info("stopped")


def build(server_dir: ServerDirectory, settings: ServerSettings) -> "uvicorn.Server":
    """Put the pieces together: register -> fleet -> runs -> routes behind the guard -> TLS."""
    from cloud_server.flower.flower_fleet import FlowerFleet
    from cloud_server.flower.flower_link import LinkGrid
    from cloud_server.monitoring.fleet_status import Overview
    from cloud_server.monitoring.metrics import make_registry
    from cloud_server.monitoring.status_words import answer_of
    from cloud_server.monitoring.totals import RunningTotals
    from cloud_server.robots.last_seen import LastSeen
    from cloud_server.robots.offenses import Offenses
    from cloud_server.robots.refused_answers import RefusedAnswers
    from cloud_server.robots.register import Register
    from cloud_server.rollout.watch import RolloutWatch
    from cloud_server.runs.runs import Runs
    from cloud_server.state.certificates import server_names
    from cloud_server.state.model_store import DirectoryStore
    from cloud_server.web.admin_api import admin_routes
    from cloud_server.web.api import Authenticator, robot_routes
    from cloud_server.web.fleet_keys import FleetKeys
    from cloud_server.web.guard import Bounds, Guard
    from cloud_server.web.limits import bounded_server
    from cloud_server.web.metrics_api import metrics_routes

    require_sound(settings)
    server_dir = server_dir.of(settings.publish.channel)
    token = _admin_token(server_dir)
    app = _superlink(server_dir, settings)
    grid, register, seen = LinkGrid(app), Register(server_dir.robots), LastSeen(server_dir.seen)
    fleet = FlowerFleet(grid, register, seen)
    fleet.sync()
    offenses = Offenses(server_dir.offenses, register, settings.checks.suspend_after)
    runs = Runs(
        server_dir, settings, fleet, told=[offenses.record, *_tensorboard(server_dir, settings)]
    )
    store, authenticator = (
        DirectoryStore(server_dir.store),
        Authenticator(
            register,
            seen,
            offenses,
            server_dir.tokens,
            fleet.sync,
            server_names(server_dir),
            settings.network.moves_to or "",
            (server_dir.store / "metadata" / "timestamp.json").exists,
        ),
    )
    ledger, refused = (
        RunningTotals(server_dir.history, server_dir.totals),
        RefusedAnswers(fleet.sync),
    )
    missing = _missing(server_dir, settings.publish.channel)
    overview = Overview(fleet, register, seen, offenses, runs, store, ledger, refused, missing)
    for routes in (
        RolloutWatch(server_dir, register, seen).router(),
        robot_routes(authenticator, store, _older(server_dir), fleet.restarted),
        admin_routes(runs, lambda: answer_of(overview.status())),
        metrics_routes(make_registry(server_dir, overview.status)),
    ):
        app.include_router(routes)
    _bound_replies(app, grid, server_dir, settings, refused)
    bounds = Bounds(
        limits=settings.limits,
        keys=FleetKeys(register),
        spool=server_dir.flower,
        busy=lambda: grid.is_unpacking,
    )
    app.add_middleware(Guard, token=token, bounds=bounds)  # outermost: last added
    return bounded_server(
        app,
        settings.network,
        settings.limits,
        certificate=server_dir.certificates / "server.crt",
        key=server_dir.secrets / "server.key",
    )


def _missing(server_dir: ServerDirectory, channel: str) -> "Callable[[], list[str]]":
    """Log what is missing in the directory; return what looks for it again."""
    from cloud_server.signing.signing import unsigned
    from cloud_server.state.parts import missing_parts

    def look() -> list[str]:
        return [one for told in missing_parts(server_dir, channel).values() for one in told]

    for sentence in look():
        log.error("%s", sentence)
    return lambda: [*look(), *unsigned(server_dir, utc_now())]  # the server signs after this


def _bound_replies(
    app: "FastAPI",
    grid: "LinkGrid",
    server_dir: ServerDirectory,
    settings: ServerSettings,
    refused: "RefusedAnswers",
) -> None:
    """Let nobody send more than a reply can be, and remove what a server before has let in."""
    from cloud_server.web.ownership import add_ownership
    from cloud_server.web.reply_bound import model_bound

    # What is a little too long is taken, and then refused with words for its robot.
    bound = model_bound(server_dir, int(2e6 * settings.checks.max_update_mb))
    grid.heal(bound().objects)
    add_ownership(app, bound, refused.add)


def _older(server_dir: ServerDirectory) -> "OlderAgents":
    from cloud_server.models.older_agents import OlderAgents

    return OlderAgents(*(one.model for one in server_dir.lineages()))


def require_sound(settings: ServerSettings) -> None:
    """Raise SettingsError for what is wrong though it reads well: now, not in the first round."""
    from cloud_server.aggregation.aggregator import build_aggregator
    from cloud_server.robots.query import parse_query

    parse_query(settings.rounds.query)
    build_aggregator(settings.aggregation.rule, settings.aggregation.options)


def _admin_token(server_dir: ServerDirectory) -> str:
    try:
        token = server_dir.admin_token.read_text().strip()
        if not token:
            raise ValueError("it is empty")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(
            f"{server_dir.admin_token}: cannot be read ({reason}); restore it from a backup"
        ) from None
    return token


def _superlink(server_dir: ServerDirectory, settings: ServerSettings) -> "FastAPI":
    from cloud_server.flower.flower_superlink import create_superlink

    server_dir.flower.mkdir(parents=True, exist_ok=True)
    server_dir.flower.chmod(0o700)
    os.environ["FLWR_HOME"] = str(server_dir.flower.resolve())
    network = settings.network
    return create_superlink(str(server_dir.flower / "state.db"), network.host, network.port)


def _tidy(server_dir: ServerDirectory) -> None:
    """Remove what was left by a process that died while it published.

    Not while a ServerApp trains in here: it may be publishing now. The next start does it then.
    """
    from cloud_server.models.publish import ASIDE
    from cloud_server.state.model_store import DirectoryStore

    remove_asides(server_dir.secrets)
    with suppress(SettingsError), server_dir.locked("train"):
        for leftover in server_dir.store.glob(f"{ASIDE}*"):
            shutil.rmtree(leftover)
        for run in server_dir.runs.glob("*"):
            remove_asides(run)
        try:  # files of a version that was not published to its end
            DirectoryStore(server_dir.store).prune(keep=sys.maxsize)
        except (BundleError, OSError) as error:
            log.warning("%s: what nobody needs is not removed: %s", server_dir.store, error)


def _tensorboard(
    server_dir: ServerDirectory, settings: ServerSettings
) -> "list[Callable[[RoundRecord], None]]":
    """Return what draws closed rounds for TensorBoard, if it is wanted."""
    from cloud_server.monitoring.tensorboard import TensorBoardWriter

    if not settings.log.tensorboard:
        return []
    writer = TensorBoardWriter(server_dir)
    return [lambda _: writer.catch_up()]


def _require_free_port(settings: ServerSettings) -> None:
    """Say clearly that the port is taken, before anything is started."""
    import socket

    host, port = settings.network.host, settings.network.port
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another network.port"
            ) from None
