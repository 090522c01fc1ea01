"""Which frame a person is asked about next: an unsure one, spread over time and views.

Greedy: the next frame has the largest value times its distance to the nearest frame that was
taken before it; see farthest-first traversal (Gonzalez 1985), and core sets (Sener and Savarese,
arXiv:1708.00489). The distance is the mean of three, each 0 to 1: of the features that the model
sees (as core sets have them), of what it says, and of time. Where a frame has no features it is
that of colors and of time.
"""

import numpy as np

from edge_agent.labeling.answer import FrameName
from edge_agent.labeling.views import (
    ROW,
    SIZE,
    Sight,
    answer_distances,
    feature_distances,
    typical_distance,
    view_distances,
)
from fleet_model.types import NS_PER_S, Tensor

SPREAD_S = 10.0  # between two frames, from which on they are of different moments
LEAST = 0.02  # value of a frame that the model is certain of: at the end it is asked about, too


class Queue:
    """Frames that wait. Taking one is a pass over all: 4 ms with 4,000 and 80 classes.

    For one thread at a time.
    """

    def __init__(self, most: int) -> None:
        """Make room for `most` frames."""
        self._names: list[FrameName] = []
        self._at: dict[FrameName, int] = {}
        self._views = np.zeros((most, SIZE), np.float32)
        self._rows = np.zeros((most, ROW), np.float32)
        self._scores = np.zeros((most, 0), np.float32)  # (most, classes)
        self._total = np.zeros(ROW)  # of the rows
        self._seen = np.zeros(most, bool)  # by a model that tells features
        self._stamps = np.zeros(most, np.int64)
        self._values = np.zeros(most)
        self._near = np.ones(most)  # distance to the nearest frame that was taken
        self._waits = np.zeros(most, bool)

    def __len__(self) -> int:
        return int(self._waits.sum())

    def waits(self, name: FrameName) -> bool:
        """Return whether a frame is there that was not taken yet."""
        return name in self._at and bool(self._waits[self._at[name]])

    def add(
        self,
        name: FrameName,
        value: float,
        view: Tensor,
        sight: Sight | None = None,
        *,
        waits: bool = True,
    ) -> None:
        """Add a frame, or tell anew what a model makes of one.

        Args:
            name: of the frame.
            value: of a label of it, 0..1.
            view: its thumbprint.
            sight: what the model makes of it; None: it was not asked, or tells no features.
            waits: False: it was answered before; it only says what is near it.
        """
        place = self._at.get(name)
        is_new = place is None
        if place is None:
            place = self._at[name] = len(self._names)
            self._names.append(name)
            self._views[place], self._stamps[place] = view, name.stamp_ns
            self._waits[place] = waits
        self._values[place] = max(value, LEAST)
        self._see(place, sight)
        if self._waits[place]:
            self.compare(name)
        elif is_new:
            self._took(place)

    def compare(self, name: FrameName) -> None:
        """Find anew how near the taken frames are to one that waits.

        Rows that came later, and how far they are from each other by now, may have changed that.
        """
        place = self._at.get(name)
        if place is None:
            return
        taken = np.flatnonzero(~self._waits[: len(self._names)])
        self._near[place] = self._distances(place, taken).min() if len(taken) else 1.0

    def take(self) -> FrameName | None:
        """Return the next frame, which waits no longer; None without one. Of equals the first."""
        count = len(self._names)
        if not self._waits[:count].any():
            return None
        gains = np.where(self._waits[:count], self._values[:count] * self._near[:count], -1.0)
        place = int(gains.argmax())
        self._waits[place] = False
        self._took(place)
        return self._names[place]

    def _see(self, place: int, sight: Sight | None) -> None:
        self._total -= self._rows[place]
        self._seen[place] = sight is not None
        self._rows[place] = 0.0
        if sight is None:
            return
        if len(sight.scores) != self._scores.shape[1]:  # of other classes: nothing to compare
            self._scores = np.zeros((len(self._seen), len(sight.scores)), np.float32)
        self._rows[place], self._scores[place] = sight
        self._total += self._rows[place]

    def _took(self, place: int) -> None:
        count = len(self._names)
        others = np.arange(count)
        self._near[:count] = np.minimum(self._near[:count], self._distances(place, others))

    def _distances(self, place: int, others: Tensor) -> Tensor:
        """Return the distances of a frame to others, by their places."""
        apart = np.abs(self._stamps[others] - self._stamps[place])  # ns
        found = np.minimum(apart / (SPREAD_S * NS_PER_S), 1.0)
        by_model = self._seen[others] & self._seen[place]
        seen, colors = others[by_model], others[~by_model]
        if len(seen):
            far = typical_distance(self._total, int(self._seen.sum()))
            found[by_model] += feature_distances(self._rows[seen], self._rows[place], far)
            found[by_model] += answer_distances(self._scores[seen], self._scores[place])
            found[by_model] /= 3
        if len(colors):
            found[~by_model] += view_distances(self._views[colors], self._views[place])
            found[~by_model] /= 2
        return np.asarray(found)
