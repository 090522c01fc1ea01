"""Which frame a person is asked about next: an unsure one, spread over time and views.

Greedy: the next frame has the largest value times its distance to the nearest frame that was
taken before it. The distance is the mean of that of the views and that in time, each 0 to 1; see
farthest-first traversal (Gonzalez 1985), and core sets (Sener and Savarese, arXiv:1708.00489). What
views have in common is what the model's features say, and their colors where there is no model.
"""

import numpy as np

from edge_agent.labeling.answer import FrameName
from edge_agent.labeling.views import SIZE, feature_distances, view_distances
from fleet_model.types import NS_PER_S, Tensor

SPREAD_S = 10.0  # between two frames, from which on they are of different moments
LEAST = 0.02  # value of a frame that the model is certain of: at the end it is asked about, too


class Queue:
    """Frames that wait. Taking one of n costs n times the numbers of a thumbprint.

    For one thread at a time.
    """

    def __init__(self, most: int) -> None:
        """Make room for `most` frames."""
        self._names: list[FrameName] = []
        self._at: dict[FrameName, int] = {}
        self._views = np.zeros((most, SIZE), np.float32)
        self._features: Tensor = np.zeros((most, 0), np.float32)
        self._has_features = np.zeros(most, bool)
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
        features: Tensor | None = None,
        *,
        waits: bool = True,
    ) -> None:
        """Add a frame, or give one that waits another value.

        Args:
            name: of the frame.
            value: of a label of it, 0..1.
            view: its thumbprint.
            features: of length 1, as the model sees it; None: not known.
            waits: False: it was answered before; it only says what is near it.
        """
        place = self._at.get(name)
        if place is not None:
            self._values[place] = max(value, LEAST)
            return
        place = len(self._names)
        self._names.append(name)
        self._at[name] = place
        self._views[place], self._stamps[place] = view, name.stamp_ns
        self._keep_features(place, features)
        self._values[place] = max(value, LEAST)
        taken = np.flatnonzero(~self._waits[:place])
        if len(taken):
            self._near[place] = self._distances(place, taken).min()
        self._waits[place] = waits
        if not waits:
            self._took(place)

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

    def _keep_features(self, place: int, features: Tensor | None) -> None:
        if features is None:
            return
        if not self._features.shape[1]:
            self._features = np.zeros((len(self._stamps), len(features)), np.float32)
        if len(features) == self._features.shape[1]:  # those of another network say other things
            self._features[place], self._has_features[place] = features, True

    def _took(self, place: int) -> None:
        count = len(self._names)
        others = np.arange(count)
        self._near[:count] = np.minimum(self._near[:count], self._distances(place, others))

    def _distances(self, place: int, others: Tensor) -> Tensor:
        """Return the distances of a frame to others, by their places."""
        views = view_distances(self._views[others], self._views[place])
        if self._has_features[place]:
            seen = feature_distances(self._features[others], self._features[place])
            views = np.where(self._has_features[others], seen, views)
        apart = np.abs(self._stamps[others] - self._stamps[place])  # ns
        return np.asarray((views + np.minimum(apart / (SPREAD_S * NS_PER_S), 1.0)) / 2)
