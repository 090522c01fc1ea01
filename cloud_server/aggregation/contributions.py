"""What an aggregation rule is given: who contributes to a round, and each one's tensors on demand.

Updates stay where they are kept, on disk in a server, until a rule asks for one. A rule that keeps
no update longer than it needs it works in the same memory for two robots and for ten thousand.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cloud_server.aggregation.staleness import staleness_weight
from fleet_model.types import Tensor, Update


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Contribution:
    """One accepted update without its tensors. Each is its own key: two are never equal."""

    robot: str  # name in the server's register
    site: str  # the robot's, by the server's register, not by the robot
    examples: int  # that it trained with; as they count (settings [checks]), at least 1
    staleness: int = 0  # versions between the checkpoint it started from and that of the round
    norm: float = 0.0  # Euclidean length of the update as it counts
    steps: int = 1  # of its optimizer, as the robot says

    @property
    def discount(self) -> float:
        """Return what remains of it for its age, in (0, 1]; 1 if it is fresh."""
        return staleness_weight(self.staleness)

    @property
    def weight(self) -> float:
        """Return examples times discount. No update is scaled by it: that is up to the rule."""
        return self.examples * self.discount


class Contributions(Protocol):
    """The accepted updates of one round.

    May be iterated any number of times, always in the same order: by robot, then oldest first. It
    does not depend on which update arrived first. All tensors are those that the robot sent:
    float32, finite, of the checkpoint's names and shapes, not scaled; one that was longer than the
    round allows (checks.max_norm_ratio) is cut to that length. They may be read-only.

    `update`, `tensor` and `numbers` raise StorageError if what was kept is damaged on disk.
    """

    def __len__(self) -> int:
        """Return how many there are; at least one."""
        ...

    def __iter__(self) -> Iterator[Contribution]:
        """Return who contributes; no tensor is read."""
        ...

    def update(self, one: Contribution) -> Update:
        """Read a whole update. Its num_examples is `one.examples`, its robot `one.robot`."""
        ...

    def tensor(self, one: Contribution, name: str) -> Tensor:
        """Read one tensor of an update, and nothing else of it."""
        ...

    def numbers(self, one: Contribution, name: str, start: int, stop: int) -> Tensor:
        """Read a piece of one tensor: elements start to stop in C order, as a slice: shape (n,)."""
        ...


class UpdatesInMemory:
    """Contributions that are all in memory: for scripts, and for tests of a rule."""

    def __init__(self, pairs: Sequence[tuple[Contribution, Update]]) -> None:
        ordered = sorted(pairs, key=lambda pair: (pair[0].robot, -pair[0].staleness))
        self._updates = {one: replace(u, num_examples=one.examples) for one, u in ordered}

    def __len__(self) -> int:
        return len(self._updates)

    def __iter__(self) -> Iterator[Contribution]:
        return iter(self._updates)

    def update(self, one: Contribution) -> Update:
        """As Contributions says; so are the others."""
        return self._updates[one]

    def tensor(self, one: Contribution, name: str) -> Tensor:  # noqa: D102
        return self._updates[one].weights[name]

    def numbers(self, one: Contribution, name: str, start: int, stop: int) -> Tensor:  # noqa: D102
        return self._updates[one].weights[name].reshape(-1)[start:stop]
