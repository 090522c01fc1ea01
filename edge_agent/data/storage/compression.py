"""Unpack zstd and lz4 without trusting any size that damaged bytes claim."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet_model.errors import FrameError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
LZ4_MAGIC = b"\x04\x22\x4d\x18"
CHUNK_LIMIT = 256 << 20  # bytes; recorders close a chunk at 1 to 4 MB or after one larger message
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


def unpack_zstd(data: bytes | memoryview, limit: int, where: str, reason: str) -> bytes:
    """Return what one or several whole zstd frames hold.

    Raises:
        FrameError: with `reason`; damaged, cut short, or more than `limit` bytes.
    """
    content, complete = unpack_prefix(data, "zstd", limit)
    if not complete:
        raise FrameError(f"{where}: a damaged zstd frame ({len(data)} bytes)", reason)
    return content


def unpack_prefix(data: bytes | memoryview, kind: str, limit: int) -> tuple[bytes, bool]:
    """Return what can be unpacked of "zstd" or "lz4" data, and whether that is all of it.

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
    import lz4.frame

    return lz4.frame.LZ4FrameDecompressor()


def _errors(kind: str) -> tuple[type[Exception], ...]:
    if kind == "zstd":
        return (zstd_module().ZstdError, EOFError, MemoryError)
    return (RuntimeError, EOFError, MemoryError)  # lz4 has no error class of its own


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
