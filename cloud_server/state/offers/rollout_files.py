"""How far the rollout on each channel is: rollouts/stable.json.

One file holds all of it, so a step is done or not. What is signed of it follows from the file.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fleet_model.bundle import sha256_of
from fleet_model.durable import remove_asides, remove_durably, write_durably
from fleet_model.errors import BundleError, TrustError
from fleet_model.protocol.rollout import (
    ABORTED,
    ADVANCING,
    COMPLETE,
    Choice,
    Plan,
    Stage,
    State,
    choice,
    content_of,
    group_of,
    offer_of,
    position,
    read_plan,
)

END = ".json"


class Rollout(BaseModel):
    """A plan, and what has become of it."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    content: str  # of the plan, as it is signed
    open: int = 1  # groups
    state: State = ADVANCING
    begun_s: float  # Unix time
    since_s: float  # Unix time: of the last step
    why: str = ""  # of it, for people
    failed: tuple[str, ...] = ()  # robots for which it was halted
    forgiven: tuple[str, ...] = ()  # robots that failed before a person let it go on
    over: bool = False  # the channel offers what came of it: nothing of it is signed any more

    @property
    def plan(self) -> Plan:
        """Return the plan."""
        return Plan.model_validate_json(self.content)

    @property
    def digest(self) -> str:
        """Return the sha256 of the plan."""
        return sha256_of(self.content.encode())

    @property
    def stage(self) -> Stage:
        """Return what the server signs of it."""
        return Stage(plan=self.digest, open=self.open, state=self.state)

    @property
    def is_final(self) -> bool:
        """Return whether nothing can become of it any more."""
        return self.state in (ABORTED, COMPLETE)

    @property
    def outcome(self) -> Choice:
        """Return what the channel is to offer."""
        return choice(self.plan, self.stage, self.open, None)

    def group(self, key: str, site: str) -> int:
        """Return the number of the group that has a robot in it first, from 0."""
        return group_of(self.plan.groups, position(self.digest, key), site)

    def offer_for(self, key: str, site: str, active: int | None) -> str:
        """Return the name of the offer for a robot that has no version by its site."""
        plan = self.plan
        return offer_of(plan.channel, choice(plan, self.stage, self.group(key, site), active))

    def step(self, now_s: float, why: str, **changes: object) -> "Rollout":
        """Return it with changes; groups that open begin their time anew."""
        return self.model_copy(update={"since_s": now_s, "why": why, **changes})


def begun(plan: Plan, now_s: float) -> Rollout:
    """Return a rollout whose first group is open."""
    content = content_of(plan).decode()
    return Rollout(content=content, begun_s=now_s, since_s=now_s, why="the first group is open")


def adopted(content: bytes, channel: str, now_s: float) -> Rollout:
    """Return a rollout of a plan that offline keys have signed; raises TrustError."""
    read_plan(content, channel)
    words = "the first group is open"
    return Rollout(content=content.decode(), begun_s=now_s, since_s=now_s, why=words)


class RolloutFiles:
    """Reads and writes them."""

    def __init__(self, store: Path) -> None:
        self._folder = store / "rollouts"

    def all(self) -> dict[str, Rollout]:
        """Return channel -> rollout; raises BundleError if one is damaged."""
        files = sorted(self._folder.glob(f"[!.]*{END}"))
        found = {file.stem: self.read(file.stem) for file in files}
        return {channel: one for channel, one in found.items() if one is not None}

    def read(self, channel: str) -> Rollout | None:
        """Return the rollout of a channel, None if there was none; raises BundleError."""
        file = self._file(channel)
        try:
            rollout = Rollout.model_validate_json(file.read_bytes())
            read_plan(rollout.content.encode(), channel)
        except FileNotFoundError:
            return None
        except (ValidationError, TrustError, UnicodeDecodeError):
            raise BundleError(
                f"{file}: damaged; restore it from a backup, or remove it: robots then have what "
                f"channel {channel} offers"
            ) from None
        return rollout

    def write(self, channel: str, rollout: Rollout) -> None:
        """Write it in one step."""
        write_durably(self._file(channel), rollout.model_dump_json(exclude_defaults=True) + "\n")

    def remove(self, channel: str) -> None:
        """Forget it; raises FileNotFoundError if there is none."""
        remove_durably(self._file(channel))

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock of whoever changes one, also against other processes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        remove_asides(self._folder)
        with (self._folder / ".lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _file(self, channel: str) -> Path:
        return self._folder / f"{channel}{END}"
