"""The sums that robots have told, one file a robot, and what was made of them last.

    <lineage>/sums/<robot>.safetensors   as they travelled, with labels and trunk
    <lineage>/sums/head.json             who is in the head in closed form, and who was left out

Files are written aside and renamed: after a power cut each is the old one or the new one.
"""

import fcntl
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fleet_model.durable import make_directory, remove_durably, write_durably
from fleet_model.errors import CheckpointError, StorageError, UpdateError

if TYPE_CHECKING:
    from fleet_model.sums.class_sums import ClassSums
    from fleet_model.types import Weights

HEAD, SUFFIX = "head.json", ".safetensors"
log = logging.getLogger(__name__)
_TEXTS = TypeAdapter(tuple[str, ...])


class ClosedForm(BaseModel):
    """A head that was made of sums."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    version: int  # of the checkpoint
    method: str
    strength: float
    robots: tuple[str, ...]  # whose sums are in it
    left_out: dict[str, str] = {}  # robot -> why its sums are not
    behind: dict[str, int] = {}  # site relay -> how many robots' sums it added up
    unlearned: str = ""  # robot whose sums were taken out for good, if that made the head

    def sentences(self) -> list[str]:
        """Return it with who was left out and why."""
        return [
            self.words,
            *(f"sums of {one} are left out: {w}" for one, w in self.left_out.items()),
        ]

    @property
    def words(self) -> str:
        """Return it as a person would say it."""
        behind = {name: self.behind[name] for name in self.robots if name in self.behind}
        number = len(self.robots) - len(behind) + sum(behind.values())
        many = "1 robot" if number == 1 else f"{number} robots"
        many += "".join(f", {robots} of them behind {relay}" for relay, robots in behind.items())
        without = f", without {self.unlearned}, which is unlearned" if self.unlearned else ""
        return f"version {self.version} is a head in closed form ({self.method}): {many}{without}"


@dataclass(frozen=True, slots=True)
class SumsSpace:
    """What sums must be of to be added up: one trunk; labels may have changed their places."""

    trunk: str
    labels: tuple[str, ...]
    width: int
    former: Mapping[str, str]  # earlier name of a label -> its name


class SumsStore:
    """One lineage's."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def save(self, robot: str, tensors: "Weights", space: SumsSpace, behind: int = 1) -> None:
        """Replace what a robot has told; raises StorageError if the disk does not take it.

        Args:
            robot: its name.
            tensors: as they travelled.
            space: what they are of.
            behind: how many robots' sums they are: more than 1 of a site relay.
        """
        from fleet_model.weights import write_weights

        texts = {"trunk": space.trunk, "labels": _TEXTS.dump_json(space.labels).decode()}
        if behind > 1:
            texts["robots"] = str(behind)
        try:
            make_directory(self._root)
            write_weights(self._file(robot), tensors, texts)
        except OSError as error:
            raise StorageError(
                f"{self._root}: the sums of {robot} cannot be kept ({error.strerror}); give the "
                "disk room, then `cloud-server runs resume DIR`"
            ) from None

    def robots(self) -> Sequence[str]:
        """Return who has told sums, sorted."""
        return sorted(unquote(file.stem) for file in self._root.glob(f"*{SUFFIX}"))

    def of(self, space: SumsSpace, without: str = "") -> "StoredSums":
        """Return the sums that can be added up; others are left out with a line in the log."""
        fit = [name for name in self.robots() if name != without and self._fits(name, space)]
        return StoredSums(self, fit, space)

    def load(self, robot: str, space: SumsSpace) -> "ClassSums":
        """Return one robot's sums, with a column for each label of the fleet.

        Raises:
            CheckpointError: the file is damaged.
        """
        import numpy as np

        from fleet_model.sums.class_sums import ClassSums
        from fleet_model.sums.packing import unpack_sums
        from fleet_model.weights import read_metadata, read_weights

        texts = read_metadata(self._file(robot))
        labels = self._labels(robot, texts)
        try:
            told = unpack_sums(read_weights(self._file(robot)), len(labels), space.width)
        except UpdateError as error:
            raise self._damaged(robot, str(error)) from None
        counts, means = np.zeros(len(space.labels)), np.zeros((len(space.labels), space.width))
        places = {label: place for place, label in enumerate(space.labels)}
        for index, label in enumerate(labels):
            if (place := places.get(space.former.get(label, label))) is not None:
                counts[place], means[place] = told.counts[index], told.means[index]
        return ClassSums(
            counts=counts,
            means=means,
            directions=told.directions,
            within=told.within,
            robots=self._behind(robot, texts),
        )

    def forget(self, robot: str) -> None:
        """Remove what a robot has told."""
        remove_durably(self._file(robot))

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the sums: a relay adds them up while a command may take a robot's away."""
        make_directory(self._root.parent)
        with self._root.with_name(f".{self._root.name}.lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def head(self) -> ClosedForm | None:
        """Return what was made of sums last; None if nothing was, or it cannot be read."""
        try:
            return ClosedForm.model_validate_json((self._root / HEAD).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.warning("%s is left out: %s", self._root / HEAD, error)
            return None

    def note(self, head: ClosedForm) -> None:
        """Write down what was made; raises OSError."""
        write_durably(self._root / HEAD, head.model_dump_json(indent=1))

    def _fits(self, robot: str, space: SumsSpace) -> bool:
        from fleet_model.weights import read_metadata

        try:
            if read_metadata(self._file(robot)).get("trunk") == space.trunk:
                self.load(robot, space)
                return True
            log.info("the sums of %s are of another trunk: they do not count", robot)
        except CheckpointError as error:
            log.error("%s; it does not count until the robot tells it again", error)
        return False

    def _labels(self, robot: str, texts: Mapping[str, str]) -> tuple[str, ...]:
        try:
            return _TEXTS.validate_json(texts.get("labels", ""))
        except ValidationError:
            raise self._damaged(robot, "no labels") from None

    def _behind(self, robot: str, texts: Mapping[str, str]) -> int:
        number = texts.get("robots", "1")
        if not number.isdecimal() or int(number) < 1:
            raise self._damaged(robot, f"they are of {number[:20]!a} robots")
        return int(number)

    def _damaged(self, robot: str, why: str) -> CheckpointError:
        return CheckpointError(f"{self._file(robot)}: the sums of {robot} are damaged ({why})")

    def _file(self, robot: str) -> Path:
        return self._root / f"{quote(robot, safe='')}{SUFFIX}"


class StoredSums(Mapping[str, "ClassSums"]):
    """Robot -> its sums, read from the disk at every access: many exact ones fill no memory."""

    def __init__(self, store: SumsStore, robots: Sequence[str], space: SumsSpace) -> None:
        self._store, self._robots, self._space = store, tuple(robots), space

    def __getitem__(self, robot: str) -> "ClassSums":
        if robot not in self._robots:
            raise KeyError(robot)
        return self._store.load(robot, self._space)

    def __iter__(self) -> Iterator[str]:
        return iter(self._robots)

    def __len__(self) -> int:
        return len(self._robots)
