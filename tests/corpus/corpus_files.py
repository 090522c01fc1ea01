"""PNG, TIFF and RVL by their specifications: zlib and NumPy, no image library."""

import struct
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOR = {1: 0, 3: 2, 4: 6}


def write_png(pixels):
    """Return a PNG file of (height, width[, channels]) uint8 or uint16."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    bits = pixels.dtype.itemsize * 8
    rows = np.frombuffer(pixels.astype(pixels.dtype.newbyteorder(">")).tobytes(), np.uint8)
    lines = np.pad(rows.reshape(height, -1), ((0, 0), (1, 0)))  # filter 0 before each
    header = struct.pack(">IIBBBBB", width, height, bits, _PNG_COLOR[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 1)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return _SIGNATURE + body


def read_png(content):
    """Return (height, width[, channels]) uint8 or uint16 of a PNG that is not interlaced."""
    assert content.startswith(_SIGNATURE)
    chunks, at = [], len(_SIGNATURE)
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, data = content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + data) == struct.unpack_from(">I", content, at + 8 + length)[0]
        chunks.append((kind, data))
        at += length + 12
    assert (chunks[0][0], chunks[-1][0]) == (b"IHDR", b"IEND")
    width, height, bits, color, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]
    assert not interlaced
    size = channels * bits // 8  # bytes of a pixel
    packed = zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"))
    lines = np.frombuffer(packed, np.uint8).reshape(height, 1 + width * size)
    rows = _unfiltered(lines, size)
    pixels = rows.reshape(-1).view(f">u{bits // 8}").astype(f"u{bits // 8}")
    return pixels.reshape((height, width, channels) if channels > 1 else (height, width))


def _unfiltered(lines, size):
    """Undo the five filters (PNG specification, section 9)."""
    rows = np.zeros((len(lines) + 1, lines.shape[1] - 1 + size), int)  # zeros above and to the left
    for y, line in enumerate(lines.astype(int), 1):
        for x, value in enumerate(line[1:], size):
            left, above, corner = rows[y, x - size], rows[y - 1, x], rows[y - 1, x - size]
            paeth = min((left, above, corner), key=lambda v: abs(left + above - corner - v))
            predicted = (0, left, above, (left + above) // 2, paeth)[line[0]]
            rows[y, x] = (value + predicted) & 0xFF
    return np.ascontiguousarray(rows[1:, size:].astype(np.uint8))


def read_tiff(content):
    """Return (height, width[, channels]) numbers of a TIFF of one strip that is not compressed."""
    order = {b"II*\0": "<", b"MM\0*": ">"}[content[:4]]
    (at,) = struct.unpack_from(f"{order}I", content, 4)
    tags = {}
    for position in range(
        at + 2, at + 2 + 12 * struct.unpack_from(f"{order}H", content, at)[0], 12
    ):
        tag, kind, count = struct.unpack_from(f"{order}HHI", content, position)
        size = {3: 2, 4: 4}[kind] * count
        start = position + 8
        if size > 4:
            (start,) = struct.unpack_from(f"{order}I", content, start)
        numbers = struct.unpack_from(f"{order}{count}{'H' if kind == 3 else 'I'}", content, start)
        (tags[tag],) = set(numbers)
    width, height, bits, compression, sample_format = (tags[t] for t in (256, 257, 258, 259, 339))
    assert (compression, tags[278], tags[262]) == (1, height, 1)
    strip = content[tags[273] : tags[273] + tags[279]]
    kind = {1: "u", 2: "i", 3: "f"}[sample_format] + str(bits // 8)
    shape = (height, width, tags[277]) if tags[277] > 1 else (height, width)
    return np.frombuffer(strip, order + kind).astype(kind).reshape(shape)


def write_tiff(pixels, packing="none", rows=5):
    """Return a TIFF of strips of five rows; "none", "deflate" or "lzw"."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    code, pack = {"none": (1, bytes), "deflate": (8, zlib.compress), "lzw": (5, _lzw)}[packing]
    little = pixels.astype(pixels.dtype.newbyteorder("<"))
    strips = [pack(little[y : y + rows].tobytes()) for y in range(0, height, rows)]
    begins = np.cumsum([8] + [len(strip) for strip in strips])
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags = {
        256: [width], 257: [height], 258: [pixels.itemsize * 8] * channels, 259: [code],
        262: [2 if channels > 2 else 1], 273: begins[:-1].tolist(), 277: [channels], 278: [rows],
        279: [len(strip) for strip in strips], 339: [kind] * channels,
    }  # fmt: skip
    at = int(begins[-1]) + 2 + 12 * len(tags) + 4
    entries, more = b"", b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            more, packed = more + packed, struct.pack("<I", at + len(more))
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + packed
    head = struct.pack("<4sI", b"II*\0", int(begins[-1]))
    return head + b"".join(strips) + struct.pack("<H", len(tags)) + entries + bytes(4) + more


def _lzw(content):
    """Return what TIFF 6.0, section 13, makes of bytes."""
    table, bits, width, string = {}, [], 9, b""

    def put(code):
        bits.append(f"{code:0{width}b}")

    def clear():
        nonlocal width
        put(256)
        table.clear()
        table.update({bytes([value]): value for value in range(256)})
        table[b"clear"], table[b"end"] = 256, 257
        width = 9

    clear()
    for byte in content:
        longer = string + bytes([byte])
        if longer in table:
            string = longer
            continue
        put(table[string])
        table[longer] = len(table)
        if len(table) in (512, 1024, 2048):
            width += 1
        if len(table) == 4095:
            clear()
        string = bytes([byte])
    put(table[string])
    if len(table) + 1 in (512, 1024, 2048):
        width += 1
    put(257)
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def write_rvl(values):
    """Return the stream of Wilson's encoder for (height, width) uint16."""
    nibbles = []

    def put(number):
        while True:
            nibbles.append((number & 7) | (8 if number >> 3 else 0))
            number >>= 3
            if not number:
                return

    flat, at, before = values.reshape(-1).astype(int).tolist(), 0, 0
    while at < len(flat):
        for wanted in (False, True):
            begin = at
            while at < len(flat) and bool(flat[at]) is wanted:
                at += 1
            put(at - begin)
            if wanted:
                for value in flat[begin:at]:
                    difference = value - before
                    put((difference << 1) ^ (difference >> 31))
                    before = value
    nibbles += [0] * (-len(nibbles) % 8)
    words = [
        sum(n << 28 - 4 * i for i, n in enumerate(nibbles[k : k + 8]))
        for k in range(0, len(nibbles), 8)
    ]
    return struct.pack("<ii", values.shape[1], values.shape[0]) + struct.pack(
        f"<{len(words)}I", *words
    )
