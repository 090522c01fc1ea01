"""Decide which texts a robot measures with, and which rows contradict each other."""

from array import array
from hashlib import blake2b

import numpy as np

from fleet_model.errors import SettingsError

_NO_LABEL, _NOBODY, _TRAIN, _HELD_OUT = -1, -1, 0, 1


def digest_of(text: str) -> int:
    """Return 64 bits of a text; the same ones for another case and other white space."""
    folded = " ".join(text.casefold().split())
    return int.from_bytes(blake2b(folded.encode(), digest_size=8).digest(), "big")


class TextSplit:
    """A share of every label, by the digest of the text alone.

    A text is held out if its digest is in the lowest share of all digests. So the same text is
    never on both sides, wherever and however often it stands, and rows that come, go or get another
    label move no other text. A label of at least 1/share/2 different texts none of which is so low
    holds out its lowest one; if nothing is held out then, the lowest of all is.

    Where tables themselves say what is for measuring and what for training, that counts, and a text
    that is held out is left out of the training rows (`is_held_copy`).

    Texts are kept as 13 bytes each; deciding takes three times as much for a moment.
    """

    def __init__(self, held_out: float) -> None:
        """Begin without a text.

        Args:
            held_out: share, 0 to 0.5; 0 holds out nothing but what tables say.

        Raises:
            SettingsError: the share is out of its range.
        """
        if not 0 <= held_out <= 0.5:
            raise SettingsError(f"held_out is {held_out}, expected 0 to 0.5")
        self._share, self._below = held_out, int(held_out * 2**64)
        self._digests, self._labels, self._sides = array("Q"), array("i"), array("b")
        self._numbers: dict[str, int] = {}
        self._contradicted: frozenset[int] = frozenset()
        self._held: frozenset[int] = frozenset()  # those that `_below` does not tell
        self._is_told = False

    def add(self, digest: int, label: str, held_out: bool | None) -> None:
        """Take a row that may be an example; `label` "" is none.

        `held_out` is what its table says.
        """
        number = self._numbers.setdefault(label, len(self._numbers)) if label else _NO_LABEL
        side = _NOBODY if held_out is None else _HELD_OUT if held_out else _TRAIN
        self._digests.append(digest)
        self._labels.append(number)
        self._sides.append(side)

    def decide(self) -> None:
        """Look at all rows; to be called once, before the questions."""
        if not self._digests:
            return
        digests = np.frombuffer(self._digests, np.uint64)
        labels, sides = np.frombuffer(self._labels, np.int32), np.frombuffer(self._sides, np.int8)
        order = np.argsort(digests)
        digests, labels, sides = digests[order], labels[order], sides[order]
        starts = np.flatnonzero(np.append(True, digests[1:] != digests[:-1]))
        distinct = digests[starts]
        highest = np.maximum.reduceat(labels, starts)
        told = np.where(labels == _NO_LABEL, np.iinfo(np.int32).max, labels)
        lowest = np.minimum.reduceat(told, starts)
        differ = (highest != _NO_LABEL) & (lowest != highest)
        self._contradicted = frozenset(distinct[differ].tolist())
        held = np.maximum.reduceat(sides, starts) == _HELD_OUT
        self._is_told = bool(held.any() and not (sides == _HELD_OUT).all())
        if self._is_told:
            self._held = frozenset(distinct[held].tolist())
        elif self._below:
            self._held = self._further(distinct[~differ], highest[~differ])

    @property
    def is_told(self) -> bool:
        """Return whether the tables themselves say what is held out, so that nothing else does."""
        return self._is_told

    def _further(self, distinct: "np.ndarray", labels: "np.ndarray") -> frozenset[int]:
        """Return the texts that are held out although they are not low enough."""
        found = set[int]()
        for label in np.unique(labels).tolist():
            lowest, count = distinct[labels == label][0], int((labels == label).sum())
            if lowest >= self._below and round(self._share * count):
                found.add(int(lowest))
        if not found and len(distinct) > 1 and distinct[0] >= self._below:
            found.add(int(distinct[0]))
        return frozenset(found)

    def is_contradicted(self, digest: int) -> bool:
        """Return whether rows with this text have different labels."""
        return digest in self._contradicted

    def holds_out(self, digest: int, told: bool | None) -> bool:
        """Return whether a row is not trained on; `told` is what its table says."""
        if self._is_told:
            return told is True
        return digest < self._below or digest in self._held

    def is_held_copy(self, digest: int, told: bool | None) -> bool:
        """Return whether a row for training has a text that is held out."""
        return self._is_told and told is not True and digest in self._held
