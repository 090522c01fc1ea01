"""Choose what runs a bundle on this robot: LiteRT's Interpreter, or CompiledModel if it is faster.

Both are asked the same inputs in turns, in a child process: CompiledModel may crash there, or hang
in a driver. It is taken only if it gives the same answers. On the CPU the trial of a new model does
that, too (trial_process.py); the child of this module does it for a GPU, again where CompiledModel
seems to be faster, and for a model that is installed already.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_agent.models.trial_process import COMPILED, source_fields
from edge_agent.models.verdict import CHANCE, at_most
from edge_agent.models.watched_child import Say, answer, ask
from edge_agent.robot.settings import AgentSettings
from fleet_model.bundle import read_bundle
from fleet_model.errors import BundleError, StoppedError
from fleet_model.foreign import runtime_of
from fleet_model.litert.runtime import (
    INTERPRETER,
    Accelerator,
    Measured,
    Runtime,
    RuntimeChoice,
    litert_version,
    read_choice,
    write_choice,
)
from fleet_model.protocol.trial import WHY

# CompiledModel must take less of the Interpreter's time: it costs 10 MB of memory more.
FASTER = 0.95
# Outputs may differ by this share of the largest value: one step of int8 is 0.004 of all.
TOLERANCE = 0.01
UNKNOWN = "it could not be measured"
NO_FASTER = "it is not faster"
log = logging.getLogger(__name__)


class RuntimeChooser:
    """Chooses for the versions of one robot."""

    def __init__(
        self, settings: AgentSettings, ended: threading.Event, make_room: Callable[[], None]
    ) -> None:
        """Start nothing.

        Args:
            settings: of this robot.
            ended: set to give up what is under way.
            make_room: frees memory before something is measured.
        """
        self._settings, self._asked = settings, settings.engine
        self._ended, self._make_room = ended, make_room

    def prepare(self, folder: Path, before: Path) -> bool:
        """Take over what holds for a version; return whether its trial should try CompiledModel.

        Where that was no faster for the version before, and the graph is the same, it is kept for
        this version, too. Where CompiledModel runs, each version's answers are compared anew. On a
        GPU it is not tried in a trial.

        Args:
            folder: of the version.
            before: of the version that runs until then; it may be missing.
        """
        choice = read_choice(before)
        if choice and self._is_known(choice) and _is_no_faster(choice) and _same(folder, before):
            self._write(folder, choice)
        return (
            self._asked.runtime != "interpreter"
            and self._asked.accelerator == "cpu"
            and not self._is_known(read_choice(folder))
        )

    def keep(self, folder: Path, in_trial: Mapping[str, Any] | None = None) -> None:
        """Choose what runs an installed version, unless that is known; keep it beside the bundle.

        Nothing that goes wrong with it matters to the version: then the Interpreter runs it. What
        is given up is done at the next start.

        Args:
            folder: of the version.
            in_trial: what its trial has measured on the CPU; None: nothing.
        """
        if self._is_known(read_choice(folder)):
            return
        try:
            measured = Measured.model_validate(in_trial) if in_trial else None
            self._write(folder, self.choose(folder, measured))
        except StoppedError:
            return

    def _write(self, folder: Path, choice: RuntimeChoice) -> None:
        try:
            write_choice(folder, choice)
        except OSError as error:
            log.warning("what runs the model cannot be kept: %s", error.strerror)

    def choose(self, folder: Path, in_trial: Measured | None = None) -> RuntimeChoice:
        """Measure what was asked for, and choose; the Interpreter whatever goes wrong.

        Raises:
            StoppedError: it was given up.
        """
        asked = self._asked
        choice = RuntimeChoice(
            asked=asked.runtime,
            accelerator=asked.accelerator,
            precision=asked.precision,
            litert=litert_version(),
        )
        with suppress(BundleError):  # whoever loads it says what is damaged
            manifest = read_bundle(folder, names=())
            runtime = runtime_of(manifest.engines[asked.precision][-1])
            if manifest.imported or runtime != INTERPRETER:  # its file says what runs it
                choice.chosen, choice.imported = runtime, manifest.imported
                return choice
        if asked.runtime == "interpreter" or not choice.litert:
            return choice
        kinds: tuple[Accelerator, ...] = ("gpu", "cpu") if asked.accelerator == "gpu" else ("cpu",)
        for accelerator in kinds:
            found = self._judged(in_trial or self._measure(folder, accelerator))
            if asked.runtime == "auto" and not found.why:
                # Once more: one process may have been unlucky with its cores.
                found = self._judged(self._measure(folder, accelerator))
            choice.measured.append(found)
            if not found.why:
                choice.chosen = Runtime("compiled", accelerator)
                break
        wanted = asked.accelerator == "gpu" or asked.runtime == "compiled"
        told = log.warning if wanted and choice.chosen == INTERPRETER else log.info
        told("the model is run by %s", choice.words)
        return choice

    def _is_known(self, choice: RuntimeChoice | None) -> bool:
        """Return whether it was measured, for the same settings and LiteRT."""
        asked = self._asked
        if choice is None or any(one.why == UNKNOWN for one in choice.measured):
            return False  # a busy robot may have had no time for it: the next start tries again
        return (
            choice.asked,
            choice.accelerator,
            choice.precision,
            choice.litert,
        ) == (asked.runtime, asked.accelerator, asked.precision, litert_version())

    def _judged(self, found: Measured) -> Measured:
        found.why = found.why or judge(found, must_be_faster=self._asked.runtime == "auto")
        return found

    def _measure(self, folder: Path, accelerator: Accelerator) -> Measured:
        self._make_room()
        job = {
            "bundle": str(folder),
            "precision": self._asked.precision,
            "accelerator": accelerator,
            "source": source_fields(self._settings),
        }
        said, failed = self._ask(job)
        if _turn(said) == "examples":  # reading them takes too long or breaks
            said, failed = self._ask({**job, "source": None})
        found = next((Measured(**line["found"]) for line in said if "found" in line), None)
        why = WHY[failed or "crashed"] if _turn(said) == COMPILED else ""
        return found or Measured(accelerator=accelerator, why=why)

    def _ask(self, job: Mapping[str, Any]) -> tuple[Any, str]:
        return ask(__name__, job, self._settings.install, self._ended)


def judge(found: Measured, *, must_be_faster: bool) -> str:
    """Return why CompiledModel is not used; "" if it is."""
    if found.interpreter_ms is None or found.compiled_ms is None or found.difference is None:
        return UNKNOWN
    if found.difference > TOLERANCE:
        return f"its answers differ by {found.difference:.1%}"
    is_faster = found.compiled_ms < FASTER * found.interpreter_ms
    # On a busy robot the shortest of either may be luck: then it is not so in most pairs.
    by_luck = at_most(found.pairs - found.faster, found.pairs, 0.5)
    if must_be_faster and not (is_faster and by_luck <= CHANCE):
        return NO_FASTER
    return ""


def _is_no_faster(choice: RuntimeChoice) -> bool:
    """Return whether nothing but time has spoken against CompiledModel, on whatever was tried."""
    return bool(choice.measured) and all(one.why == NO_FASTER for one in choice.measured)


def _same(folder: Path, before: Path) -> bool:
    """Return whether two versions have the same graph: of one trainer, they differ in numbers."""
    try:
        manifests = [read_bundle(one, names=()) for one in (folder, before)]
    except BundleError:
        return False
    new, old = ((one.workload, one.trainer, one.engines, one.imported) for one in manifests)
    return new == old


def _turn(said: Any) -> str:
    return next((line["turn"] for line in reversed(said) if "turn" in line), "")


def _work(asked: Mapping[str, Any], say: Say) -> None:
    from edge_agent.models.answers import examples_for
    from edge_agent.models.runtime_trial import INPUTS, compare
    from fleet_model.engine import TFLiteEngine

    engine = TFLiteEngine(Path(asked["bundle"]), asked["precision"])
    say(turn="examples")
    examples, _ = examples_for(engine.workload, asked["source"], INPUTS)
    say(turn=COMPILED)
    say(found=compare(engine, examples, asked["accelerator"]).model_dump())


if __name__ == "__main__":
    answer(_work)
