"""The box around an outline: polygons, or a mask of runs as pycocotools packs it."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

_MOST_PIXELS = 1 << 31  # of a mask; beyond, its numbers are no picture's
_OFFSET, _MORE, _SIGN = 48, 0x20, 0x10  # of a character that holds 5 bits of a run


def outline_corners(segmentation: Any) -> tuple[int | Decimal, ...] | None:
    """Return x, y, width and height of what is inside; None for no outline, or an empty one.

    Args:
        segmentation: a list of polygons, or {"size": [height, width], "counts": runs}: lengths of
            runs of 0 and 1 in turn, column by column, as numbers or packed into characters.

    Raises:
        ValueError: it is neither.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        return _mask_corners(segmentation)
    if not isinstance(segmentation, list):
        raise ValueError("the segmentation is neither polygons nor a mask")
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    if not all(isinstance(polygon, list) and len(polygon) % 2 == 0 for polygon in polygons):
        raise ValueError("the segmentation has a polygon that is no list of x, y, x, y ...")
    xs = [_finite(x) for polygon in polygons for x in polygon[::2]]
    ys = [_finite(y) for polygon in polygons for y in polygon[1::2]]
    return (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)) if xs else None


def _finite(value: Any) -> int | Decimal:
    is_number = isinstance(value, int | Decimal) and not isinstance(value, bool)
    if not is_number or abs(Decimal(value).adjusted()) > 300:
        raise ValueError("the segmentation has a coordinate that is no number")
    number: int | Decimal = value
    return number


def _mask_corners(mask: dict[str, Any]) -> tuple[int, ...] | None:
    size, counts = mask.get("size"), mask.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(map(_is_count, size))):
        raise ValueError("the mask has no size [height, width]")
    height, width = size
    if isinstance(counts, str):
        counts = list(_unpacked(counts))
    if not isinstance(counts, list) or not all(map(_is_count, counts)):
        raise ValueError("the mask has no counts")
    if sum(counts) > height * width or height * width > _MOST_PIXELS:
        raise ValueError(f"the mask's runs do not fit into {width} x {height} pixels")
    left, top, right, bottom, at = width, height, 0, 0, 0
    for number, count in enumerate(counts):
        first, last, at = at, at + count - 1, at + count
        if number % 2 and count:
            left, right = min(left, first // height), max(right, last // height + 1)
            is_one_column = first // height == last // height
            top = min(top, first % height if is_one_column else 0)
            bottom = max(bottom, last % height + 1 if is_one_column else height)
    return (left, top, right - left, bottom - top) if right else None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _unpacked(text: str) -> Iterator[int]:
    """Yield the runs of a packed mask; from the fourth on, the difference to the one before last.

    Format: rleFrString in cocodataset/cocoapi, common/maskApi.c.
    """
    before: list[int] = []
    value, bits = 0, 0
    for character in text:
        part = ord(character) - _OFFSET
        if not 0 <= part < 2 * _MORE or bits > 60:
            raise ValueError("the mask's counts are no packed runs")
        value |= (part & (_MORE - 1)) << bits
        bits += 5
        if part & _MORE:
            continue
        if part & _SIGN:
            value -= 1 << bits
        if len(before) > 2:
            value += before[-2]
        before = [*before[-2:], value]
        yield value
        value, bits = 0, 0
    if bits:
        raise ValueError("the mask's counts end within a run")
