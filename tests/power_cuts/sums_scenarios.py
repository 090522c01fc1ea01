"""Power cuts while sums are kept: on the server by robot, on the robot what it has told."""

from pathlib import Path

import numpy as np
from power_cuts import Scenario
from recorder import mark

from cloud_server.state.sums.sums_store import ClosedForm, SumsSpace, SumsStore
from edge_agent.training.sent_sums import Sent, SentFile
from fleet_model.sums.class_sums import class_sums
from fleet_model.sums.packing import pack_sums
from fleet_model.types import Weights

SPACE = SumsSpace(trunk="t", labels=("a", "b"), width=6, former={})


def _tensors(seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return pack_sums(class_sums(rng.normal(0, 1, (30, 6)), np.arange(30) % 2, 2, 3))


def _keep(root: Path) -> None:
    store = SumsStore(root / "sums")
    for number, robot in enumerate(("r1", "r2", "r1")):
        store.save(robot, _tensors(number), SPACE)
        mark()
    store.note(ClosedForm(version=2, method="ridge", strength=1.0, robots=("r1", "r2")))
    mark()


def _kept(root: Path) -> tuple[tuple[tuple[str, float], ...], bool]:
    store = SumsStore(root / "sums")
    robots = store.of(SPACE)
    assert sorted(robots) == store.robots()  # none is damaged
    told = tuple((name, float(robots[name].means.sum())) for name in robots)
    return told, store.head() is not None


def _tell(root: Path) -> None:
    file = SentFile(root / "told", "trunk")
    for number in range(3):
        frames = {"a": frozenset(f"{number}{index}" for index in range(12))}
        file.save(Sent("about", frames, _tensors(number)))
        mark()


def _told(root: Path) -> tuple[str, ...] | None:
    sent = SentFile(root / "told", "trunk").load()
    return None if sent is None else tuple(sorted(sent.frames["a"]))


STORED = Scenario(prepare=lambda root: None, act=_keep, observe=_kept, resume=_keep)
TOLD = Scenario(prepare=lambda root: None, act=_tell, observe=_told, resume=_tell)
