"""Twelve camera robots at four sites, as features of the demo's trunk: what makes sites differ.

    swapped   hall-3 and hall-4 call circles squares and squares circles: P(label | image) differs
    look      the same labels everywhere; hall-3 and hall-4 have dim, blue lamps
    one       twelve robots of one hall, dealt to four sites: one distribution

In `swapped` and `look` each hall has walls and lamps of its own, each robot a camera and a route
(Dirichlet 0.5 over the labels). What a robot measures with, no robot trains on.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.environments import ROOT
from cloud_server.state.directory import ServerDirectory
from edge_agent.examples.example_store import ExampleStore
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.engine import StagedModel
from fleet_model.signatures import FEATURES, TRUNK
from fleet_model.workload import rebuild

WORLDS = ("swapped", "look", "one")
SITES = ("hall-1", "hall-2", "hall-3", "hall-4")
TRUTH = np.array([0, 0, 1, 1])  # group of each site, in `swapped` and `look`
EACH = 3  # robots of a site
SWAPPED = (0, 1)  # circle and square
DIM = (0.35, 0.45, 0.7)  # R, G, B: what is left of the light
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Labeled:
    """Features (n, 1280) float32 with their classes (n,)."""

    features: Floats
    classes: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SiteRobot:
    """One robot: what it trains on and what it measures with."""

    name: str
    site: str
    train: Labeled
    held_out: Labeled


def world(work: Path, kind: str, seed: int, frames: int) -> Sequence[SiteRobot]:
    """Return the robots of one of WORLDS; bags and features are made unless they are there."""
    if kind == "one":
        names = [f"hall-1/r{number}" for number in range(1, len(SITES) * EACH + 1)]
        sites = [site for site in SITES for _ in range(EACH)]
    else:
        names = [f"{site}/r{number}" for site in SITES for number in range(1, EACH + 1)]
        sites = [name.partition("/")[0] for name in names]
    folder = work / f"bags-{frames}" / str(seed)
    _record(folder, names, frames, seed)
    robots = []
    for name, site in zip(names, sites, strict=True):
        group = TRUTH[SITES.index(site)]
        dim = kind == "look" and group == 1
        arrays = _features(work / "lite0" / "server", folder, name, dim=dim)
        robot = _robot(name, site, arrays)
        robots.append(_swapped(robot) if kind == "swapped" and group == 1 else robot)
    return robots


def _record(folder: Path, names: Sequence[str], frames: int, seed: int) -> None:
    if missing := [name for name in names if not (folder / name).exists()]:
        subprocess.run(
            [
                sys.executable, ROOT / "datasets" / "robot_camera.py", folder, "--robots",
                ",".join(missing), "--frames", str(frames), "--seed", str(seed),
            ],
            check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def _features(server: Path, folder: Path, name: str, *, dim: bool) -> Mapping[str, Any]:
    """Return a robot's features, classes and which are held out; made once."""
    cached = folder / f"{name.replace('/', '-')}{'-dim' if dim else ''}.npz"
    if not cached.exists():
        model = ServerDirectory(server).model
        workload = rebuild(parse_trainer((model / TRAINER).read_bytes()).workload)
        trunk = StagedModel([model / TRUNK], workload.task.inputs, None)
        labels = workload.task.classes
        own = list(ExampleStore([folder / name], "", "/camera/label", labels).examples())
        light = np.array(DIM if dim else (1, 1, 1), np.float32)
        seen = [workload.encode(one.raw).inputs["image"] * light for one in own]
        made = cached.with_suffix(".part.npz")
        np.savez(
            made,
            features=np.stack([trunk({"image": one})[FEATURES].reshape(-1) for one in seen]),
            classes=np.array([workload.target(one).tensors["class"] for one in own], np.int64),
            held_out=np.array([one.held_out for one in own]),
        )
        made.rename(cached)
    with np.load(cached) as stored:
        return dict(stored)


def _robot(name: str, site: str, arrays: Mapping[str, Any]) -> SiteRobot:
    held = arrays["held_out"]
    train, held_out = (
        Labeled(arrays["features"][rows], arrays["classes"][rows]) for rows in (~held, held)
    )
    return SiteRobot(name=name, site=site, train=train, held_out=held_out)


def _swapped(robot: SiteRobot) -> SiteRobot:
    """Return the robot as people label at its site: two classes have each other's names."""
    names = np.arange(4)
    names[list(SWAPPED)] = SWAPPED[::-1]
    train, held_out = (
        Labeled(part.features, names[part.classes]) for part in (robot.train, robot.held_out)
    )
    return replace(robot, train=train, held_out=held_out)
