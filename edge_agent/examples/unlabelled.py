"""Examples that nobody has labelled, for a model that may label them itself."""

from collections.abc import Collection, Iterator, Mapping
from hashlib import blake2b
from typing import Any

from edge_agent.examples.held_out import HeldOutSplit, Moment
from edge_agent.examples.lazy_frame import LazyFrame
from fleet_model.types import Example, PseudoLabel


class Unlabelled:
    """Frames of one listing without a label. They are never held out."""

    def __init__(self, pseudo: Mapping[str, Any] | None) -> None:
        """Keep nothing yet.

        Args:
            pseudo: `most` frames of a listing, and the fields of PseudoLabel; None: none is kept.
        """
        rule = dict(pseudo or {})
        self.wanted = bool(rule)
        self._most = int(rule.pop("most", 0))
        self._rule = PseudoLabel(**rule) if rule else None
        self._found: dict[str, tuple[LazyFrame, Moment]] = {}

    def add(self, key: str, frame: LazyFrame, moment: Moment) -> None:
        """Keep a frame, once."""
        if self.wanted:
            self._found[key] = frame, moment

    def examples(self, split: HeldOutSplit, labelled: Collection[str]) -> Iterator[Example]:
        """Yield at most `most` of them, nearly the same ones when further frames come.

        Args:
            split: of the labelled frames. What it holds out, would hold out with a label, or what
                is near to that, is left out: a model must not have seen what it is measured with.
            labelled: keys of the labelled frames.
        """
        keys = [
            key
            for key, (_, moment) in self._found.items()
            if key not in labelled and not split.may_hold_out(moment)
        ]
        for key in sorted(keys, key=_drawn)[: self._most]:
            frame, _ = self._found[key]
            yield Example(raw=frame, key=key, seen=False, pseudo=self._rule)


def _drawn(key: str) -> bytes:
    """Return what sorts keys in an order that nothing else decides."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
