"""The loop behind the service: open a session, install published models, answer requests.

Nothing ends it but `stop`. It waits for whatever may change without this robot, and says so in log
and status: a network that is away ("offline"), a server that does not know its key yet, a clock
that is off ("refused").
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_agent.agent.participation import Participation
from edge_agent.agent.pulse import Pulse
from edge_agent.agent.report import Reporter
from edge_agent.agent.status import StatusFile, nothing_offered
from edge_agent.link.addresses import Addresses
from edge_agent.link.elsewhere import open_elsewhere
from edge_agent.link.news import LOOK_S, News
from edge_agent.link.server_link import HttpsStore
from edge_agent.link.signed_models import SignedModels
from edge_agent.models.deploy import Models
from edge_agent.models.install import Installer
from edge_agent.robot.backoff import Backoff
from edge_agent.robot.settings import AgentSettings
from fleet_model.command_line.systemd import notify
from fleet_model.errors import (
    BundleError,
    ConnectionFailed,
    FleetError,
    RefusedError,
    StoppedError,
    StorageError,
    TrustError,
)
from fleet_model.memory import give_back

if TYPE_CHECKING:
    from fleet_model.bundle import Offer

MOST_REFUSED_S = 300.0  # between two tries of a robot that a person has to admit
log = logging.getLogger(__name__)


class Agent:
    """One robot's agent; `run` returns after `stop`."""

    def __init__(self, settings: AgentSettings) -> None:
        """Read key and trust.

        Raises:
            SettingsError: as HttpsStore.
        """
        self._settings = settings
        server = settings.server
        self._signed = SignedModels(settings.state / "trust", server.root, server.key)
        self._store = HttpsStore(server, signed=self._signed, elsewhere=open_elsewhere(server))
        self._site = self._signed.site
        self._addresses = Addresses(settings.server.address, settings.state)
        self._store.use(self._addresses.current)
        self._models = Models(settings.state / "models", settings.server.channel)
        self._active: Offer | None = None
        self._active_name = ""
        self._file = StatusFile(settings.state, settings.training.trainer, settings.server.channel)
        self._reporter = Reporter(settings)
        self._participation: Participation | None = None
        self._stop = threading.Event()
        self._news = News(self._store, asks_here=server.superlink is None)
        self._installer = Installer(settings, self._models, self._stop, self._make_room)
        self._failures, self._refusals = Backoff(), Backoff(MOST_REFUSED_S)
        self._install_backoff = Backoff()
        self._look_at = 0.0  # monotonic: no look at the newest model before
        self._told = self._store.standing.told  # at the last step
        self._fetched = 0  # bytes of tries that came to nothing
        self._is_waiting = False  # since a failure no step has worked
        self.pulse = Pulse(self._progress)

    def stop(self) -> None:
        """Ask `run` to return soon; a training that is under way is cancelled."""
        self._stop.set()
        self._news.wake()
        if self._participation is not None:
            self._participation.cancel()

    def run(self) -> None:
        """Serve until `stop`.

        Raises:
            SettingsError: it should train, and what that needs is not installed.
        """
        reason = ""
        self._file.set_state("starting")
        self._file.memory.start()
        try:
            self._look_at_models()
            if self._settings.training.enabled and self._settings.examples.wanted:
                self._participation = Participation(
                    self._settings, self._models, self._store, self._file, self.pulse, self._news
                )
                self._participation.start()
            notify("READY=1")  # without the network, too: what it waits for is no failure
            self._until_done(self._hello)
            while not self._stop.is_set():
                self._until_done(self._step)
                self._rest_for_news()
        except FleetError as error:
            reason = str(error)
            raise
        finally:
            self._close(reason)

    def abandon(self) -> None:
        """Leave a `run` that hangs where it is: everything on disk is whole at any moment."""
        log.warning("a call to %s hangs; leaving it", self._store.address)
        if self._participation is not None:
            self._participation.leave_spool()
        self._file.set_state("stopped")

    def _look_at_models(self) -> None:
        """Find out what is active; damaged files or a new precision are installed again."""
        try:
            self._installer.begin()
        except FleetError as error:
            log.error("what an earlier start has left cannot be finished: %s", error)
        try:
            self._find_active()
            if self._file.status.active_version is not None:  # else the server has not been asked
                self._file.set_not_installed(self._of_another_channel())
        except (BundleError, StorageError) as error:
            log.warning("the active model is not whole: %s", error)

    def _find_active(self) -> None:
        """Ask the disk: the end of a probation or `edge-agent rollback` may have changed it."""
        self._active_name = self._models.active_name
        self._activate(self._models.active(self._settings.engine.precision))

    def _activate(self, offer: "Offer | None") -> None:
        self._active = offer
        version = self._models.version_in_use() if offer is None else offer.manifest.version
        self._file.status.active_version = self._store.active_version = version

    def _of_another_channel(self) -> str:
        """Return what is in use while the followed channel has nothing, "" otherwise."""
        version = self._file.status.active_version
        return nothing_offered(self._settings.server.channel, version) if not self._active else ""

    def _hello(self) -> None:
        """Begin a session; it ends what the server still holds of an older one of this robot.

        Flower alone would refuse a robot that was killed for the minute until it misses heartbeats.
        """
        status = self._file.status
        try:
            status.name, status.site = self._store.hello()
        except RefusedError:
            self._leave_fleet()  # else its heartbeats would continue, to be refused, too
            raise
        if self._participation is not None:
            self._participation.session_ended()
        status.server = self._store.address
        status.models_site = self._site.get()
        log.info("the server knows this robot as %s, site %s", status.name, status.site)
        if moved := status.moved():
            log.warning("%s", moved)
        self._file.update_standing(self._store.standing)
        self._file.set_state("idle")

    def _step(self) -> None:
        """Do what there is to do now."""
        told, self._told = self._told, self._store.standing.told
        if self._news.take() or told != self._told:
            self._look_at = 0.0
        self._follow_models()
        if self._participation is not None:
            if self._store.standing.state == "approved":
                self._participation.step()
            else:
                self._participation.leave_fleet()
        if self._is_waiting:
            log.info("connected to %s again", self._store.address)
            self._file.set_state("idle")
            self._is_waiting = False
        self._failures.reset()
        self._refusals.reset()

    def _follow_models(self) -> None:
        """Install what is new; what cannot be installed is tried again, less and less often."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + self._news.look_s(self._settings.poll.idle_s)
        before, status = self._store.bytes_down, self._file.status
        try:
            if self._active_name != self._models.active_name:
                self._find_active()
            self._file.tell_models(self._installer.last, self._models.current)
            status.models_site = self._site.get()
            offer = self._store.latest(self._settings.server.channel, self._report())
            self._tell_signatures()
            self._file.update_standing(self._store.standing)
            if self._addresses.announce(self._store.standing.moves_to) and self._has_moved():
                self._hello()
            if offer is None or offer == self._active:
                self._file.set_not_installed(self._of_another_channel())
                self._review()
                return
            refused = self._installer.follow(self._store, offer)
        except StoppedError:
            return
        except (BundleError, StorageError, TrustError) as error:
            self._fetched += self._store.bytes_down - before
            self._put_off(error)
            return
        received, self._fetched = self._fetched + self._store.bytes_down - before, 0
        self._install_backoff.reset()
        if refused:
            self._file.tell_models(self._installer.last, self._models.current)
            self._file.set_not_installed(refused)
            return
        version = offer.manifest.version
        log.info("version %d is active, %d bytes fetched", version, received)
        self._active_name = self._models.active_name
        status.publishes.append({"version": version, "bytes_down": received})
        self._activate(offer)  # after it: whoever reads that it is active also reads what it cost
        status.not_installed = ""
        self._file.tell_models(self._installer.last, self._models.current)
        self._file.set_state("idle")
        give_back()

    def _review(self) -> None:
        """Choose again what runs the active model, where that is due."""
        trained = self._participation.trained_at if self._participation else None
        self._installer.review_runtime()
        if self._active is not None:
            self._installer.review_personal(self._store, self._active, trained)
        self._file.tell_models(self._installer.last, self._models.current)

    def _put_off(self, error: FleetError) -> None:
        log.error("the newest model is not installed: %s", error)
        self._tell_signatures()
        self._file.tell_models(self._installer.last, self._models.current)
        self._file.update_standing(self._store.standing)  # the server has answered all the same
        self._file.set_not_installed(str(error))
        self._look_at = time.monotonic() + self._install_backoff.next_s()

    def _tell_signatures(self) -> None:
        """Keep what is trusted; what an earlier process has verified or refused stays, too."""
        before = self._file.status.signatures
        where = {"channel": self._settings.server.channel, "site": self._signed.site.get()}
        now = {**before, **self._signed.state(), **where, "from": self._store.models_from}
        self._file.tell(signatures=now)

    def _until_done(self, action: Callable[[], None]) -> None:
        """Do it until it works or the agent stops; wait longer each time, with jitter.

        Then a new session begins, and the server sends again what it has asked; but not after a
        lost connection while that is here, half done or waiting to be sent.
        """
        while not self._stop.is_set():
            self.pulse.expect(6 * self._settings.install.timeout_s)  # most tries of one model
            try:
                action()
            except RefusedError as error:
                self._wait("refused", str(error), self._refusals)
                action = self._hello
            except FleetError as error:
                if isinstance(error, ConnectionFailed) and self._has_moved():
                    action = self._hello
                    continue
                self._wait("offline", str(error), self._failures)
                if self._participation is None or not self._participation.at_work:
                    action = self._hello
            except Exception as error:
                log.exception("this is a bug; the agent continues")
                reason = f"{type(error).__name__} in the agent; details are in its log"
                self._leave_fleet()
                self._wait("offline", reason, self._failures)
                action = self._hello
            else:
                return

    def _has_moved(self) -> bool:
        """Go to the server's other address, if there is one and it answers there."""
        here, there = self._addresses.current, self._addresses.other
        if not there:
            return False
        self._store.use(there)
        try:
            self._store.whoami()
        except FleetError as error:
            log.info("not at %s either: %s", there, error)
            self._store.use(here)
            return False
        self._addresses.turn()
        self._leave_fleet()
        log.warning("the server is at %s now; it was at %s", there, here)
        return True

    def _wait(self, state: str, reason: str, backoff: Backoff) -> None:
        if self._file.status.reason != reason:
            log.warning("%s; trying again", reason)
        self._file.set_state(state, reason)
        self._is_waiting = True
        self._rest(backoff.next_s())
        self._look_at = 0.0  # the first look afterwards shows whether all is well

    def _rest(self, seconds: float) -> None:
        self.pulse.expect(seconds)
        self._stop.wait(seconds)

    def _rest_for_news(self) -> None:
        """Wait until there is something to do: for so long, or until the server has news."""
        if not self._news.holds:
            part = self._participation if self._store.standing.state == "approved" else None
            self._rest(part.pause_s if part else self._settings.poll.idle_s)
            return
        self.pulse.expect(LOOK_S)
        self._news.rest(self._report, self._settings.poll.idle_s, self._has_work)

    def _report(self) -> str:
        return self._reporter.packed(self._file.status, self._store.standing.protocol)

    def _has_work(self) -> bool:
        """Whether there is something to do that the server does not know of."""
        if self._installer.has_news or self._reporter.has_news(self._file.status):
            self._look_at = 0.0
        if self._active_name != self._models.active_name:
            self._look_at = 0.0
        return time.monotonic() >= self._look_at or self._stop.is_set()

    def _progress(self) -> tuple[int, int]:
        objects = self._participation.objects if self._participation else 0
        return self._store.bytes_down, objects

    def _make_room(self) -> None:
        if self._participation is not None:
            self._participation.rest()

    def _leave_fleet(self) -> None:
        if self._participation is not None:
            self._participation.leave_fleet()

    def _close(self, reason: str) -> None:
        parts = (self._news, self._participation, self._installer, self._store, self._file.memory)
        for part in parts:
            if part is not None:
                part.close()
        self._file.set_state("stopped", reason)
        log.info("stopped")
