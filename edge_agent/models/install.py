"""Try a published model on this robot, switch to it, watch it, and give it back if it is worse.

    follow: stage -> try in a child process -> switch -> probation -> try again -> confirm
                          '-> refuse                         '-> give back

docs/decisions/0022-models-on-trial.md has the rules. Before the switch the
runtime is chosen. The active version is what the disk says: `edge-agent rollback` may change it at
any time.
"""

import logging
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from edge_agent.models.deploy import Models, name_of
from edge_agent.models.personal.chooser import PersonalChooser
from edge_agent.models.personal.measuring import Asked
from edge_agent.models.runtime_choice import RuntimeChooser
from edge_agent.models.trial_process import TrialJob, run_trial, source_fields
from edge_agent.models.trials import Probation, TrialFile, Trials, Tried, outcome_of
from edge_agent.models.verdict import Findings, judge
from edge_agent.robot.settings import AgentSettings
from fleet_model.bundle import Manifest, Offer
from fleet_model.errors import BundleError, FleetError, SettingsError, StoppedError
from fleet_model.foreign import require_runtime
from fleet_model.protocol.trial import BACK, CONFIRMED, PROBATION, REFUSED, TrialOutcome
from fleet_model.store import ModelStore
from fleet_model.workload import rebuild, require_packages

MOST_TRIES = 3  # that end with what may be this machine's fault; starts during one probation
PASSING = ("crashed", "hung", "memory", "slower")  # what may be this machine's fault
CHECK_S = 10.0
UNKNOWN = Findings()
AGAIN_S = 30.0  # after a disk that could not be written
log = logging.getLogger(__name__)


class Installer:
    """Follows a channel with the models of one robot; `follow` is for one thread."""

    def __init__(
        self,
        settings: AgentSettings,
        models: Models,
        ended: threading.Event,
        make_room: Callable[[], None] = lambda: None,
    ) -> None:
        """Start nothing yet.

        Args:
            settings: of this robot.
            models: where they are installed.
            ended: set to give up what is under way.
            make_room: frees memory before a model is tried; called from any thread.
        """
        self._settings, self._limits = settings, settings.install
        self._models, self._file = models, TrialFile(settings.state / "models")
        self._ended, self._make_room = ended, make_room
        self._timer: threading.Timer | None = None
        self._runtime = RuntimeChooser(settings, ended, make_room)
        self._told = self._file.stamp  # when `last` was asked for
        self._reviewed = ""  # name of the version whose runtime is known
        self._personal = PersonalChooser(settings, models, ended, make_room)

    @property
    def last(self) -> TrialOutcome | None:
        """What became of the version that was tried last."""
        self._told = self._file.stamp
        return self._file.read().last

    @property
    def has_news(self) -> bool:
        """Whether `last` may be another one now: a probation has ended, a person has decided."""
        return self._told != self._file.stamp

    def begin(self) -> None:
        """Finish what an earlier process has left; raises FleetError where that cannot be."""
        with self._changing() as trials:
            self._models.tidy()
            active, probation = self._models.active_name, trials.probation
            found = trials.model_copy(deep=True)
            trials.forget_unless_active(active)
            tried = trials.of(active)
            if tried and tried.refused:
                self._models.go_back(self._precision)
            elif probation and probation.name != active:  # it was never switched to
                on_probation = active != probation.before  # itself, since it is not the good one
                again = probation.model_copy(update={"name": active})
                trials.probation = again if on_probation else None
            elif probation:
                probation.starts += 1
                if probation.starts >= MOST_TRIES:
                    self._give_back(trials, Findings(failed="interrupted"), "interrupted")
            if trials != found:
                self._file.write(trials)
            self._models.discard([one.name for one in trials.tried if one.is_done])
        self._watch_probation()

    def close(self) -> None:
        """End the watch of a probation; the next start goes on with it."""
        if self._timer is not None:
            self._timer.cancel()

    def follow(self, store: ModelStore, offer: Offer) -> str:
        """Switch to an offered version if it stands its trial.

        Returns:
            Why it is refused, "" if it is active now.

        Raises:
            BundleError: it is damaged, or fails in a way that may pass: call again later.
            ConnectionFailed, StorageError: as Models.stage.
            StoppedError: `ended` was set.
        """
        name = name_of(offer)
        if name == self._models.active_name:  # damaged, or another precision is wanted
            self._models.install(store, offer, self._precision)
            self._keep_runtime(name)
            self._personal.review(name, offer.manifest, store)
            return ""
        tried = self._file.read().of(name)
        if tried and tried.refused and tried.outcome:
            return tried.outcome.words
        _require_installed(offer.manifest, self._precision)  # before anything is fetched
        self._models.stage(store, offer, self._precision)
        asked = self._personal.asked(name, offer.manifest, store)
        with self._changing() as trials:
            tried = trials.of(name) or Tried(name=name)
            tried.tries += 1
            trials.put(tried)
            self._file.write(trials)
        found = Findings(failed="interrupted")
        if tried.tries <= MOST_TRIES:
            found = self._try(name, self._good(trials), tried, asked)
        forced = trials.forced == name or offer.manifest.rolls_back_to is not None
        why = judge(found, self._limits, by_operator=forced)
        version = offer.manifest.version
        if why:
            return self._refuse(name, version, found, why)
        # Before the switch: whoever follows reads model and choices at once.
        self._keep_runtime(name, found)
        self._personal.keep(name, found.personal)
        self._switch(name, version, found, forced=forced)
        return ""

    def review_runtime(self) -> None:
        """Choose again, once for each start, where the settings or LiteRT are others than then."""
        name = self._models.active_name
        if name and name != self._reviewed:
            self._keep_runtime(name)

    def review_personal(
        self, store: ModelStore, active: Offer, trained_at: float | None = None
    ) -> None:
        """Choose again what of this robot's own runs, where that is due; see PersonalChooser."""
        if self._personal.is_due(trained_at):
            self._personal.review(name_of(active), active.manifest, store)

    def _keep_runtime(self, name: str, found: Findings = UNKNOWN) -> None:
        self._runtime.keep(self._models.folder(name), found.compiled)
        self._reviewed = name

    def _try(self, name: str, running: str, tried: Tried, asked: Asked | None) -> Findings:
        try:
            return self._run(name, running, asked, is_new=True)
        except StoppedError:
            with self._changing() as trials:
                tried.tries -= 1
                trials.put(tried)
                self._file.write(trials)
            raise

    def _refuse(self, name: str, version: int, found: Findings, why: str) -> str:
        outcome = outcome_of(version, REFUSED, why, found)
        with self._changing() as trials:
            tried = trials.of(name) or Tried(name=name)
            tried.outcome = outcome
            tried.refused = why not in PASSING or tried.tries >= MOST_TRIES
            trials.put(tried)
            self._file.write(trials)
            if tried.refused:
                self._models.discard([name])
        if not tried.refused:
            raise BundleError(f"{outcome.words}; it is tried again")
        log.error("%s; it is not tried again (`edge-agent install` does)", outcome.words)
        return outcome.words

    def _switch(self, name: str, version: int, found: Findings, *, forced: bool) -> None:
        with self._changing() as trials:
            good = self._good(trials)
            watch = Probation(name=name, before=good, since_s=time.time(), forced=forced)
            trials.probation = watch if good else None
            outcome = outcome_of(version, PROBATION if good else CONFIRMED, "", found)
            trials.put(Tried(name=name, outcome=outcome))
            trials.forced = ""
            self._file.write(trials)
            self._models.activate(name, good)
        log.info("%s", outcome.words)
        self._watch_probation()

    def _good(self, trials: Trials) -> str:
        """Return the name of the last version that is not on probation; "" if there is none."""
        active, probation = self._models.active_name, trials.probation
        return probation.before if probation and probation.name == active else active

    def _watch_probation(self) -> None:
        """Have the end of a probation decided in time, whatever the agent's own thread does."""
        self.close()
        probation = self._file.read().probation
        if probation is not None:
            most_s = self._limits.probation_s  # a clock that was set makes it no longer
            left_s = probation.since_s + most_s - time.time()
            self._decide_in(min(max(left_s, 0.0), most_s), probation)

    def _decide_in(self, seconds: float, probation: Probation) -> None:
        self._timer = threading.Timer(seconds, self._end_probation, [probation])
        self._timer.daemon = True
        self._timer.start()

    def _end_probation(self, probation: Probation) -> None:
        try:
            why, found = "check", Findings()
            if self._passes_check():
                found = self._run(probation.name, probation.before)
                why = judge(found, self._limits, by_operator=probation.forced)
            with self._changing() as trials:
                if trials.probation is None or trials.probation.name != probation.name:
                    return  # a newer version, or a person, was faster
                if why:
                    self._give_back(trials, found, why)
                else:
                    self._confirm(trials, found)
        except StoppedError:
            return
        except (FleetError, OSError) as error:
            log.error("the probation of the active model cannot be ended: %s", error)
            self._decide_in(AGAIN_S, probation)

    def _confirm(self, trials: Trials, found: Findings) -> None:
        assert trials.probation is not None
        outcome = outcome_of(_version(trials.probation.name), CONFIRMED, "", found)
        trials.put(Tried(name=trials.probation.name, outcome=outcome))
        trials.probation = None
        self._file.write(trials)
        log.info("%s", outcome.words)

    def _give_back(self, trials: Trials, found: Findings, why: str) -> None:
        """Go back to the version before, which stays; the caller holds the lock."""
        name = self._models.active_name
        self._models.require_previous(self._precision)
        outcome = outcome_of(_version(name), BACK, why, found)
        trials.put(Tried(name=name, refused=True, outcome=outcome))
        trials.probation = None
        trials.forced = ""
        self._file.write(trials)
        self._models.go_back(self._precision)
        log.error(
            "%s; version %d is active again", outcome.words, _version(self._models.active_name)
        )

    def roll_back(self) -> str:
        """Give the active version back by hand, also beside a running agent.

        Returns:
            What was done.

        Raises:
            BundleError: there is no version before, or it is damaged.
            StorageError: the disk cannot be written.
        """
        with self._changing() as trials:
            given = _version(self._models.active_name) if self._models.active_name else None
            self._give_back(trials, Findings(), "operator")
            return f"version {_version(self._models.active_name)} is active again, not {given}"

    def allow(self, *, force: bool) -> TrialOutcome | None:
        """Let the refused version that was tried last be tried again, by hand.

        Args:
            force: it need not be as good as the running one, as long as it runs.

        Returns:
            Why it was refused; None if there is no such version.
        """
        with self._changing() as trials:
            refused = next((one for one in reversed(trials.tried) if one.refused), None)
            if refused is None:
                return None
            trials.put(Tried(name=refused.name, outcome=refused.outcome))
            trials.forced = refused.name if force else ""
            self._file.write(trials)
            return refused.outcome

    @property
    def _precision(self) -> str:
        return self._settings.engine.precision

    @contextmanager
    def _changing(self) -> Iterator[Trials]:
        with self._models.disk(), self._file.locked():
            yield self._file.read()

    def _run(
        self, name: str, running: str, asked: Asked | None = None, *, is_new: bool = False
    ) -> Findings:
        """Try a version; `is_new`: what runs it, and what is `asked` for, is found out, too."""
        folder = self._models.folder(running) if running else self._models.current.resolve()
        job = TrialJob(
            candidate=str(self._models.folder(name)),
            running=str(folder) if folder.exists() else "",
            precision=self._precision,
            source=source_fields(self._settings),
            examples=self._limits.examples,
            compiled=is_new and self._runtime.prepare(self._models.folder(name), folder),
            personal=asked,
        )
        self._make_room()
        found = run_trial(job, self._limits, self._ended)
        before = self._file.read().of(running)
        if before and before.outcome and before.outcome.measure == found.measure:
            return replace(found, confirmed=before.outcome.after)
        return found

    def _passes_check(self) -> bool:
        command = shlex.split(self._limits.check)
        if not command:
            return True
        try:
            subprocess.run(command, stdin=subprocess.DEVNULL, timeout=CHECK_S, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            log.error("install.check: %s", error)
            return False
        return True


def _version(name: str) -> int:
    return int(name.partition("-")[0])


def _require_installed(manifest: Manifest, precision: str) -> None:
    """Raise BundleError where a library is missing here: the model is asked for again later."""
    require_runtime(manifest.engines.get(precision, ()))
    if manifest.workload_files:
        with suppress(SettingsError):  # there is no such workload here: its trial says so
            require_packages(rebuild(manifest.workload))
