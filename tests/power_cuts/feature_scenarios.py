"""Power cuts while the training process keeps features: they may be lost, never wrong."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from power_cuts import Scenario
from recorder import mark

from edge_agent.training.feature_cache import FeatureCache

FIRST, SECOND = range(12), range(8, 20)  # keys of two rounds: most of the first are dropped
FEW = range(3)


def _round(root: Path, keys: Iterable[int], trunk: int = 1) -> list[bool]:
    """Return for each key whether its row is right."""
    (root / "features").mkdir(exist_ok=True)
    cache = FeatureCache(root / "features", f"trunk {trunk}")
    cache.begin()
    rows = {key: cache.row(str(key), lambda key=key: _features(key, trunk)) for key in keys}
    cache.end()
    return [np.array_equal(row["out"], _features(key, trunk)["out"]) for key, row in rows.items()]


def _features(key: int, trunk: int) -> dict[str, np.ndarray]:
    return {"out": trunk * np.arange(key, key + 300, dtype=np.float32)}


def _two_rounds(root: Path) -> None:
    for keys in (FIRST, SECOND):
        _round(root, keys)
        mark()


def _known(root: Path) -> bool:
    return all(_round(root, (*FIRST, *SECOND)))


def _another_trunk(root: Path) -> None:
    _round(root, FEW)
    mark()
    _round(root, FEW, trunk=2)
    mark()


def _known_of_both(root: Path) -> bool:
    return all(_round(root, FEW, trunk=2)) and all(_round(root, FEW))


FEATURES = Scenario(prepare=lambda root: None, act=_two_rounds, observe=_known, resume=_two_rounds)
ANOTHER_TRUNK = Scenario(
    prepare=lambda root: None, act=_another_trunk, observe=_known_of_both, resume=_another_trunk
)
