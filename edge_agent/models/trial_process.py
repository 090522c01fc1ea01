"""Try a model in a child process that may crash, hang or grow without harm to the agent."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from edge_agent.examples.source import source_of
from edge_agent.models.verdict import Findings
from edge_agent.models.watched_child import Say, answer, ask
from edge_agent.robot.model_settings import InstallSettings
from edge_agent.robot.settings import AgentSettings
from fleet_model.errors import FleetError
from fleet_model.protocol.trial import WHY

COMPILED = "compiled"  # whose turn it is
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialJob:
    """What is tried."""

    candidate: str  # bundle directory
    running: str  # bundle directory, "" if there is none
    precision: str
    source: Mapping[str, Any] | None  # of SourceSpec; None: no examples
    examples: int  # at most
    compiled: bool = False  # whether CompiledModel is tried, too, on the CPU
    # Fields of personal_trial.Asked: what of the robot's own is tried with the new model. None:
    # what was chosen for it before runs.
    personal: Sequence[Any] | None = None


def source_fields(settings: AgentSettings) -> dict[str, Any] | None:
    """Return SourceSpec's fields of what this robot has to measure with; None if it has nothing."""
    return asdict(source_of(settings, trains=False)) if settings.examples.wanted else None


def run_trial(job: TrialJob, limits: InstallSettings, ended: threading.Event) -> Findings:
    """Return what the trial of a model has shown, whatever it does to the process.

    Args:
        job: what to try.
        limits: time and memory.
        ended: set by another thread to give up.

    Raises:
        StoppedError: `ended` was set.
    """
    turn, found = _run(job, limits, ended)
    if turn == "examples" and found.failed:  # reading them takes too long or breaks: not its fault
        log.warning("the new model is tried without this robot's examples: see above, or too slow")
        turn, found = _run(replace(job, source=None), limits, ended)
    if turn == "running" and found.failed:
        log.warning("the running model cannot be compared with: %s", found.failed)
        _, found = _run(replace(job, running=""), limits, ended)
    return found


def _run(job: TrialJob, limits: InstallSettings, ended: threading.Event) -> tuple[str, Findings]:
    """Return whose turn it was at the end, and what was found."""
    said, failed = ask(__name__, asdict(job), limits, ended)
    turn = next((line["turn"] for line in reversed(said) if "turn" in line), "")
    found = next((Findings(**line["found"]) for line in reversed(said) if "found" in line), None)
    if found and turn == COMPILED and not found.compiled:
        why = WHY[failed or "crashed"]
        return turn, replace(found, compiled={"accelerator": "cpu", "why": why})
    if found is None:
        found = Findings(failed=failed or "crashed")
        log.warning("the process that tried the new model: %s", found.failed)
    return turn, found


def _work(asked: Mapping[str, Any], say: Say) -> None:
    job = TrialJob(**asked)
    try:
        from edge_agent.models.trial import try_model

        found, engine, examples = try_model(job, lambda turn: say(turn=turn))
    except MemoryError:
        say(found=asdict(Findings(failed="memory")))
        return
    except FleetError as error:
        log.warning("the new model cannot be used: %s", error)
        say(found=asdict(Findings(failed="unloadable")))
        return
    except Exception:
        log.exception("the new model cannot be used")
        say(found=asdict(Findings(failed="crashed")))
        return
    say(found=asdict(found))
    if job.compiled:  # what was found stands, whatever this does
        from edge_agent.models.runtime_trial import compare

        say(turn=COMPILED)
        say(found=asdict(replace(found, compiled=compare(engine, examples, "cpu").model_dump())))


if __name__ == "__main__":
    answer(_work)
