"""Unpack zstd, lz4 and bz2 without trusting any size that damaged bytes claim."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from fleet_model.errors import FrameError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
LZ4_MAGIC = b"\x04\x22\x4d\x18"
TOO_LARGE = "too large"  # a kind of loss: a limit was reached, nothing is damaged
CHUNK_LIMIT = 256 << 20  # bytes; recorders close a chunk at 1 to 4 MB or after one larger message
PACKED_LIMIT = CHUNK_LIMIT + (CHUNK_LIMIT >> 6)  # bytes that may hold as many: noise grows a little
CHECKED_LIMIT = 4 << 30  # bytes that are unpacked for a checksum alone, at 1 GB a second
MESSAGE_LIMIT = 256 << 20  # bytes; an 8K picture of three channels with 16 bits is 199 MB
_BLOCK = 1 << 20  # bytes read at once from a file that is compressed as a whole


def zstd_module() -> Any:
    """Return the module of the standard library, or its backport."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def is_zstd(data: bytes | memoryview) -> bool:
    """Return whether `data` begins like a zstd frame."""
    return data[:4] == ZSTD_MAGIC


def unpack_zstd(
    data: bytes | memoryview, limit: int, where: str, reason: str, advice: str = ""
) -> bytes:
    """Return what one or several whole zstd frames hold.

    Raises:
        FrameError: with `reason`; damaged, cut short, or more than `limit` bytes. With `advice`
            the latter is "too large", and that is what to do.
    """
    content, complete = unpack_prefix(data, "zstd", limit)
    if not complete and advice and len(content) == limit:
        raise too_large(where, "a larger message", limit, advice)
    if not complete:
        raise FrameError(f"{where}: a damaged zstd frame ({len(data)} bytes)", reason)
    return content


def too_large(where: str, what: str, limit: int, advice: str) -> FrameError:
    """Return what to raise for what lies beyond `limit` bytes: nothing is damaged."""
    return FrameError(
        f"{where}: {what}, at most {limit >> 20} MB are unpacked; {advice}", TOO_LARGE
    )


def too_large_chunk(where: str, size: int) -> FrameError:
    """Return what to raise for messages behind the first CHUNK_LIMIT of a chunk's `size` bytes."""
    what = f"a chunk of {-(-size >> 20)} MB"  # rounded up
    return too_large(where, what, CHUNK_LIMIT, "rewrite it with smaller chunks")


def unpacked_checksum(blocks: Iterable[bytes], kind: str, limit: int) -> int | None:
    """Return the CRC-32 of all that `blocks` of a packed file hold, in the memory of one block.

    None: they are damaged, cut short, or hold more than `limit` bytes.
    """
    unpack, errors = _decompressor(kind), _errors(kind)
    checksum = size = 0
    try:
        for packed in blocks:
            data = packed
            while data or not (unpack.eof or unpack.needs_input):
                if unpack.eof:
                    unpack = _decompressor(kind)
                part = unpack.decompress(data, _BLOCK)
                checksum = crc32(part, checksum)
                size += len(part)
                if size > limit:
                    return None
                data = unpack.unused_data if unpack.eof else b""
    except errors:
        return None
    return checksum if unpack.eof else None


def unpack_prefix(data: bytes | memoryview, kind: str, limit: int) -> tuple[bytes, bool]:
    """Return what can be unpacked of "zstd", "lz4" or "bz2" data, and whether that is all of it.

    What lies before a damaged block is returned too, so where `data` is damaged rather than cut it
    must not be trusted.
    """
    parts: list[bytes] = []
    size = 0
    unpack, errors = _decompressor(kind), _errors(kind)
    while True:
        try:
            part = unpack.decompress(data, limit - size + 1)
        except errors:
            return b"".join(parts), False
        parts.append(part)
        size += len(part)
        if size > limit:
            return b"".join(parts)[:limit], False
        if unpack.eof:
            data = unpack.unused_data
            if not data:
                return parts[0] if len(parts) == 1 else b"".join(parts), True
            unpack = _decompressor(kind)
        elif unpack.needs_input:
            return b"".join(parts), False
        else:
            data = b""


def _decompressor(kind: str) -> Any:
    if kind == "zstd":
        return zstd_module().ZstdDecompressor()
    if kind == "bz2":
        import bz2

        return bz2.BZ2Decompressor()
    import lz4.frame

    return lz4.frame.LZ4FrameDecompressor()


def _errors(kind: str) -> tuple[type[Exception], ...]:
    if kind == "zstd":
        return (zstd_module().ZstdError, EOFError, MemoryError)
    return (RuntimeError, OSError, EOFError, MemoryError)  # lz4 and bz2 have no class of their own


def unpack_file(packed: Path, unpacked: Path) -> FrameError | None:
    """Write what the zstd file `packed` holds to `unpacked`.

    Returns:
        None where that is everything, else why the rest is lost.

    Raises:
        FrameError: nothing can be unpacked.
        StorageError: there is no room for `unpacked`.
    """
    blocks = _blocks(packed)
    size = 0
    try:
        with unpacked.open("wb") as target:
            while True:
                try:
                    block = next(blocks, b"")
                except FrameError as error:
                    if not size:
                        raise
                    return error
                if not block:
                    return None
                size += target.write(block)
    except OSError as error:
        raise no_room(packed, error) from None


def no_room(packed: Path, error: OSError) -> StorageError:
    """Return what to raise where the unpacked file cannot be written."""
    return StorageError(
        f"{packed.name}: cannot be unpacked into the temporary directory ({error.strerror}); "
        "set TMPDIR to a directory with more room"
    )


def _blocks(packed: Path) -> "Iterator[bytes]":
    """Yield what a zstd file of one or several frames holds; raises FrameError where it breaks."""
    unpack = _decompressor("zstd")
    at = 0  # read so far
    try:
        with packed.open("rb") as stream:
            data = stream.read(_BLOCK)
            while data or not unpack.needs_input:
                at = stream.tell()
                block = unpack.decompress(data, _BLOCK)
                if block:
                    yield block
                data = b""
                if unpack.eof:
                    data = unpack.unused_data or stream.read(_BLOCK)
                    if not data:
                        return
                    unpack = _decompressor("zstd")
                elif unpack.needs_input:
                    data = stream.read(_BLOCK)
    except OSError as error:
        raise FrameError(f"{packed.name}: {error.strerror}") from None
    except _errors("zstd"):
        why = f"{packed.name}: damaged zstd before byte {at}"
        raise FrameError(why, "damaged file") from None
    raise FrameError(f"{packed.name}: cut at byte {at}", "cut file")
