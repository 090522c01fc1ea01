"""Examples that no person has labelled: a teacher has, or the model that learns may itself."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from edge_agent.examples.held_out import HeldOutSplit, Moment
from edge_agent.examples.lazy_frame import LazyFrame
from edge_agent.examples.taught import Said, place_of, read_learned, read_taught
from fleet_model.types import Box, Example, PseudoLabel

Truth = tuple[str, tuple[Box, ...]]  # label of the frame, the largest box's; boxes


class Unlabelled:
    """Frames of one listing that no person has labelled. They are never held out."""

    def __init__(
        self, pseudo: Mapping[str, Any] | None, taught: Mapping[str, Any] | None = None
    ) -> None:
        """Read what teachers have said; keep no frame yet.

        Args:
            pseudo: `most` frames of a listing, and the fields of PseudoLabel; None: no frame is
                left to the model that learns.
            taught: `folder` of the teachers' files, and the `weight` of their labels, 0 where
                frames are listed that nobody learns from; None: there are none.
        """
        rule, taught = dict(pseudo or {}), dict(taught or {})
        self._most = int(rule.pop("most", 0))
        self._rule = PseudoLabel(**rule) if rule else None
        folder = Path(taught["folder"]) if taught else None
        self._said = read_taught(folder) if folder else {}
        self._taught = read_learned(folder) if folder else set()
        self._taught.update(map(place_of, self._said))
        self._weight = float(taught.get("weight", 0))
        self.wanted = bool(rule) or bool(self._said and self._weight)
        self.used = Counter[str]()  # reason -> frames that have a teacher's label all the same
        self._found: dict[str, tuple[LazyFrame, Moment, str]] = {}

    def is_taught(self, key: str) -> bool:
        """Return whether a teacher has ever labelled a frame: models may have learned from it.

        The bytes may be other ones: the label page keeps a raw or a turned picture as a PNG.
        """
        return place_of(key) in self._taught

    def add(self, key: str, frame: LazyFrame, moment: Moment, reason: str) -> None:
        """Keep a frame, once; `reason` is what it was counted under as left out."""
        if self.wanted:
            self._found.setdefault(key, (frame, moment, reason))

    def examples(
        self,
        split: HeldOutSplit,
        labelled: Collection[str],
        truth_of: Callable[[Said], Truth | None],
        people: Mapping[str, int] | None,
    ) -> Iterator[Example]:
        """Yield those with a teacher's label, then at most `most` without a truth.

        The latter are nearly the same ones when further frames come.

        Args:
            split: of the labelled frames. What it holds out, would hold out with a label, or what
                is near to that, is left out: a model must not have seen what it is measured with.
            labelled: keys of the labelled frames.
            truth_of: what the words of a teacher are to this fleet; None: nothing that it learns.
            people: label -> training examples that people gave it. A teacher's examples of a label
                do not weigh more than these together: it is often sure of the commonest label
                alone, and a robot would learn little else. None: no such limit.
        """
        taught, rest = dict[str, Truth](), list[str]()
        for key, (_, moment, _) in self._found.items():
            if key in labelled or split.may_hold_out(moment):
                continue
            said = self._said.get(key) if self._weight else None
            if said and (truth := truth_of(said)):
                taught[key] = truth
            else:
                rest.append(key)
        counts = Counter(label for label, _ in taught.values())
        for key, (label, boxes) in taught.items():
            share = 1.0 if people is None else people.get(label, 0) / counts[label]
            if not share:
                continue
            frame, _, reason = self._found[key]
            self.used[reason] += 1
            yield Example(
                raw=frame,
                key=key,
                label=label,
                boxes=boxes,
                seen=bool(boxes),
                taught=min(self._weight, share),
            )
        for key in sorted(rest, key=_drawn)[: self._most]:
            yield Example(raw=self._found[key][0], key=key, seen=False, pseudo=self._rule)


def _drawn(key: str) -> bytes:
    """Return what sorts keys in an order that nothing else decides."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
