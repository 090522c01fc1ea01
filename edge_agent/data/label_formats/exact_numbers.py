"""Box numbers as the texts of other formats, without a changed bit on the way back.

YOLO has the center and the size as shares of the picture, COCO a corner and the size in pixels.
With 64-bit arithmetic each step would round. Here texts are read as the exact rational numbers
that they spell, corners are computed exactly and rounded once; and the texts are chosen so that
this gives back the same 64 bits: for any corner c and any width W some decimal d has d * W nearer
to c than to any other double, and from two such decimals center and size follow exactly. (Only the
sign of a negative zero is lost.)
"""

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from fleet_model.types import Box

# Longer numbers are refused: 10 ** 999999999 would never end. A double needs 1,100 characters at
# the very most, and shares of a picture a few more.
_LONGEST = 1500
_LARGEST_EXPONENT = 1500
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d{1,4}))?", re.ASCII)


class Scaled(NamedTuple):
    """A decimal number: digits / 10 ** places."""

    digits: int
    decimals: int


def exact(text: str) -> Fraction:
    """Return the number that a text spells.

    Raises:
        ValueError: it spells none, or one that no double comes near.
    """
    match = _NUMBER.fullmatch(text) if len(text) <= _LONGEST else None
    if not match or abs(int(match[1] or 0)) > _LARGEST_EXPONENT:
        raise ValueError(f"{text[:40]!r} is no number")
    return Fraction(text)


def rounded(value: Fraction) -> float:
    """Return the nearest double; raises ValueError where it would be infinite."""
    try:
        return value.numerator / value.denominator  # Python divides integers exactly
    except OverflowError:
        raise ValueError("a number beyond all doubles") from None


def yolo_box(label: str, numbers: tuple[Fraction, ...], width: int, height: int) -> Box:
    """Return the box of x_center, y_center, width, height as shares of the picture."""
    x, y, w, h = numbers
    return Box(
        label=label,
        x0=rounded((x - w / 2) * width),
        y0=rounded((y - h / 2) * height),
        x1=rounded((x + w / 2) * width),
        y1=rounded((y + h / 2) * height),
    )


def yolo_numbers(box: Box, width: int, height: int) -> tuple[str, str, str, str]:
    """Return the texts from which `yolo_box` makes the same box: the shortest corners' middle."""
    x, w = _center_and_size(box.x0, box.x1, width)
    y, h = _center_and_size(box.y0, box.y1, height)
    return x, y, w, h


def coco_box(label: str, numbers: tuple[Fraction, ...]) -> Box:
    """Return the box of x, y, width, height in pixels."""
    x, y, w, h = numbers
    return Box(label=label, x0=rounded(x), y0=rounded(y), x1=rounded(x + w), y1=rounded(y + h))


def coco_numbers(box: Box) -> tuple[str, str, str, str]:
    """Return the texts from which `coco_box` makes the same box.

    The size is the exact difference of the corners' shortest texts, so the sum is again the text.
    """
    x0, y0, x1, y1 = (_scaled(repr(corner)) for corner in (box.x0, box.y0, box.x1, box.y1))
    return _text(x0), _text(y0), _text(_difference(x1, x0)), _text(_difference(y1, y0))


def shortest_share(value: float, whole: int) -> Scaled:
    """Return the decimal with the fewest places whose product with `whole` rounds to `value`."""
    target = Fraction(value)
    enough = max(0, math.ceil(math.log10(whole) - math.log10(math.ulp(value)))) + 1
    few = 0
    while few < enough:  # the nearest decimal only comes nearer with more places
        middle = (few + enough) // 2
        if _fits(target, value, whole, middle):
            enough = middle
        else:
            few = middle + 1
    return Scaled(round(target * 10**enough / whole), enough)


def _fits(target: Fraction, value: float, whole: int, decimals: int) -> bool:
    digits = round(target * 10**decimals / whole)
    try:
        return rounded(Fraction(digits * whole, 10**decimals)) == value
    except ValueError:
        return False


def _center_and_size(low: float, high: float, whole: int) -> tuple[str, str]:
    first, last = shortest_share(low, whole), shortest_share(high, whole)
    decimals = max(first.decimals, last.decimals)
    a, b = (share.digits * 10 ** (decimals - share.decimals) for share in (first, last))
    return _text(Scaled((a + b) * 5, decimals + 1)), _text(Scaled(b - a, decimals))


def _difference(a: Scaled, b: Scaled) -> Scaled:
    decimals = max(a.decimals, b.decimals)
    digits = a.digits * 10 ** (decimals - a.decimals) - b.digits * 10 ** (decimals - b.decimals)
    return Scaled(digits, decimals)


def _scaled(text: str) -> Scaled:
    sign, digits, exponent = Decimal(text).as_tuple()
    assert isinstance(exponent, int), text
    number = int("".join(map(str, digits))) * (-1 if sign else 1)
    return Scaled(number * 10**exponent, 0) if exponent > 0 else Scaled(number, -exponent)


def _text(number: Scaled) -> str:
    """Return plain digits: some YOLO readers know no exponents."""
    digits, decimals = number
    while decimals and digits % 10 == 0:
        digits, decimals = digits // 10, decimals - 1
    sign, text = "-" if digits < 0 else "", str(abs(digits)).rjust(decimals + 1, "0")
    return f"{sign}{text[:-decimals]}.{text[-decimals:]}" if decimals else f"{sign}{text}"
