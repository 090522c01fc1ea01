"""The server process: Flower's SuperLink, model store, runs on one HTTPS port."""

import logging
import os
import shutil
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cloud_server.directory import ServerDirectory
from cloud_server.settings import ServerSettings, load_settings
from fleet_model.errors import SettingsError

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger(__name__)


def serve(place: ServerDirectory) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        SettingsError: wrong settings, another server on the directory, or the port is taken.
    """
    place.require()
    settings = load_settings(place.settings)
    with place.locked("start"):
        _require_free_port(settings)
        for leftover in place.store.glob(".bundle-*"):  # of a server that died while publishing
            shutil.rmtree(leftover)
        server = build(place, settings)
        log.info(
            "listening on https://%s:%d for robots and operators (pid %d)",
            settings.network.host, settings.network.port, os.getpid(),
        )  # fmt: skip
        for number in (signal.SIGINT, signal.SIGTERM):
            # uvicorn raises the signal again once it has shut down: here that is a clean end
            signal.signal(number, lambda *_: None)
        # "Cancel 0 running task(s)" at the end of every polling connection is no error
        logging.getLogger("uvicorn.error").addFilter(lambda r: "Cancel %s" not in str(r.msg))
        server.run()
        if not server.started:
            raise SettingsError("the server did not start; its log says why")
        log.info("stopped")


def build(place: ServerDirectory, settings: ServerSettings) -> "uvicorn.Server":
    """Put the pieces together: register -> fleet -> runs -> routes behind the guard -> TLS."""
    import uvicorn

    from cloud_server.flower_fleet import FlowerFleet
    from cloud_server.model_store import DirectoryStore
    from cloud_server.robots import Register
    from cloud_server.runs import Runs
    from cloud_server.web.api import Doorkeeper, admin_routes, robot_routes
    from cloud_server.web.guard import Guard
    from fleet_model.flower_compat import LinkGrid, create_superlink

    place.flower.mkdir(parents=True, exist_ok=True)
    place.flower.chmod(0o700)
    os.environ["FLWR_HOME"] = str(place.flower.resolve())
    network = settings.network
    app = create_superlink(str(place.flower / "state.db"), network.host, network.port)

    grid = LinkGrid(app)
    register = Register(place.robots)
    fleet = FlowerFleet(grid, register)
    fleet.sync()
    store = DirectoryStore(place.store)
    runs = Runs(place, settings, fleet, grid)
    keeper = Doorkeeper(register)
    app.include_router(robot_routes(keeper, store, fleet.restarted))
    app.include_router(admin_routes(runs, _status(fleet, register, runs, store, keeper)))
    app.add_middleware(Guard, token=place.admin_token.read_text().strip())  # outermost: last added
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=network.host,
            port=network.port,
            ssl_certfile=str(place.certificates / "server.crt"),
            ssl_keyfile=str(place.secrets / "server.key"),
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,  # robots poll: they only keep connections open
            timeout_keep_alive=75,  # longer than an idle robot's poll: no new TLS handshake each
        )
    )


def _status(fleet: Any, register: Any, runs: Any, store: Any, keeper: Any) -> Callable[[], Any]:
    def status() -> dict[str, Any]:
        online = {robot.name for robot in fleet.online()}
        now = time.monotonic()
        robots = []
        for robot in register.robots():
            seen = keeper.seen.get(robot.name)
            robots.append(
                {
                    "name": robot.name,
                    "site": robot.site,
                    "online": robot.name in online,
                    "last_seen_s": None if seen is None else round(now - seen.at, 1),
                    "active_version": None if seen is None else seen.active_version,
                }
            )
        return {
            "robots": robots,
            "runs": [run.as_json() for run in runs.all()],
            "channels": store.channels(),
        }

    return status


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
