"""Read a large JSON object piece by piece: the file of COCO's training labels has 450 MB."""

import json
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from fleet_model.errors import FrameError
from fleet_model.files.folders import unreadable
from fleet_model.files.text import encoding_of

T = TypeVar("T")
_CHUNK = 1 << 20  # bytes
_LARGEST_ITEM = 64 << 20  # characters; beyond that it is no item but damage
_LONGEST_INTEGER = 400  # digits: Python takes the square of the time for more


def read_members(path: Path, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (key, value) of the object in a JSON file; of an array, (key, item) for each item.

    Numbers that are no integers are Decimal, so their digits are all there. `where` is what errors
    call the file, else its bare name.

    Raises:
        FrameError: the file cannot be read, or from some place on is no JSON ("damaged file").
    """
    yield from _read(path, where or path.name, _members)


def read_items(
    path: Path, where: str = "", encoding: str = "", errors: str = "replace"
) -> Iterator[Any]:
    """Yield the items of the array in a JSON file; as `read_members`.

    Args:
        path: the file.
        where: see there.
        encoding: of its text; "" finds it out.
        errors: what becomes of bytes that are none of it, as for bytes.decode.
    """
    yield from _read(path, where or path.name, _items, encoding, errors)


def _read(
    path: Path,
    name: str,
    parts: Callable[["_Text"], Iterator[T]],
    encoding: str = "",
    errors: str = "replace",
) -> Iterator[T]:
    try:
        with path.open("rb") as stream:
            yield from parts(_Text(stream, name, encoding, errors))
    except OSError as error:
        raise unreadable(name, error) from None


class _Text:
    """The part of the file that is in memory."""

    def __init__(self, stream: BinaryIO, name: str, encoding: str, errors: str) -> None:
        self._stream, self._name = stream, name
        found = encoding_of(stream.read(4))
        stream.seek(0)
        self._decode = getincrementaldecoder(encoding or found)(errors).decode
        self._json = json.JSONDecoder(parse_float=Decimal, parse_int=_integer)
        self._text, self._at, self._dropped, self._ended = "", 0, 0, False

    def peek(self) -> str:
        """Return the next character that is no white space; "" at the end."""
        while True:
            rest = self._text[self._at : self._at + 64]
            stripped = rest.lstrip()
            self._at += len(rest) - len(stripped)
            if stripped:
                return stripped[0]
            if not rest and not self._more():
                return ""

    def take(self, expected: str) -> str:
        """Return the next character, which has to be one of `expected`."""
        found = self.peek()
        if not found or found not in expected:
            raise self.damaged(f"expected one of {expected} instead of {found!r}")
        self._at += 1
        return found

    def value(self) -> Any:
        """Return the next value."""
        self.peek()
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > _LARGEST_ITEM or not self._more():
                    raise self.damaged(error.msg) from None
            except RecursionError:
                raise self.damaged("nested too deeply") from None
            else:
                if end < len(self._text) or not self._more():  # a number may continue
                    self._at = end
                    return value

    def damaged(self, why: str) -> FrameError:
        """Return the error for what is wrong here."""
        position = self._dropped + self._at
        kind = "cut file" if self._ended and self._at >= len(self._text) else "damaged file"
        return FrameError(f"{self._name} at character {position}: {why}", kind)

    def _more(self) -> bool:
        rest = self._text[self._at :]
        chunk = self._stream.read(max(_CHUNK, len(rest)))
        self._ended = not chunk
        self._dropped += self._at
        self._text, self._at = rest + self._decode(chunk, not chunk), 0
        return bool(chunk)


def _members(text: _Text) -> Iterator[tuple[str, Any]]:
    text.take("{")
    if text.peek() == "}":
        return
    while True:
        key = text.value()
        if not isinstance(key, str):
            raise text.damaged("a key that is no text")
        text.take(":")
        if text.peek() == "[":
            for item in _items(text):
                yield key, item
        else:
            yield key, text.value()
        if text.take(",}") == "}":
            return


def _items(text: _Text) -> Iterator[Any]:
    text.take("[")
    if text.peek() == "]":
        text.take("]")
        return
    while True:
        yield text.value()
        if text.take(",]") == "]":
            return


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else Decimal(digits)
