"""A room with a floor and four walls, and the picture of it from any place: one ray per pixel."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.scenes.layers import HEIGHT, WIDTH
from benchmarks.scenes.surfaces import FLOOR_PX, Floats, clouds, draw_wall

WALL_PX_M = 110  # pixels of a wall for each meter
LIGHT_PX_M = 64  # of the map of light on the floor
TOUCHED = 0.5  # share of the light that is left where a thing stands
LEVELS = 6  # of the floor's texture, each half as large as the one before
BAND = 80  # rows of a picture that are made at a time: they fit into a core's cache
_EDGE = 2  # pixels around each level that repeat its other side


@dataclass(frozen=True, eq=False)
class View:
    """Where a camera is and what it looks at; meters, x and y on the floor, z up."""

    eye: NDArray[np.float64]  # (3,)
    axes: NDArray[np.float64]  # (3, 3): the world's directions of right, down and forward
    focal: float  # pixels

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return columns, rows (pixels) and depths (meters) of points (n, 3), as (n, 3)."""
        right, down, depth = self.axes @ (points - self.eye).T
        safe = np.where(depth > 1e-6, depth, np.nan)
        columns, rows = right / safe * self.focal + WIDTH / 2, down / safe * self.focal + HEIGHT / 2
        return np.stack([columns, rows, depth], 1)


def view_of(
    eye: NDArray[np.float64], heading: float, pitch: float, roll: float, focal: float
) -> View:
    """Return a view; angles in radians: heading from x to y, pitch below the horizon."""
    cos, sin = np.cos, np.sin
    forward = np.array([cos(heading) * cos(pitch), sin(heading) * cos(pitch), -sin(pitch)])
    level = np.array([sin(heading), -cos(heading), 0])
    below = np.cross(forward, level)
    right = cos(roll) * level + sin(roll) * below
    return View(eye, np.stack([right, np.cross(forward, right), forward]), focal)


class Room:
    """One robot's room, drawn once."""

    def __init__(self, rng: np.random.Generator, floor: Callable[..., Floats]) -> None:
        """Draw the room; `floor` draws one of FLOORS."""
        self.size = np.array([*rng.uniform(4.5, 9, 2), rng.uniform(2.4, 3.2)])  # m
        self.lamp = self.size * [*rng.uniform(0.25, 0.75, 2), 0.97]
        self.ambient = rng.uniform(0.35, 0.7)  # share of the light that has no direction
        self._tile_m = rng.uniform(1.6, 3.2)
        self._floor, self._begins = _pyramid(np.clip(floor(rng), 0, 255))
        self._walls, self._ceiling = self._draw_walls(rng)
        self._light = self._draw_light(rng)

    def picture(self, view: View, shade: Floats | None = None) -> Floats:
        """Return the room as (HEIGHT, WIDTH, 3), BGR, 0 to 255.

        Args:
            view: where from.
            shade: factor of the light on the floor, like `light_map`; None: nothing stands there.
        """
        light = self._light if shade is None else self._light * shade
        tops = range(0, HEIGHT, BAND)
        return np.concatenate([self._band(_rays(view, top), view, light) for top in tops])

    def light_map(self) -> tuple[int, int]:
        """Return height and width of the map of light on the floor; LIGHT_PX_M for each meter."""
        return self._light.shape[0], self._light.shape[1]

    def shadow(self, shade: Floats, points: NDArray[np.float64]) -> None:
        """Darken `shade` where a thing's points keep light from the floor.

        The lamp's light is kept from where its rays would end; below what nearly touches the floor
        other light hardly comes either, and a thing without that seems to float.
        """
        down = points[:, 2:] / np.maximum(self.lamp[2] - points[:, 2:], 0.2)
        fallen = points[:, :2] + (points[:, :2] - self.lamp[:2]) * down
        low = points[points[:, 2] < 0.2 * points[:, 2].max(), :2]
        for dark, light in ((fallen, self.ambient), (low, TOUCHED)):
            mask = np.ones_like(shade)
            outline = cv2.convexHull((dark * LIGHT_PX_M * 16).astype(np.int32))
            cv2.fillConvexPoly(mask, outline, light, cv2.LINE_AA, 4)
            shade *= mask

    def _draw_walls(self, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return the four walls above each other, each as wide as the longest, and the ceiling."""
        longest, height = (int(m * WALL_PX_M) for m in (self.size[:2].max(), self.size[2]))
        walls = [draw_wall(rng, longest, height) for _ in range(4)]
        fade = np.linspace(rng.uniform(0.9, 1.1), rng.uniform(0.6, 0.9), height)[:, None, None]
        lit = [wall * fade * rng.uniform(0.7, 1.05) for wall in walls]
        ceiling = np.full(3, rng.uniform(150, 235)) * rng.uniform(0.95, 1.05, 3)
        return np.vstack(lit).astype(np.float32), ceiling.astype(np.float32)

    def _draw_light(self, rng: np.random.Generator) -> Floats:
        height, width = (int(self.size[axis] * LIGHT_PX_M) + 1 for axis in (1, 0))
        y, x = (np.arange(n) / LIGHT_PX_M for n in (height, width))
        across = np.hypot(x[None] - self.lamp[0], y[:, None] - self.lamp[1])
        lamp = 1 / (1 + (across / self.lamp[2]) ** 2)
        spots = 1 + rng.uniform(0.02, 0.12) * clouds(rng, height, width)
        return ((self.ambient + (1.1 - self.ambient) * lamp) * spots).astype(np.float32)

    def _band(self, rays: Floats, view: View, light: Floats) -> Floats:
        """Return the colors (BAND, WIDTH, 3) that rays (3, BAND, WIDTH) end at."""
        eye, size = view.eye.astype(np.float32), self.size.astype(np.float32)
        positive = rays >= 0
        with np.errstate(divide="ignore"):  # depth of the side across x, y and z that a ray meets
            reach = [
                np.where(positive[axis], size[axis] - eye[axis], -eye[axis]) / rays[axis]
                for axis in range(3)
            ]
        depth = np.minimum(np.minimum(reach[0], reach[1]), reach[2])
        x, y = (eye[axis] + rays[axis] * depth for axis in (0, 1))
        level = reach[2] <= depth
        is_floor = level & ~positive[2]
        if is_floor.all():
            return self._floor_colors(x, y, depth, view, light)
        is_x = reach[0] <= depth
        number = np.where(is_x, positive[0], positive[1] + np.int8(2))
        made = self._wall_colors(number, np.where(is_x, y, x), eye[2] + rays[2] * depth)
        if is_floor.any():
            floor = self._floor_colors(x, y, depth, view, light)
            np.copyto(made, floor, where=is_floor[..., None])
        if (is_ceiling := level & positive[2]).any():
            made[is_ceiling] = self._ceiling
        return made

    def _wall_colors(self, wall: NDArray[np.int8], along: Floats, z: Floats) -> Floats:
        """Look up the pixels of walls by their number and the place, in meters."""
        height = len(self._walls) // 4
        down = np.clip((self.size[2] - z) * WALL_PX_M, 0, height - 1).astype(np.float32)
        down += wall * np.float32(height)
        return _look_up(self._walls, along * WALL_PX_M, down)

    def _floor_colors(
        self, x: Floats, y: Floats, depth: Floats, view: View, light: Floats
    ) -> Floats:
        """Look up texture and light; what is far has small levels of it, or it would flicker."""
        per_m = FLOOR_PX / self._tile_m
        wide = depth * np.sqrt(np.abs(depth)) * (per_m / view.focal / view.eye[2] ** 0.5)
        level = np.clip(np.log2(np.maximum(wide, 1)) + 0.3, 0, LEVELS - 1).astype(np.int8)
        side = (np.float32(FLOOR_PX) / 2 ** np.arange(LEVELS, dtype=np.float32))[level]
        across, along = x / np.float32(self._tile_m), y / np.float32(self._tile_m)
        across, along = across - np.floor(across), along - np.floor(along)
        made = _look_up(self._floor, self._begins[level] + across * side, along * side + _EDGE)
        made *= _look_up(light, x * LIGHT_PX_M, y * LIGHT_PX_M)[..., None]
        return made


def _look_up(texture: Floats, columns: Floats, rows: Floats) -> Floats:
    made = cv2.remap(texture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(made, np.float32)


def _rays(view: View, top: int) -> Floats:
    """Return the directions of the rays of BAND rows as (3, BAND, WIDTH), one meter deep."""
    columns = (np.arange(WIDTH, dtype=np.float32) + 0.5 - WIDTH / 2) / np.float32(view.focal)
    rows = (np.arange(top, top + BAND, dtype=np.float32) + 0.5 - HEIGHT / 2) / np.float32(
        view.focal
    )
    right, down, forward = view.axes.astype(np.float32)
    return (
        right[:, None, None] * columns
        + down[:, None, None] * rows[:, None]
        + forward[:, None, None]
    )


def _pyramid(texture: Floats) -> tuple[Floats, Floats]:
    """Return the levels of a texture beside each other, and where each begins."""
    levels, begins, left = list[Floats](), list[int](), 0
    for _ in range(LEVELS):
        level = np.pad(texture, ((_EDGE, _EDGE), (_EDGE, _EDGE), (0, 0)), mode="wrap")
        below = FLOOR_PX + 2 * _EDGE - len(level)
        levels.append(np.pad(level, ((0, below), (0, 0), (0, 0))))
        begins.append(left + _EDGE)
        left += level.shape[1]
        texture = cv2.resize(texture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.hstack(levels), np.array(begins, np.float32)
