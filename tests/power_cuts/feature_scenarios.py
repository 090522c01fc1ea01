"""Power cuts while the training process keeps features: they may be lost, never wrong."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from power_cuts import Scenario
from recorder import mark

from edge_agent.training.feature_cache import FeatureCache

FIRST, SECOND = range(12), range(8, 20)  # keys of two rounds: most of the first are dropped


def _round(root: Path, keys: Iterable[int]) -> list[bool]:
    """Return for each key whether its row is right."""
    (root / "features").mkdir(exist_ok=True)
    cache = FeatureCache(root / "features", "trunk")
    cache.begin()
    rows = {key: cache.row(str(key), lambda key=key: _features(key)) for key in keys}
    cache.end()
    return [np.array_equal(row["out"], _features(key)["out"]) for key, row in rows.items()]


def _features(key: int) -> dict[str, np.ndarray]:
    return {"out": np.arange(key, key + 300, dtype=np.float32)}


def _two_rounds(root: Path) -> None:
    for keys in (FIRST, SECOND):
        _round(root, keys)
        mark()


def _known(root: Path) -> bool:
    return all(_round(root, (*FIRST, *SECOND)))


FEATURES = Scenario(prepare=lambda root: None, act=_two_rounds, observe=_known, resume=_two_rounds)
