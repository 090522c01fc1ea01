"""Cut the power of a recorded operation at every point and look at what is found afterwards."""

import random
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from disk import Disk, Fate, Fates, Replay, Tree, fates_of, home_of, unsafe
from operations import (
    Create,
    Mark,
    Operation,
    Remove,
    Rename,
    SyncAll,
    SyncFile,
    SyncFolder,
    Write,
)
from recorder import Recording, record

NEAR = 6  # so many of the newest unsafe changes are lost one by one at every point
MIXTURES, MIXTURES_AT_BORDERS = 2, 12  # random ones; borders are the points before a sync or mark


class WrongStateError(Exception):
    """After a power cut neither the old nor the new state was found, or it did not heal."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """An operation of the product.

    States are compared as values: what `observe` returns at the marks of the undisturbed recording
    are the states that may be found, the last one that was announced or the one after it.
    """

    prepare: Callable[[Path], None]  # makes the folder; all of it is safe on the disk
    act: Callable[[Path], None]  # the operation; `mark()` after every step that must last
    observe: Callable[[Path], Any]  # opens the folder by the real code; raises if it is damaged
    resume: Callable[[Path], None]  # what the next process does
    settled: Callable[[Path], Any] | None = None  # as `observe`, after `resume`; equal for all cuts
    between: Callable[[list[Any], int], Sequence[Any]] = field(default=lambda states, step: ())


@dataclass(slots=True)
class Report:
    """What was tried."""

    operations: int = 0
    states: int = 0


def cut_everywhere(scenario: Scenario, *, seed: int = 0, most: int = 400) -> Report:
    """Record the scenario once and check what every power cut leaves.

    Args:
        scenario: what to do.
        seed: of the random mixtures.
        most: distinct states; beyond it they are drawn, evenly over the points in time.

    Raises:
        WrongStateError: what is found is neither the old nor the new state, or does not heal.
        TracingError: the recording failed.
    """
    with tempfile.TemporaryDirectory(prefix="power-cut-", dir=memory()) as folder:
        root = Path(folder, "root")
        root.mkdir()
        scenario.prepare(root)
        recording = record(root, lambda: scenario.act(root))
        return _Replays(scenario, recording, root, seed).run(most)


class _Cut(NamedTuple):
    after: int  # operations
    step: int  # announced before
    fates: Fates


class Expected:
    """What a scenario leaves undisturbed, and with it what may be found after a disturbance."""

    def __init__(self, scenario: Scenario, recording: Recording, root: Path) -> None:
        self._scenario, self._root = scenario, root
        self.replay = Replay(*recording)
        self.marks = [i for i, o in enumerate(recording.operations) if isinstance(o, Mark)]
        ends = [0, *(mark + 1 for mark in self.marks)]
        self.states = [self._look(self.replay.tree(end, {})) for end in ends]
        put(self.replay.tree(len(recording.operations), {}), root)
        self.final = self._settle()

    def require(self, step: int) -> None:
        """Look at the folder, let the next process go on, and look again.

        Args:
            step: how many were announced.

        Raises:
            WrongStateError: neither the state of that step was there nor the next one, or the next
                process did not reach the end.
        """
        allowed = self.states[step : step + 2]
        allowed += self._scenario.between(self.states, step)
        found = self._scenario.observe(self._root)
        if found not in allowed:
            raise WrongStateError(
                f"found {found!r}, expected one of {' or '.join(map(repr, allowed))}"
            )
        final = self._settle()
        if final != self.final:
            raise WrongStateError(f"healed to {final!r}, expected {self.final!r}")

    def _look(self, tree: Any) -> Any:
        put(tree, self._root)
        return self._scenario.observe(self._root)

    def _settle(self) -> Any:
        self._scenario.resume(self._root)
        return (self._scenario.settled or self._scenario.observe)(self._root)


class _Replays:
    def __init__(self, scenario: Scenario, recording: Recording, root: Path, seed: int) -> None:
        self._expected, self._root, self._seed = Expected(scenario, recording, root), root, seed
        self._before, self._operations = recording
        self._replay, self._marks = self._expected.replay, self._expected.marks

    def run(self, most: int) -> Report:
        """Check distinct states until there are no more, or enough."""
        chosen: dict[tuple[bytes, int], _Cut] = {}
        for cut, fates in _cuts(self._operations, self._seed):
            step = sum(position < cut for position in self._marks)
            tree = self._replay.tree(cut, fates)
            chosen.setdefault((tree.fingerprint(), step), _Cut(cut, step, fates))
        drawn = list(chosen.values())
        if len(drawn) > most:
            random.Random(self._seed).shuffle(drawn)
            drawn.sort(key=lambda one: not self._is_at_mark(one.after))
        # The end first: what was never made safe shows there.
        for one in sorted(drawn[:most], key=lambda one: -one.after):
            self._check(one.after, one.step, one.fates)
        return Report(len(self._operations), min(most, len(drawn)))

    def _is_at_mark(self, cut: int) -> bool:
        """Tell whether a step was announced right before: most must be safe there."""
        return cut - 1 in self._marks

    def _check(self, cut: int, step: int, fates: Fates) -> None:
        put(self._replay.tree(cut, fates), self._root)
        try:
            self._expected.require(step)
        except Exception as error:
            raise WrongStateError(self._story(cut, step, fates, error)) from error

    def _story(self, cut: int, step: int, fates: Fates, error: Exception) -> str:
        """Tell what was lost and what was found, for whoever has to mend it."""
        names = _names(self._before, self._operations)
        lines = [f"power cut after operation {cut} of {len(self._operations)}, step {step} done"]
        for index in range(max(0, cut - 30), cut):
            fate = fates.get(index, "")
            lines.append(f"  {index:4d} {fate:6s} {_in_words(self._operations[index], names)}")
        older = sum(index < cut - 30 for index in fates)
        lines += [f"  and {older} older changes lost or torn"] * (older > 0)
        return "\n".join([*lines, in_one_line(error)])


def _cuts(operations: Sequence[Operation], seed: int) -> Iterator[tuple[int, Fates]]:
    """Yield (number of operations before the cut, fates): the telling ones first."""
    for cut in range(len(operations) + 1):
        if cut and isinstance(operations[cut - 1], SyncFile | SyncFolder | SyncAll):
            continue  # it only made changes safe: what is possible now was possible before
        done = operations[:cut]
        at_border = cut == len(operations) or isinstance(
            operations[cut], SyncFile | SyncFolder | SyncAll | Mark
        )
        waiting = unsafe(done)
        yield cut, {}
        yield cut, dict.fromkeys(waiting, "lost")
        for one in waiting if at_border else waiting[-NEAR:]:
            yield from ((cut, {one: fate}) for fate in fates_of(operations[one]))
        if at_border:
            yield from ((cut, fates) for fates in _ordered_losses(operations, waiting))
        rng = random.Random(f"{seed}/{cut}")
        for _ in range(MIXTURES_AT_BORDERS if at_border else MIXTURES):
            yield cut, _mixture(operations, waiting, rng)


def _ordered_losses(operations: Sequence[Operation], waiting: list[int]) -> Iterator[Fates]:
    """Yield what file systems do that order one kind of change and not the other."""
    writes = [i for i in waiting if isinstance(operations[i], Write)]
    names = [i for i in waiting if isinstance(operations[i], Create | Remove | Rename)]
    for fate in ("lost", "torn", "zeros"):
        yield dict.fromkeys(writes, fate)  # type: ignore[misc]  # a Literal each
    yield dict.fromkeys(names, "lost")
    for home in {home_of(operations[i]) for i in waiting}:  # one file or folder is late
        yield dict.fromkeys((i for i in waiting if home_of(operations[i]) == home), "lost")
    for one in waiting:  # it alone arrived
        yield {i: "lost" for i in waiting if i != one}


def _mixture(operations: Sequence[Operation], waiting: list[int], rng: random.Random) -> Fates:
    fates: dict[int, Fate] = {}
    share = rng.random()
    for index in waiting:
        if rng.random() < share:
            fates[index] = rng.choice(list(fates_of(operations[index])))
    return fates


def _names(before: Disk, operations: Sequence[Operation]) -> dict[int, str]:
    names = {0: "."}
    names |= {number: path for path, number in before.tree().entries()}
    for operation in operations:
        if isinstance(operation, Create):
            names.setdefault(operation.node, f"{names[operation.folder]}/{operation.name}")
    return names


def _in_words(operation: Operation, names: dict[int, str]) -> str:
    kind = type(operation).__name__
    if isinstance(operation, Rename):
        source = f"{names[operation.folder]}/{operation.name}"
        return f"{kind} {source} -> {names[operation.to_folder]}/{operation.to_name}"
    if isinstance(operation, Create | Remove):
        return f"{kind} {names[operation.folder]}/{operation.name}"
    if isinstance(operation, Mark | SyncAll):
        return kind
    size = f", {len(operation.data)} bytes" if isinstance(operation, Write) else ""
    return f"{kind} {names[operation.node]}{size}"


def in_one_line(error: BaseException) -> str:
    """Return an error and where it was raised."""
    told = traceback.format_exception_only(error)[-1].strip()
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{told} ({Path(where.filename).name}:{where.lineno})"


def put(tree: Tree, root: Path) -> None:
    """Make a folder what a tree says."""
    shutil.rmtree(root)
    root.mkdir()
    tree.put(root)


def memory() -> Path | None:
    """Return a folder in memory, where there is one: thousands of states are made and removed."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else None
