"""Write text into pictures with OpenCV alone."""

from typing import TypeAlias

from fleet_model.types import RgbImage

Colour: TypeAlias = tuple[int, int, int]  # RGB

_LONGEST_LABEL = 24  # characters
_CAP_HEIGHT = 21.5  # pixels of a capital at scale 1, in OpenCV 4 and 5


def text_width(text: str, scale: float, thickness: int = 1) -> int:
    """Return the width in pixels."""
    import cv2

    return int(cv2.getTextSize(_plain(text), cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)[0][0])


def write_text(
    canvas: RgbImage,
    text: str,
    position: tuple[float, float],
    scale: float,
    colour: Colour,
    *,
    align: float = 0.0,
    thickness: int = 1,
) -> None:
    """Write text around y; `align` is where x lies in it: 0 left, 0.5 middle, 1 right."""
    import cv2

    x = round(position[0] - align * text_width(text, scale, thickness))
    y = round(position[1] + scale * _CAP_HEIGHT / 2)
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(canvas, _plain(text), (x, y), font, scale, colour, thickness, cv2.LINE_AA)


def shortened(text: str, scale: float, width: float) -> str:
    """Return text that is at most `width` pixels wide, its middle left out if need be."""
    kept = len(text)
    while text_width(text, scale) > width and kept > 4:
        kept -= 1
        text = f"{text[: kept // 2]}...{text[len(text) - kept // 2 :]}"
    return text


def short_label(label: str) -> str:
    """Return a label, or the beginning of a long one."""
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 3] + "..."


def _plain(text: str) -> str:
    """Return text in the only letters that OpenCV's fonts have."""
    return text.encode("ascii", "replace").decode()
