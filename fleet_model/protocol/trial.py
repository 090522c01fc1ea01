"""What became of a published model on one robot: a kind, numbers, and words made of them.

The robot sends kinds and numbers only. Both sides make the same words of them, so what a server
shows of a robot is never the robot's own text. Kinds of a newer agent are shown as they are.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

MAX_INT = 2**53  # exact as a float, too
CONFIRMED, PROBATION, REFUSED, BACK = "confirmed", "probation", "refused", "back"
# Why a model is refused or given back -> what to say of it.
WHY: Mapping[str, str] = {
    "worse": "{measure} {after:.3f}, {before:.3f} with version {running}, on {examples} held-out "
    "examples",
    "fallen": "{measure} {after:.3f} on {examples} held-out examples, and version {running} had "
    "{confirmed:.3f} here when it was confirmed: this robot's labels or frames have changed",
    "one_label": "all examples of this robot have one label, and of {samples} other inputs only "
    "{kept} are not given this label, which version {running} gives to none of them",
    "disagrees": "the same answer as version {running} on {agreeing} of {examples} frames only",
    "slower": "{after_ms:.1f} ms for an answer, {before_ms:.1f} ms with version {running}",
    "crashed": "it ended the process that tried it",
    "hung": "it did not answer in time",
    "memory": "it took more memory than install.memory_mb allows",
    "unloadable": "it cannot be loaded",
    "interrupted": "the agent was ended three times while the model was tried",
    "check": "install.check failed after the switch",
    "operator": "by `edge-agent rollback`",
}


def printable(text: str) -> str:
    """Words of a robot are shown in a terminal. A pattern would cost robots 6 MB."""
    if not text.isprintable():
        raise ValueError("expected printable characters")
    return text


_Word = Annotated[str, AfterValidator(printable), StringConstraints(max_length=40)]
Count = Annotated[int, Field(ge=0, le=MAX_INT)]


class TrialOutcome(BaseModel):
    """The last model that a robot has tried."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    version: Count
    state: _Word  # CONFIRMED, PROBATION, REFUSED, or BACK: it was active, and is no more
    why: _Word = ""  # a key of WHY, where it is refused or given back
    running: Count | None = None  # version that it was compared with; None: there was none
    measure: _Word = ""  # the workload's first; "" without held-out examples that have a truth
    before: float | None = None  # of the running version
    after: float | None = None  # of the new one
    confirmed: float | None = None  # of the running version, when it was confirmed here
    agreeing: Count | None = None  # frames on which both say the same, where there is no truth
    examples: Count = 0  # compared
    samples: Count = 0  # inputs of the workload, where all examples have one label and these others
    kept: Count = 0  # of `samples`, that are still not given that label
    before_ms: float | None = None  # shortest time of an answer, without reading the input
    after_ms: float | None = None

    @property
    def took_over(self) -> bool:
        """Return whether it is the active version."""
        return self.state in (CONFIRMED, PROBATION)

    @property
    def short(self) -> str:
        """Return two words at most, for a table."""
        return f"{self.state}: {self.why}" if self.why else self.state

    @property
    def reason(self) -> str:
        """Return why it is refused or given back, with the numbers; "" if it is not."""
        try:
            return WHY[self.why].format(**self.model_dump()) if self.why else ""
        except (KeyError, TypeError, ValueError):  # of a newer agent, or without a number
            return self.why

    @property
    def told(self) -> str:
        """Return why it is refused or given back, else what was measured; "" if nothing was."""
        if self.state in (REFUSED, BACK):
            return self.reason
        if self.measure and self.after is not None:
            beside = "" if self.before is None else f", {self.before:.3f} with {self.running}"
            return f"{self.measure} {self.after:.3f}{beside}, on {self.examples} held-out examples"
        if self.agreeing is not None:
            of = f"on {self.agreeing} of {self.examples} frames"
            return f"the same answer as version {self.running} {of}"
        return ""

    @property
    def words(self) -> str:
        """Return one line for people."""
        how = {PROBATION: "is on probation", BACK: "was given back"}
        begin = f"version {self.version} {how.get(self.state, f'is {self.state}')}"
        return f"{begin}: {self.told}" if self.told else begin
