"""The server process: Flower's SuperLink, model store, runs on one HTTPS port."""

import gc
import logging
import os
import shutil
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import ServerSettings, load_settings
from fleet_model.durable import remove_asides
from fleet_model.errors import BundleError, SettingsError
from fleet_model.protocol.proof import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fastapi import APIRouter, FastAPI

    from cloud_server.console.access import Access
    from cloud_server.flower.flower_fleet import FlowerFleet
    from cloud_server.flower.flower_link import LinkGrid
    from cloud_server.flower.whole_messages import WholeMessages
    from cloud_server.models.older_agents import OlderAgents
    from cloud_server.monitoring.fleet_status import Overview
    from cloud_server.robots.refused_answers import RefusedAnswers
    from cloud_server.robots.register import Register
    from cloud_server.runs.lifecycle import RunFleet, Tell
    from cloud_server.state.round_record import RoundRecord
    from cloud_server.web.api import Authenticator
    from cloud_server.web.limits import BoundedServer
    from cloud_server.web.news import News

log = logging.getLogger(__name__)


class Beside(Protocol):
    """What goes on in the server's process beside it: a site relay."""

    def begin(
        self, settings: ServerSettings, fleet: "RunFleet", told: "Sequence[Tell]"
    ) -> "APIRouter":
        """Return routes that live as long as the server; `told` are told of closed rounds."""
        ...

    def problems(self) -> list[str]:
        """Return sentences for `status`, in the place of what is missing in the directory."""
        ...


def serve(server_dir: ServerDirectory, beside: Beside | None = None) -> None:
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
        server = build(server_dir, settings, beside)
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


def build(
    server_dir: ServerDirectory, settings: ServerSettings, beside: Beside | None = None
) -> "BoundedServer":
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
    from cloud_server.web.at_once import AtOnce
    from cloud_server.web.limits import bounded_server
    from cloud_server.web.metrics_api import metrics_routes

    require_sound(server_dir, settings)
    server_dir = server_dir.of(settings.publish.channel)
    token = _admin_token(server_dir)
    app = _superlink(server_dir, settings)
    grid, register, seen = LinkGrid(app), Register(server_dir.robots), LastSeen(server_dir.seen)
    _require_relays_suit(register, settings)
    fleet = FlowerFleet(grid, register, seen)
    fleet.sync()
    offenses = Offenses(server_dir.offenses, register, settings.checks.suspend_after)
    told = [offenses.record, *_tensorboard(server_dir, settings)]
    runs = Runs(server_dir, settings, fleet, told=told)
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
            settings.limits.hold_s,
        ),
    )
    refused, at_once = RefusedAnswers(fleet.sync), AtOnce()
    missing = beside.problems if beside else _missing(server_dir, settings.publish.channel)
    overview = Overview(
        fleet, register, seen, offenses, runs, store,
        RunningTotals(server_dir.history, server_dir.totals), refused,
        lambda: [*missing(), *at_once.words()],
    )  # fmt: skip
    own = (
        RolloutWatch(server_dir, register, seen).router(),
        robot_routes(authenticator, store, _older(server_dir), fleet.restarted),
        admin_routes(runs, lambda: answer_of(overview.status())),
        metrics_routes(make_registry(server_dir, overview.status)),
        *([beside.begin(settings, fleet, told)] if beside else []),
    )
    visitors = _add_routes(app, own, server_dir, settings, overview)
    replies = _bound_replies(app, grid, server_dir, settings, refused)
    news = _add_exchange(
        app, fleet, authenticator, replies, server_dir, lambda: at_once.is_busy
    )  # fmt: skip
    _add_guard(
        app, token, register, server_dir, settings,
        at_once=at_once, busy=lambda: grid.is_unpacking, visitors=visitors,
    )  # fmt: skip
    return bounded_server(
        app,
        settings.network,
        settings.limits,
        certificate=server_dir.certificates / "server.crt",
        key=server_dir.secrets / "server.key",
        leaving=news.close,
    )


def _add_exchange(
    app: "FastAPI",
    fleet: "FlowerFleet",
    authenticator: "Authenticator",
    whole: "WholeMessages",
    server_dir: ServerDirectory,
    busy: "Callable[[], bool]",
) -> "News":
    """Let robots wait for news, and move small messages whole."""
    from cloud_server.web.exchange import Exchange
    from cloud_server.web.news import News

    register, seen = authenticator.register, authenticator.seen
    news = News(whole, fleet.sync, register.by_key, seen.see, server_dir.store, busy)
    fleet.asked = news.wake
    app.add_middleware(Exchange, authenticator=authenticator, news=news, whole=whole)
    return news


def _add_guard(
    app: "FastAPI",
    token: str,
    register: "Register",
    server_dir: ServerDirectory,
    settings: ServerSettings,
    **more: Any,
) -> None:
    """Let nothing in that is not allowed: outermost, so added last. `more` is of its Bounds."""
    from cloud_server.web.fleet_keys import FleetKeys
    from cloud_server.web.guard import Bounds, Guard

    bounds = Bounds(settings.limits, FleetKeys(register), server_dir.flower, **more)
    app.add_middleware(Guard, token=token, bounds=bounds)


def _add_routes(
    app: "FastAPI",
    own: "Sequence[APIRouter]",
    server_dir: ServerDirectory,
    settings: ServerSettings,
    overview: "Overview",
) -> "Access | None":
    """Answer our own routes and the console's; return who visits that. A site relay has none."""
    from cloud_server.console.access import Access
    from cloud_server.console.desk import Desk
    from cloud_server.console.routes import console_routes
    from cloud_server.web.exchange import add_own_routes

    access = Access() if settings.console.enabled and not server_dir.is_relay else None
    pages = console_routes(Desk(server_dir, settings, overview), access) if access else ()
    add_own_routes(app, (*own, *pages))
    return access


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
) -> "WholeMessages":
    """Let nobody send more than a reply can be, and remove what a server before has let in."""
    from cloud_server.flower.whole_messages import WholeMessages
    from cloud_server.web.ownership import add_ownership
    from cloud_server.web.reply_bound import model_bound

    # What is a little too long is taken, and then refused with words for its robot.
    most, exact = int(2e6 * settings.checks.max_update_mb), settings.start.directions == 0
    exact |= server_dir.is_relay  # its robots are asked for what the fleet's server asks for
    bound = model_bound(server_dir, most, exact_sums=exact)
    grid.heal(bound().objects)
    records = add_ownership(app, bound, refused.add)
    state = app.state.linkstate_factory.state()
    return WholeMessages(state, records.require_own_whole, lambda: bound().content_bytes)


def _older(server_dir: ServerDirectory) -> "OlderAgents":
    from cloud_server.models.older_agents import OlderAgents

    return OlderAgents(*(one.model for one in server_dir.lineages()))


def require_sound(server_dir: ServerDirectory, settings: ServerSettings) -> None:
    """Raise SettingsError for what is wrong though it reads well: now, not in the first round."""
    from cloud_server.robots.query import parse_query
    from cloud_server.runs.suited import rule_of

    parse_query(settings.rounds.query)
    rule_of(server_dir.of(settings.publish.channel), settings)


def _require_relays_suit(register: "Register", settings: ServerSettings) -> None:
    """Refuse site relays where each robot's update must be seen."""
    from cloud_server.aggregation.suited import suited_rule
    from cloud_server.robots.register import relays_of

    suited_rule(settings, relays_of(register))


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
