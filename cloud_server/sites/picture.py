"""The picture of a round's clusters: cosines between sites, the elbow, and robots inside sites."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cloud_server.sites.robot_clusters import RobotClusters
from cloud_server.sites.site_models import SiteModels
from fleet_model.types import RgbImage

_WIDTH, _HEIGHT, _TOP = 1500, 800, 130  # pixels
_SIDE, _LEFT = 560, 190  # of the matrix
_NAMED = 24  # sites whose names are written
_ROW, _DOT = 34, 18  # height of a site's line of robots, and the step from robot to robot
_INK, _SOFT, _TEAL, _RED = (29, 25, 22), (109, 97, 89), (117, 122, 11), (24, 35, 180)  # B, G, R


def picture(words: str, models: SiteModels) -> bytes:
    """Return a PNG: sites in the order of their clusters, and the inertia over k.

    Below them are a line for each site whose robots are in clusters, and a dot for each robot.
    """
    import cv2

    parted = {site: found for site, found in models.clusters_of_robots().items() if found.clusters}
    below = _ROW * (min(len(parted), _NAMED) + 2) if parted else 0
    canvas = np.full((_HEIGHT + below, _WIDTH, 3), 255, np.uint8)
    count = len({entry.cluster for entry in models.entries})
    plural = "s" * (count != 1)
    _text(canvas, f"{len(models.entries)} sites, {count} cluster{plural}", 40, 50, 1.2)
    _text(canvas, f"{words}; by {models.found.choose}, on {models.found.on}", 40, 95, 0.6, _SOFT)
    _matrix(canvas, models)
    _elbow(canvas, models.found.inertia, models.found.silhouette, count)
    _robots(canvas, parted)
    _, png = cv2.imencode(".png", canvas, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return png.tobytes()


def _matrix(canvas: RgbImage, models: SiteModels) -> None:
    """Draw cosines from -1, red, over 0, white, to 1, teal; lines part the clusters."""
    import cv2

    cosines, names = models.similarity, models.found.similarity_of
    if not len(cosines):
        return
    share = np.abs(cosines)[..., None]
    ink = np.where(cosines[..., None] > 0, _TEAL, _RED)
    colors = (255 + (ink - 255) * share).astype(np.uint8)
    side = (_SIDE, _SIDE)
    area = canvas[_TOP : _TOP + _SIDE, _LEFT : _LEFT + _SIDE]
    area[...] = cv2.resize(colors, side, interpolation=cv2.INTER_NEAREST)
    cluster = {entry.name: entry.cluster for entry in models.entries}
    of = [cluster.get(name, -1) for name in names]
    for row, name in enumerate(names):
        y = _TOP + round(_SIDE * row / len(names))
        if row and of[row] != of[row - 1]:
            x = _LEFT + y - _TOP
            cv2.line(canvas, (_LEFT, y), (_LEFT + _SIDE, y), _INK, 2)
            cv2.line(canvas, (x, _TOP), (x, _TOP + _SIDE), _INK, 2)
        if len(names) <= _NAMED:
            _text(canvas, name[:16], 40, y + _SIDE // (2 * len(names)) + 5, 0.5)
    end = _TOP + _SIDE + 40
    _text(
        canvas, "cosine of sites, from their mean: -1 red, 0 white, 1 teal", _LEFT, end, 0.5, _SOFT
    )


def _elbow(
    canvas: RgbImage, inertia: Mapping[int, float], silhouette: Mapping[int, float], count: int
) -> None:
    import cv2

    left, right, bottom = 900, _WIDTH - 80, _TOP + _SIDE
    cv2.line(canvas, (left, bottom), (right, bottom), _SOFT, 2)
    _text(canvas, "inertia over the number of clusters; below it the silhouette", left, 115, 0.6)
    top, most = max(inertia.values(), default=0.0) or 1.0, max(inertia, default=1)
    step = (right - left) / most
    points: Sequence[tuple[int, int]] = [
        (round(left + step * (k - 0.5)), round(bottom - (_SIDE - 40) * value / top))
        for k, value in sorted(inertia.items())
    ]
    cv2.polylines(canvas, [np.array(points, np.int32)], False, _TEAL, 3, cv2.LINE_AA)
    for k, (x, y) in zip(sorted(inertia), points, strict=True):
        cv2.circle(canvas, (x, y), 8, _RED if k == count else _TEAL, -1, cv2.LINE_AA)
        _text(canvas, f"{k}", x - 5, bottom + 30, 0.6)
        if k in silhouette:
            _text(canvas, f"{silhouette[k]:.2f}", x - 20, bottom + 60, 0.55, _SOFT)


def _robots(canvas: RgbImage, parted: Mapping[str, RobotClusters]) -> None:
    """Draw a dot for each robot, filled in every other cluster; a bar parts clusters."""
    import cv2

    if parted:
        more = f", {_NAMED} of {len(parted)} sites" if len(parted) > _NAMED else ""
        _text(canvas, f"robots of a site in their clusters{more}", 40, _HEIGHT + 10, 0.6)
    for row, (site, found) in enumerate(list(parted.items())[:_NAMED], 1):
        y, x = _HEIGHT + 10 + row * _ROW, _LEFT + 20
        _text(canvas, site[:16], 40, y + 5, 0.5)
        for number, cluster in enumerate(found.clusters):
            if number:
                cv2.line(canvas, (x, y - 12), (x, y + 12), _INK, 2)
                x += _DOT
            color, fill = (_RED, 2) if number % 2 else (_TEAL, -1)
            for _ in range(min(len(cluster.robots), (_WIDTH - x - 80) // _DOT)):
                cv2.circle(canvas, (x, y), 6, color, fill, cv2.LINE_AA)
                x += _DOT
            _text(canvas, f"{len(cluster.robots)}", x, y + 5, 0.5, _SOFT)
            x += 2 * _DOT


def _text(canvas: RgbImage, text: str, x: int, y: int, scale: float, color: Any = _INK) -> None:
    import cv2

    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, color, 1, cv2.LINE_AA)
