"""The picture of departments.py: how alike departments are, and what each arm has learned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud_server.simulation.chart import round_up

_WIDTH, _HEIGHT, _TOP, _SIDE, _LEFT = 1400, 640, 110, 420, 150  # pixels
_BARS, _STEP, _BROAD = 760, 150, 90  # where bars begin, from one to the next, how broad
_INK, _SOFT, _TEAL, _RED = (29, 25, 22), (109, 97, 89), (117, 122, 11), (24, 35, 180)  # B, G, R
Canvas = NDArray[np.uint8]


def write_picture(
    path: Path, similarity: Mapping[str, Any], perplexity: Mapping[str, float]
) -> None:
    """Write a PNG.

    Args:
        path: of the file.
        similarity: "sites" (n names) and "cosines" (n, n) between their models, from their mean.
        perplexity: of each arm, the mean of departments.
    """
    import cv2

    canvas = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    _matrix(canvas, similarity["sites"], np.array(similarity["cosines"], np.float64))
    _bars(canvas, perplexity)
    done, png = cv2.imencode(".png", canvas, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert done
    path.write_bytes(png.tobytes())


def _matrix(canvas: Canvas, names: list[str], cosines: NDArray[np.float64]) -> None:
    import cv2

    _text(canvas, "cosine of departments: -1 red, 0 white, 1 teal", 30, 50)
    ink = np.where(cosines[..., None] > 0, _TEAL, _RED)
    colors = (255 + (ink - 255) * np.abs(cosines)[..., None]).astype(np.uint8)
    size = (_SIDE, _SIDE)
    shown = cv2.resize(colors, size, interpolation=cv2.INTER_NEAREST)
    canvas[_TOP : _TOP + _SIDE, _LEFT : _LEFT + _SIDE] = shown
    cell = _SIDE / len(names)
    for row, name in enumerate(names):
        middle = round((row + 0.5) * cell)
        _text(canvas, name[:12], 30, _TOP + middle + 6)
        for column in range(len(names)):
            x = _LEFT + round((column + 0.5) * cell) - 22
            _text(canvas, f"{cosines[row, column]:.2f}", x, _TOP + middle + 6, 0.5)


def _bars(canvas: Canvas, perplexity: Mapping[str, float]) -> None:
    import cv2

    _text(canvas, "perplexity of answers, mean of departments; lower is better", _BARS - 30, 50)
    top, bottom = round_up(max(perplexity.values())), _TOP + _SIDE
    for number, (arm, value) in enumerate(perplexity.items()):
        x, y = _BARS + number * _STEP, bottom - round(_SIDE * value / top)
        cv2.rectangle(canvas, (x, y), (x + _BROAD, bottom), _TEAL, -1)
        _text(canvas, f"{value:.4g}", x, y - 10)
        _text(canvas, arm, x, bottom + 30)
    cv2.line(canvas, (_BARS - 30, bottom), (_WIDTH - 40, bottom), _SOFT, 2)


def _text(canvas: Canvas, text: str, x: int, y: int, scale: float = 0.6) -> None:
    import cv2

    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, _INK, 1, cv2.LINE_AA)
