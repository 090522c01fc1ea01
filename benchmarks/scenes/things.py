"""Things on the floor, drawn by PyBullet's software renderer: each alone, in its own small window.

Every mesh has a physics server of its own that holds nothing else. So a window costs what its
pixels cost, and what a thing would show if nothing lay before it is known. PyBullet (zlib license)
has the meshes in its package; nothing of it is copied here.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.scenes.layers import HEIGHT, WIDTH, Layer
from benchmarks.scenes.room import View

_FINE = 64  # pixels: smaller windows are drawn twice as large, and reduced
_LARGEST = 700  # pixels of a window; what is larger is too near
_RIM = 2  # pixels around a window
_NEAR, _FAR = 0.02, 100.0  # of the size of a thing


@dataclass(frozen=True)
class Kind:
    """A mesh and how it lies around."""

    mesh: str  # in pybullet_data
    size_m: tuple[float, float]  # its longest side
    texture: str = ""
    lift: float = 0.0  # radians to turn around x until it stands
    lies: float = 0.0  # share that lie on a side
    painted: bool = False  # any color, else nearly its own


KINDS = {
    "cone": Kind("racecar/meshes/cone.obj", (0.2, 0.45), lies=0.2, painted=True),
    "duck": Kind("duck.obj", (0.16, 0.34), "duckCM.png", lift=np.pi / 2),
    "teddy": Kind("teddy2_VHACD_CHs.obj", (0.22, 0.45), lift=np.pi / 2, painted=True),
    "soccerball": Kind("soccerball.obj", (0.15, 0.28)),
    "mug": Kind("objects/mug.obj", (0.12, 0.24), lies=0.3, painted=True),
    "lego": Kind("lego/lego.obj", (0.12, 0.26), lift=np.pi / 2, lies=0.2, painted=True),
    "cube": Kind("cube.obj", (0.1, 0.24), "cube.png"),
    "domino": Kind("domino/domino.obj", (0.14, 0.28), lies=0.5),
}
CLUTTER = tuple(f"random_urdfs/{number:03d}/{number:03d}.obj" for number in range(0, 400, 10))


@dataclass(frozen=True, eq=False)
class Thing:
    """One thing that lies in a room."""

    mesh: "Mesh"
    label: str  # "" is clutter
    turn: NDArray[np.float64]  # (3, 3), the mesh's axes to the room's
    size_m: float
    spot: NDArray[np.float64]  # (2,), on the floor
    color: tuple[float, float, float]  # factor of R, G, B

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """Its corners in the room, (n, 3) in meters; the lowest touch the floor."""
        turned = self.mesh.points @ self.turn.T * self.size_m
        turned -= [*turned[:, :2].mean(0) - self.spot, turned[:, 2].min()]
        return np.asarray(turned)

    @property
    def reach_m(self) -> float:
        """How far it reaches over the floor from its spot."""
        return float(np.linalg.norm(self.points[:, :2] - self.spot, axis=1).max())


class Mesh:
    """One mesh in its own physics server, one unit long."""

    def __init__(self, file: str, texture: str = "") -> None:
        """Load it.

        Args:
            file: an .obj of pybullet_data.
            texture: a picture of pybullet_data; "": what the mesh's own material says.
        """
        import pybullet
        import pybullet_data

        root = Path(pybullet_data.getDataPath())
        self._bullet, self._client = pybullet, pybullet.connect(pybullet.DIRECT)
        corners = _corners(root / file)
        self._unit = float(np.ptp(corners, 0).max())
        self.points = corners / self._unit  # (n, 3)
        shape = pybullet.createVisualShape(
            pybullet.GEOM_MESH,
            fileName=str(root / file),
            meshScale=[1 / self._unit] * 3,
            rgbaColor=[1, 1, 1, 1],
            physicsClientId=self._client,
        )
        self._body = pybullet.createMultiBody(
            baseVisualShapeIndex=shape, physicsClientId=self._client
        )
        if texture:
            held = pybullet.loadTexture(str(root / texture), physicsClientId=self._client)
            pybullet.changeVisualShape(
                self._body, -1, textureUniqueId=held, physicsClientId=self._client
            )

    def draw(
        self, thing: Thing, view: View, lamp: NDArray[np.float64], ambient: float
    ) -> Layer | None:
        """Return the thing as it is seen, without what lies before it; None: not seen or too near.

        Args:
            thing: with this mesh.
            view: where from.
            lamp: where the light comes from, (3,) in meters.
            ambient: share of the light that comes from everywhere.
        """
        seen = view.project(thing.points)
        if seen[:, 2].min() < 0.05:
            return None
        left, top = (int(np.floor(seen[:, axis].min())) - _RIM for axis in (0, 1))
        wide, high = (
            int(np.ceil(seen[:, axis].max())) + _RIM - begin
            for axis, begin in ((0, left), (1, top))
        )
        outside = left >= WIDTH or top >= HEIGHT or left + wide <= 0 or top + high <= 0
        if outside or max(wide, high) > _LARGEST:
            return None
        fine = 2 if max(wide, high) <= _FINE else 1
        pixels, alpha = self._window(
            thing, view, (left, top, wide, high), fine, (lamp - [*thing.spot, 0], ambient)
        )
        if fine > 1:
            pixels = cv2.resize(
                pixels * alpha[..., None], (wide, high), interpolation=cv2.INTER_AREA
            )
            alpha = cv2.resize(alpha, (wide, high), interpolation=cv2.INTER_AREA)
            pixels /= np.maximum(alpha, 1e-3)[..., None]
        return Layer(thing.label, left, top, pixels, alpha)

    def _window(
        self,
        thing: Thing,
        view: View,
        window: tuple[int, int, int, int],
        fine: int,
        light: tuple[NDArray[np.float64], float],
    ) -> tuple[Any, Any]:
        """Return BGR (high * fine, wide * fine, 3) and 0 or 1 of the window, float32."""
        bullet, client = self._bullet, self._client
        left, top, wide, high = window
        bullet.resetBasePositionAndOrientation(
            self._body, [0, 0, 0], _quaternion(thing.turn), physicsClientId=client
        )
        bullet.changeVisualShape(
            self._body, -1, rgbaColor=[*thing.color, 1], physicsClientId=client
        )
        # The mesh stays where it is, one unit long: the eye comes to it.
        turned = self.points @ thing.turn.T
        origin = np.array([*turned[:, :2].mean(0), turned[:, 2].min()])
        eye = (view.eye - [*thing.spot, 0]) / thing.size_m + origin
        right, down, forward = view.axes
        looks = np.eye(4)
        looks[:3, :3] = right, -down, -forward
        looks[:3, 3] = -looks[:3, :3] @ eye
        per_px = _NEAR / view.focal
        sides = (
            left - WIDTH / 2,
            left + wide - WIDTH / 2,
            HEIGHT / 2 - top - high,
            HEIGHT / 2 - top,
        )
        frustum = bullet.computeProjectionMatrix(*(side * per_px for side in sides), _NEAR, _FAR)
        direction, ambient = light
        _, _, color, _, ids = bullet.getCameraImage(
            wide * fine,
            high * fine,
            looks.T.ravel().tolist(),
            frustum,
            lightDirection=(direction / np.linalg.norm(direction)).tolist(),
            lightAmbientCoeff=ambient,
            lightDiffuseCoeff=1.15 - ambient,
            lightSpecularCoeff=0.1,
            shadow=0,
            renderer=bullet.ER_TINY_RENDERER,
            physicsClientId=client,
        )
        shape = (high * fine, wide * fine)
        rgba = np.frombuffer(bytes(color), np.uint8) if isinstance(color, tuple) else color
        pixels = np.asarray(rgba).reshape(*shape, 4)[..., 2::-1].astype(np.float32)
        return pixels, (np.asarray(ids).reshape(shape) >= 0).astype(np.float32)


def _corners(file: Path) -> NDArray[np.float64]:
    """Return the corners of an .obj file, (n, 3); each once."""
    lines = (line.split() for line in file.read_text(errors="replace").splitlines())
    corners = np.array([words[1:4] for words in lines if words[:1] == ["v"]], np.float64)
    return np.asarray(np.unique(corners, axis=0))


def _quaternion(turn: NDArray[np.float64]) -> list[float]:
    """Return a rotation matrix as (x, y, z, w)."""
    vector, _ = cv2.Rodrigues(turn)
    angle = float(np.linalg.norm(vector))
    axis = vector.ravel() / max(angle, 1e-12)
    return [*(axis * np.sin(angle / 2)).tolist(), float(np.cos(angle / 2))]


def turn_of(lift: float, heading: float, side: float = 0.0) -> NDArray[np.float64]:
    """Return the rotation that stands a mesh up, tips it by `side` and turns it on the floor."""
    stand, _ = cv2.Rodrigues(np.array([lift, 0.0, 0.0]))
    tip, _ = cv2.Rodrigues(np.array([0.0, side, 0.0]))
    spin, _ = cv2.Rodrigues(np.array([0.0, 0.0, heading]))
    return np.asarray(spin @ tip @ stand, np.float64)
