"""The text of files that people and their tools wrote: UTF-8, UTF-16, or an old Windows' own."""

import codecs
import re
from collections.abc import Callable, Iterator
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import IO

from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.files.folders import unreadable

_CHUNK = 1 << 20  # bytes
_LARGEST = 64 << 20  # bytes of one text file; 500,000 boxes of YOLO
GUESSED = "text not in UTF-8"
_MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_HALVES = re.compile("[\ud800-\udfff]")
AS_WINDOWS = "fleetlearn-as-windows-1252"  # for bytes.decode, see `_as_windows`


def _as_windows(error: UnicodeError) -> tuple[str, int]:
    """Read bytes that are no UTF-8 as those of an old Windows."""
    assert isinstance(error, UnicodeDecodeError)
    wrong = error.object[error.start : error.end]
    return wrong.decode("cp1252", "replace"), error.end


codecs.register_error(AS_WINDOWS, _as_windows)


def encoding_of(head: bytes) -> str:
    """Return the codec of a text by its first four bytes; UTF-8 where nothing else shows.

    Without a mark, UTF-16 shows by its zeros: such a text begins with a letter or a digit.
    """
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    if len(head) > 1 and (head[0] == 0) != (head[1] == 0):
        return "utf-16-be" if head[0] == 0 else "utf-16-le"
    return "utf-8"


def is_utf8(file: Path) -> bool:
    """Return whether all bytes of a file are UTF-8, or of an encoding that shows itself."""
    with file.open("rb") as stream:
        if encoding_of(stream.read(4)) != "utf-8":
            return True
        stream.seek(0)
        decode = codecs.getincrementaldecoder("utf-8")("surrogatepass").decode
        try:
            while chunk := stream.read(_CHUNK):
                decode(chunk)
            decode(b"", True)
        except UnicodeDecodeError:
            return False
    return True


def read_bounded(file: Path, where: str, largest: int) -> bytes:
    """Return the content of a file of `largest` bytes at most; FrameError names it by `where`."""
    try:
        with file.open("rb") as stream:
            content = stream.read(largest + 1)
    except OSError as error:
        raise unreadable(where, error) from None
    if len(content) > largest:
        raise FrameError(f"{where}: has more than {largest >> 20} MiB", "bad label file")
    return content


def read_text(file: Path, where: str, damage: DamageLog) -> str:
    """Return the whole text of a small file.

    Args:
        file: the file.
        where: names it in errors and damage.
        damage: counts a text whose encoding had to be guessed.

    Raises:
        FrameError: it cannot be read, or is too large for a text that people write.
    """
    content = read_bounded(file, where, _LARGEST)
    encoding = encoding_of(content[:4])
    if encoding == "utf-8":
        return _utf8(content, where, damage)
    return content.decode(encoding, "replace")


def _open(path: Path) -> IO[bytes]:
    return path.open("rb")


def text_lines(
    path: Path,
    damage: DamageLog | None,
    *,
    opened: Callable[[Path], IO[bytes]] = _open,
    encoding: str = "",
    longest: int = 0,
) -> Iterator[str]:
    """Yield the lines of a file with their ends, whichever they are, in constant memory.

    Args:
        path: the file; its bare name stands in damage.
        damage: counts lines whose encoding had to be guessed; None does not.
        opened: gives the file's bytes: a compressed file has other ones than it seems.
        encoding: of the text; "" finds it out.
        longest: characters of a line; a longer one comes in pieces of so many. 0: as long as it is.

    Raises:
        OSError: it cannot be read.
    """
    if not encoding:
        with opened(path) as stream:
            encoding = encoding_of(stream.read(4))
    is_utf8 = encoding.startswith("utf-8")
    errors = "surrogateescape" if is_utf8 else "replace"
    with (
        opened(path) as stream,
        TextIOWrapper(stream, encoding=encoding, errors=errors, newline="") as text,
    ):
        lines = iter(partial(text.readline, longest), "") if longest else text
        for number, line in enumerate(lines, start=1):
            if is_utf8 and _HALVES.search(line):
                content = line.encode("utf-8", "surrogateescape")
                yield _utf8(content, f"{path.name} line {number}", damage)
            else:
                yield line


def _utf8(content: bytes, where: str, damage: DamageLog | None) -> str:
    """Decode UTF-8; halves of characters, which names of files may have, stay as they are."""
    try:
        return content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        if b"\0" in content:  # no text at all
            return content.decode("utf-8", "replace")
        if damage is not None:  # a spreadsheet in western Europe saved it
            damage.add(GUESSED, f"{where}; read as Windows-1252")
        return content.decode("cp1252", "replace")
