"""Frames with boxes from rendered rooms, one robot's: toys on the floor, seen while it drives.

usage: python -m benchmarks.rendered_scenes OUT --robot hall-1/r1 --frames 240 --seed 1

Robots differ in room, light, camera and in how many of each class they meet; robots of one site
share lamps and the kind of floor. The robot's name and the seed decide every byte. PyBullet is not
among this project's requirements: `render` starts the above in an environment of its own.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.scenes.data_set import (
    TRAINING,
    UNSEEN,
    Shot,
    class_shares,
    command_line,
    drives,
    generator,
    write_set,
)
from benchmarks.scenes.layers import HEIGHT, WIDTH, look, paint
from benchmarks.scenes.lens import Lens, draw_lens, expose
from benchmarks.scenes.room import Room, View, view_of
from benchmarks.scenes.surfaces import FLOORS
from benchmarks.scenes.things import CLUTTER, KINDS, Mesh, Thing, turn_of

LABELS = tuple(KINDS)
MOST = 9  # things with a class in one scene


@dataclass(frozen=True, eq=False)
class Robot:
    """What one robot has of its own."""

    room: Room
    lens: Lens
    height_m: float  # of the camera
    pitch: float  # radians below the horizon
    focal: float  # pixels
    speed_m: float  # between two frames
    crowd: float  # things with a class in a scene, on average; one more than this
    shares: NDArray[np.float64]  # of LABELS
    clutter: tuple[str, ...]  # meshes that have no class


def draw_robot(name: str, seed: int, prior: str = "dirichlet") -> Robot:
    """Draw the robot `site/name`; see the module.

    Args:
        name: of site and robot.
        seed: of the fleet.
        prior: see `class_shares`.
    """
    site = generator(seed, "site", name.partition("/")[0])
    lamps = site.uniform(0.85, 1.15, 3)
    rng = generator(seed, "robot", name)
    height_m = rng.uniform(0.25, 1.1)
    return Robot(
        room=Room(rng, FLOORS[site.integers(len(FLOORS))]),
        lens=draw_lens(rng, lamps),
        height_m=height_m,
        pitch=np.arctan2(height_m, rng.uniform(1.1, 2.6)),
        focal=WIDTH / 2 / np.tan(np.radians(rng.uniform(50, 84)) / 2),
        speed_m=rng.uniform(0.03, 0.16),
        crowd=rng.uniform(1.5, 4),
        shares=class_shares(rng, len(LABELS), prior),
        clutter=tuple(map(str, rng.choice(CLUTTER, 5, replace=False))),
    )


class Meshes:
    """Loads each mesh once."""

    def __init__(self) -> None:
        self._held = dict[str, Mesh]()

    def __getitem__(self, file: str) -> Mesh:
        if file not in self._held:
            texture = next((kind.texture for kind in KINDS.values() if kind.mesh == file), "")
            self._held[file] = Mesh(file, texture)
        return self._held[file]


class Drive:
    """One short way through one scene."""

    def __init__(
        self, robot: Robot, meshes: Meshes, frames: int, rng: np.random.Generator, *, empty: bool
    ) -> None:
        """Draw the way and lay things where its middle looks; `empty`: only clutter."""
        self._robot, self._rng = robot, rng
        room = robot.room.size[:2]
        self._begin = rng.uniform(0.15, 0.85, 2) * room
        centre = room * rng.uniform(0.35, 0.65, 2) - self._begin
        self._heading = np.arctan2(centre[1], centre[0]) + rng.uniform(-0.5, 0.5)
        self._turn = rng.normal(0, 0.03)  # radians for each frame
        self._middle = frames / 2
        self._things = list[Thing]()
        if not empty:
            for _ in range(min(1 + int(rng.poisson(robot.crowd)), MOST)):
                self._lay(meshes, LABELS[rng.choice(len(LABELS), p=robot.shares)])
        for _ in range(int(rng.integers(0, 5))):
            self._lay(meshes, "")
        self._shade = np.ones(robot.room.light_map(), np.float32)
        for thing in self._things:
            robot.room.shadow(self._shade, thing.points)
        self._shade = cv2.GaussianBlur(self._shade, (0, 0), 1.6)

    def shot(self, frame: int) -> Shot:
        """Take the picture of one frame."""
        robot, rng = self._robot, self._rng
        view = self.view(frame, rng.normal(0, (0.004, 0.006, 0.01)))
        near_last = sorted(self._things, key=lambda thing: -np.hypot(*(thing.spot - view.eye[:2])))
        drawn = [
            thing.mesh.draw(thing, view, robot.room.lamp, robot.room.ambient) for thing in near_last
        ]
        seen = look([layer for layer in drawn if layer])
        scene = robot.room.picture(view, self._shade)
        paint(scene, seen.layers)
        return Shot(expose(scene, robot.lens, rng), seen.boxes, seen.shares, seen.left_out)

    def view(self, frame: float, shake: Sequence[float] = (0, 0, 0)) -> View:
        """Return where the camera is at a frame; `shake`: meters up, radians of pitch and roll."""
        robot = self._robot
        heading = self._heading + self._turn * (frame - self._middle)
        ahead = np.array([np.cos(self._heading), np.sin(self._heading)]) * robot.speed_m * frame
        eye = np.array([*(self._begin + ahead), robot.height_m + shake[0]])
        eye[:2] = np.clip(eye[:2], 0.1, robot.room.size[:2] - 0.1)
        return view_of(eye, heading, robot.pitch + shake[1], shake[2], robot.focal)

    def _lay(self, meshes: Meshes, label: str) -> None:
        """Lay one more thing where there is space; where there is none, nothing happens."""
        rng = self._rng
        kind = KINDS.get(label)
        if kind is None:
            mesh, size_m = meshes[str(rng.choice(self._robot.clutter))], rng.uniform(0.1, 0.4)
            lift, side = rng.integers(0, 4, 2) * np.pi / 2
            turn, color = turn_of(lift, rng.uniform(0, 6.28), side), rng.uniform(0.2, 1, 3)
        else:
            mesh, size_m = meshes[kind.mesh], rng.uniform(*kind.size_m)
            side = np.pi / 2 if rng.random() < kind.lies else 0.0
            turn = turn_of(kind.lift, rng.uniform(0, 6.28), side)
            color = rng.uniform(0.25 if kind.painted else 0.8, 1, 3)
        for _ in range(12):
            spot = self._spot()
            thing = Thing(mesh, label, turn, size_m, spot, tuple(color.tolist()))
            if self._fits(thing):
                self._things.append(thing)
                return

    def _spot(self) -> NDArray[np.float64]:
        """Return a place on the floor that the middle frame sees; half lie behind another thing."""
        rng, view = self._rng, self.view(self._middle)
        if self._things and rng.random() < 0.5:
            other = self._things[rng.integers(len(self._things))].spot - view.eye[:2]
            angle, farther = rng.normal(0, 0.06), rng.uniform(1.1, 1.5)
            cos, sin = np.cos(angle), np.sin(angle)
            turned = np.array([[cos, -sin], [sin, cos]]) @ other
            return np.asarray(view.eye[:2] + farther * turned)
        reach = np.exp(rng.uniform(np.log(0.5), np.log(5)))
        side = np.arctan(WIDTH / 2 / view.focal) * 0.9
        heading = self._heading + rng.uniform(-side, side)
        return np.asarray(view.eye[:2] + reach * np.array([np.cos(heading), np.sin(heading)]))

    def _fits(self, thing: Thing) -> bool:
        """Return whether a thing lies in the room, in the picture, and in no other thing."""
        spot, reach = thing.spot, thing.reach_m
        if (spot < reach).any() or (spot > self._robot.room.size[:2] - reach).any():
            return False
        column, row, depth = self.view(self._middle).project(np.array([[*spot, 0.05]]))[0]
        if not (depth > 0.3 and 0 < column < WIDTH and 0 < row < HEIGHT):
            return False
        return all(
            np.hypot(*(spot - other.spot)) > 0.85 * (reach + other.reach_m)
            for other in self._things
        )


def shots(name: str, robot: Robot, frames: int, seed: int) -> Iterator[Shot]:
    """Yield a robot's frames in the order of time."""
    meshes = Meshes()
    for number, (length, empty) in enumerate(drives(frames, generator(seed, "drives", name))):
        rng = generator(seed, "drive", name, number)
        drive = Drive(robot, meshes, length, rng, empty=empty)
        for frame in range(length):
            yield drive.shot(frame)


def write_scenes(
    out: Path, robot: str, frames: int, seed: int, prior: str = "dirichlet"
) -> dict[str, Any]:
    """Write one robot's data set where PyBullet is; return what is in it, see `write_set`."""
    drawn = draw_robot(robot, seed, prior)
    return write_set(out, robot, frames, seed, shots(robot, drawn, frames, seed))


def render(out: Path, robot: str, frames: int, seed: int, prior: str = "dirichlet") -> None:
    """Do the same in a process of the environment with PyBullet, unless the folder is there."""
    from benchmarks.environments import ROOT, environment
    from benchmarks.measure import say

    if out.exists():
        return
    command = [
        str(environment("scenes").bin / "python"), "-m", "benchmarks.rendered_scenes", str(out),
        "--robot", robot, "--frames", str(frames), "--seed", str(seed), "--prior", prior,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        say(done.stderr)
    done.check_returncode()
    say(done.stdout.splitlines()[-1])  # without what PyBullet says


def render_fleet(root: Path, frames: int, unseen_frames: int, seed: int) -> dict[str, Path]:
    """Render all robots that are not there yet, one on each core; return the folder of each.

    Args:
        root: gets a folder `site-name` for each.
        frames: of each robot of TRAINING, which meet classes unequally often.
        unseen_frames: of each robot of UNSEEN, which meet all equally often.
        seed: of the fleet.
    """
    from benchmarks.environments import environment

    environment("scenes")  # once, before several ask for it
    root.mkdir(parents=True, exist_ok=True)
    places = {name: root / name.replace("/", "-") for name in (*TRAINING, *UNSEEN)}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = [
            pool.submit(render, place, name, frames, seed, "dirichlet")
            if name in TRAINING
            else pool.submit(render, place, name, unseen_frames, seed, "uniform")
            for name, place in places.items()
        ]
    for one in made:
        one.result()
    return places


if __name__ == "__main__":
    command_line(__doc__, write_scenes)
