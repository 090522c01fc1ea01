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
from collections.abc import Sequence
from decimal import Context, Decimal, Inexact, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from fleet_model.types import Box

# Longer numbers are refused: 10 ** 999999999 would never end. A double needs 1,100 characters at
# the very most, and shares of a picture a few more.
_LONGEST = 1500
_LARGEST_EXPONENT = 1500
_MOST_PLACES = 300  # 10**300 is a double
_EXACT = Context(4 * _LONGEST, traps=[Inexact, InvalidOperation])
_TOO_LARGE = "a number beyond all doubles"
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
        raise ValueError(_TOO_LARGE) from None


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


def coco_corners(numbers: Sequence[int | Decimal]) -> tuple[float, float, float, float]:
    """Return x0, y0, x1, y1 of x, y, width, height in pixels.

    Raises:
        ValueError: one of them is no number, or one that no double comes near.
    """
    x, y, w, h = map(_decimal, numbers)
    try:
        corners = float(x), float(y), float(_EXACT.add(x, w)), float(_EXACT.add(y, h))
    except (Inexact, InvalidOperation):  # not a number, or thousands of digits
        raise ValueError("a number that no double comes near") from None
    if not all(map(math.isfinite, corners)):
        raise ValueError(_TOO_LARGE)
    return corners


def coco_numbers(box: Box) -> tuple[str, str, str, str]:
    """Return the texts from which `coco_corners` makes the same box.

    The size is the exact difference of the corners' shortest texts, so the sum is again the text.
    """
    x0, y0, x1, y1 = (_scaled(repr(corner)) for corner in (box.x0, box.y0, box.x1, box.y1))
    return _text(*x0), _text(*y0), _text(*_difference(x1, x0)), _text(*_difference(y1, y0))


@lru_cache(1 << 14)  # 4 MB: whole pixels, edges and corners of equal pictures come again and again
def shortest_share(value: float, whole: int) -> Scaled:
    """Return the decimal with the fewest places whose product with `whole` rounds to `value`.

    With enough places to be sure, one exact division gives the digits. How many of them may go,
    from behind, is seen in floating point, unless that is too close to call.
    """
    over, under = value.as_integer_ratio()
    under *= whole
    unit = math.ulp(value)
    places = math.ceil(math.log10(whole) - math.log10(unit))
    if (
        not 0 < places < _MOST_PLACES or abs(over).bit_count() == 1
    ):  # below a power of 2, units are half
        return _searched_share(value, whole)
    digits, rest = divmod(over * 10**places, under)
    part = rest / under  # the share is digits + part, in units of the last place
    allowed = unit * 10**places / whole / 2  # so far from it, a decimal still rounds to the value
    ten, off = 1, 0.0
    while off < allowed * 0.999 and places >= 0:
        ten, places = ten * 10, places - 1
        last = digits % ten
        off = last + part if last < ten // 2 else ten - last - part
    if off < allowed * 1.001 or allowed < 0.501 or abs(part - 0.5) < 0.001:
        return _searched_share(value, whole)
    ten, places = ten // 10, places + 1
    return Scaled((digits + ten // 2 + (ten == 1 and part > 0.5)) // ten, places)


def _searched_share(value: float, whole: int) -> Scaled:
    """Return the same for any value, by trying: more places always come nearer."""
    over, under = value.as_integer_ratio()
    few, enough = 0, max(0, math.ceil(math.log10(whole) - math.log10(math.ulp(value)))) + 1
    while few < enough:
        middle = (few + enough) // 2
        digits = round(Fraction(over * 10**middle, under * whole))
        try:
            fits = digits * whole / 10**middle == value  # Python divides integers exactly
        except OverflowError:
            fits = False
        if fits:
            enough = middle
        else:
            few = middle + 1
    return Scaled(round(Fraction(over * 10**enough, under * whole)), enough)


def _center_and_size(low: float, high: float, whole: int) -> tuple[str, str]:
    (a, places), (b, b_places) = shortest_share(low, whole), shortest_share(high, whole)
    if places < b_places:
        a, places = a * 10 ** (b_places - places), b_places
    elif places > b_places:
        b *= 10 ** (places - b_places)
    return _text((a + b) * 5, places + 1), _text(b - a, places)


def _decimal(number: int | Decimal) -> Decimal:
    """Return a number of JSON, if arithmetic with it ends."""
    if isinstance(number, bool) or not isinstance(number, int | Decimal):
        raise ValueError(f"{str(number)[:40]} is no number")
    exactly = number if isinstance(number, Decimal) else Decimal(number)
    if abs(exactly.adjusted()) > _LARGEST_EXPONENT:
        raise ValueError(f"{str(number)[:40]} is no number")
    return exactly


def _difference(a: Scaled, b: Scaled) -> Scaled:
    decimals = max(a.decimals, b.decimals)
    digits = a.digits * 10 ** (decimals - a.decimals) - b.digits * 10 ** (decimals - b.decimals)
    return Scaled(digits, decimals)


def _scaled(text: str) -> Scaled:
    sign, digits, exponent = Decimal(text).as_tuple()
    assert isinstance(exponent, int), text
    number = int("".join(map(str, digits))) * (-1 if sign else 1)
    return Scaled(number * 10**exponent, 0) if exponent > 0 else Scaled(number, -exponent)


def _text(digits: int, decimals: int) -> str:
    """Return plain digits: some YOLO readers know no exponents."""
    if not decimals:
        return str(digits)
    text = str(digits).zfill(decimals + 1 + (digits < 0))
    return f"{text[:-decimals]}.{text[-decimals:]}".rstrip("0").rstrip(".")
