"""How the open round goes, for people who watch it."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cloud_server.state.words import names

MAX_TOLD = 60  # replies of an open round that are shown


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundProgress:
    """An open round as its loop sees it; a robot counts as answered with whatever answer."""

    run: str
    round: int
    asked: int  # robots with a ticket
    answered: int
    good: int  # updates that may be folded in
    began: float  # in seconds of the round's clock
    deadline: float
    awaited: Sequence[str] = ()  # robots that have not answered, some of them if they are many
    waits: str = ""  # why nobody is asked yet; `deadline` is then when the round gives up
    # (robot, kind of its outcome, its text) of the last replies, at most MAX_TOLD
    replies: Sequence[tuple[str, str, str]] = ()

    def at(self, now_s: float, online: Collection[str]) -> "OpenRoundStatus":
        """Return what is so at a moment of the round's clock; `online` are robots' names."""
        return OpenRoundStatus(
            run=self.run,
            round=self.round,
            asked=self.asked,
            answered=self.answered,
            good=self.good,
            seconds_left=round(max(self.deadline - now_s, 0.0), 1),
            seconds=round(max(now_s - self.began, 0.0), 1),
            awaited=self.awaited,
            offline=[name for name in self.awaited if name not in online],
            waits=self.waits,
            replies=self.replies,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRoundStatus:
    """An open round with ages in place of moments."""

    run: str
    round: int
    asked: int
    answered: int
    good: int
    seconds_left: float  # to the deadline
    seconds: float = 0.0  # since it began to wait
    awaited: Sequence[str] = ()
    offline: Sequence[str] = ()  # those of the awaited that cannot be reached
    waits: str = ""
    replies: Sequence[tuple[str, str, str]] = ()  # as RoundProgress has them

    @property
    def whom(self) -> str:
        """Return for whom it waits, in words; "" if for nobody."""
        told = (f"{name} (offline)" if name in self.offline else name for name in self.awaited)
        return names(told) if self.awaited else ""

    def as_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "whom": self.whom}
