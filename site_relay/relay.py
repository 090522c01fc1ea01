"""The thread of a relay that speaks with the fleet's server, beside the server for the building."""

import logging
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter

from cloud_server.runs.lifecycle import RunFleet, Tell
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import ServerSettings
from edge_agent.link.elsewhere import open_elsewhere
from edge_agent.link.fleet_client import FleetClient
from edge_agent.link.flower_connection import FleetConnection
from edge_agent.link.server_link import HttpsStore
from edge_agent.link.signed_models import SignedModels
from edge_agent.robot.backoff import Backoff
from edge_agent.robot.settings import AgentSettings
from edge_agent.robot.settings import load_settings as load_agent_settings
from fleet_model.errors import (
    ConnectionFailed,
    FleetError,
    RefusedError,
    SettingsError,
    StoppedError,
)
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import Update
from site_relay.mirror import Mirror
from site_relay.rounds import RelayedRounds

JOIN_S = 3.0
log = logging.getLogger(__name__)


def upstream_of(server_dir: ServerDirectory) -> AgentSettings:
    """Return what the relay is to the fleet's server; raises SettingsError if it is no relay."""
    server_dir.require()
    if not server_dir.is_relay:
        raise SettingsError(
            f"{server_dir.root}: the directory of a server, not of a relay; `site-relay init` "
            f"makes one, `cloud-server start {server_dir.root}` serves this one"
        )
    return load_agent_settings(server_dir.upstream / "agent.toml")


class Relay:
    """Follows the server's models and answers its requests, for as long as the building's runs."""

    def __init__(self, server_dir: ServerDirectory, upstream: AgentSettings) -> None:
        """Read keys and trust; raises SettingsError as HttpsStore does."""
        self._server_dir, self._upstream = server_dir, upstream
        link = upstream.server
        signed = SignedModels(upstream.state / "trust", link.root, link.key)
        self._store = HttpsStore(link, signed=signed, elsewhere=open_elsewhere(link))
        self._client = FleetClient(self._connect, self._work, upstream.poll, self._server_now)
        self._ended = threading.Event()
        self._backoff = Backoff()
        self._look_at = 0.0  # monotonic: no look at the newest model before
        self._known = False  # the server has said who this is
        self._waits = f"it has not reached {link.address} yet"

    def begin(self, settings: ServerSettings, fleet: RunFleet, told: Sequence[Tell]) -> APIRouter:
        """Return routes, none, with which it lives as long as the server of the building."""
        self._settings = settings
        self._mirror = Mirror(self._server_dir, settings.publish, self._store)
        self._rounds = RelayedRounds(
            self._server_dir, settings, fleet, self._mirror, told, self._ended.is_set
        )

        @asynccontextmanager
        async def relaying(_: object) -> AsyncIterator[None]:
            thread = threading.Thread(target=self._run, name="relay", daemon=True)
            thread.start()
            yield
            self._ended.set()
            thread.join(JOIN_S)

        return APIRouter(lifespan=relaying)

    def problems(self) -> list[str]:
        """Return why it cannot relay now, for `status`."""
        return [f"site relay: {self._waits}"] if self._waits else []

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with self._server_dir.locked("train"):  # no run of this directory's own beside it
                    while not self._ended.is_set():
                        self._ended.wait(self._step())
            except SettingsError as error:  # somebody has the lock
                self._ended.wait(self._failed(error))
        self._client.close()

    def _step(self) -> float:
        """Do what there is to do now; return the seconds until the next time."""
        try:
            if not self._known:
                name, site = self._store.hello()
                self._known = True
                self._client.session_ended()
                log.info("%s knows this relay as %s, site %s", self._store.address, name, site)
            self._follow_models()
            if self._store.standing.state == "approved":
                self._client.step()
                self._tell("")
            else:
                self._client.close()
                self._tell(f"{self._store.address} has not approved it for training")
        except StoppedError:
            return 0.0
        except RefusedError as error:
            self._client.close()
            self._known = False
            return self._failed(error)
        except ConnectionFailed as error:
            self._known = self._known and self._client.at_work
            return self._failed(error)
        except (FleetError, OSError) as error:
            return self._failed(error)
        except Exception as error:
            log.exception("this is a bug; the relay continues")
            return self._failed(error)
        self._backoff.reset()
        return self._client.pause_s

    def _failed(self, error: Exception) -> float:
        words = str(error) or type(error).__name__
        if words != self._waits and not self._ended.is_set():
            log.warning("%s; trying again", words)
        self._waits = words
        return self._backoff.next_s()

    def _tell(self, waits: str) -> None:
        if waits != self._waits:
            log.info("site relay: %s", waits or f"connected to {self._store.address}")
        self._waits = waits

    def _follow_models(self) -> None:
        if time.monotonic() < self._look_at:
            return
        offer = self._store.latest(self._upstream.server.channel)
        if offer is not None:
            if self._mirror.follow(offer):
                log.info("version %d is there for the building", offer.manifest.version)
            self._store.active_version = offer.manifest.version
        self._look_at = time.monotonic() + self._upstream.poll.idle_s

    def _work(self, request: RobotRequest) -> Update:
        try:
            return self._rounds.answer(request)
        except StoppedError:  # no reply: the server asks again when this relay is back
            raise ConnectionFailed("the relay ends; its round goes on at the next start") from None

    def _connect(self) -> FleetConnection:
        link = self._upstream.server
        address = link.superlink or self._store.address
        return FleetConnection(address, link.ca.read_bytes(), self._store.key)

    def _server_now(self) -> float:
        return time.time() + self._store.server_ahead_s
