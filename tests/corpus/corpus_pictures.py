"""Camera messages beside the pixels that must come out of them, both made from the same samples.

Everything is computed with NumPy from the definitions: sensor_msgs/image_encodings.h for the
layouts, bilinear interpolation for Bayer, ITU-R BT.601 for YUV, Wilson 2017 for RVL. Nothing of the
project is used, and OpenCV only to make the files of JPEG and WebP.
"""

import gzip
import struct
import sys
from typing import Any, NamedTuple

import numpy as np
from corpus_files import write_png, write_rvl, write_tiff


class Message(NamedTuple):
    """A sensor_msgs message but for its header: an Image, or a CompressedImage."""

    type: str  # "Image", "CompressedImage"
    fields: tuple[Any, ...]  # behind the header
    payload: bytes  # of `fields`, to find the message again in a file


class Picture(NamedTuple):
    """A message and what it shows."""

    message: Message
    pixels: np.ndarray  # as sensed
    rgb: np.ndarray | None  # (height, width, 3) uint8; None: depth or data
    tolerance: int = 0  # of values, where the color conversion's rounding is not defined
    border: int = 0  # pixels a side that demosaicing may fill as it likes
    file: bytes | None = None  # what extraction must write, where bytes pass through


def raw(encoding, height, width, step, rows, bigendian=0):
    """Make an Image of which `rows` is (rows of all planes, step) uint8."""
    data = np.ascontiguousarray(rows, np.uint8).reshape(-1)
    return Message("Image", (height, width, encoding, bigendian, step, data), data.tobytes())


def compressed(form, content):
    """Make a CompressedImage."""
    return Message("CompressedImage", (form, np.frombuffer(content, np.uint8)), content)


def padded(samples, padding, rng, bigendian=0):
    """Return the bytes of (height, ...) samples with noise behind every row."""
    swapped = samples.astype(samples.dtype.newbyteorder(">" if bigendian else "<"))
    rows = np.frombuffer(swapped.tobytes(), np.uint8).reshape(len(samples), -1)
    noise = rng.integers(0, 256, (len(samples), padding), np.uint8)
    return np.concatenate([rows, noise], axis=1)


def eight_bits(pixels):
    """Scale 16 bits to 8: v * 255 / 65535, rounded."""
    if pixels.dtype == np.uint8:
        return pixels
    return np.rint(pixels.astype(np.float64) * 255 / 65535).astype(np.uint8)


def rgb_of(pixels):
    """Return three channels of 8 bits."""
    pixels = eight_bits(pixels)
    return np.stack([pixels] * 3, axis=-1) if pixels.ndim == 2 else pixels[..., :3]


# encoding -> (dtype, places of R, G, B and A among the samples; whether it is a picture)
_INTERLEAVED = {
    "rgb8": (np.uint8, (0, 1, 2), True),
    "bgr8": (np.uint8, (2, 1, 0), True),
    "rgba8": (np.uint8, (0, 1, 2, 3), True),
    "bgra8": (np.uint8, (2, 1, 0, 3), True),
    "mono8": (np.uint8, (0,), True),
    "mono16": (np.uint16, (0,), True),
    "rgb16": (np.uint16, (0, 1, 2), True),
    "bgr16": (np.uint16, (2, 1, 0), True),
    "rgba16": (np.uint16, (0, 1, 2, 3), True),
    "bgra16": (np.uint16, (2, 1, 0, 3), True),
    "8UC1": (np.uint8, (0,), True),
    "8UC2": (np.uint8, (0, 1), False),
    "8UC3": (np.uint8, (2, 1, 0), True),
    "8UC4": (np.uint8, (2, 1, 0, 3), True),
    "16UC1": (np.uint16, (0,), False),
    "16UC2": (np.uint16, (0, 1), False),
    "16UC3": (np.uint16, (2, 1, 0), True),
    "16UC4": (np.uint16, (2, 1, 0, 3), True),
    "32FC1": (np.float32, (0,), False),
    "BGR8": (np.uint8, (2, 1, 0), True),
    **{
        f"{kind}C{channels}": (dtype, tuple(range(channels)), False)
        for kind, dtype, counts in (
            ("8S", np.int8, (1, 3)),
            ("8U", np.uint8, (5,)),
            ("16S", np.int16, (1, 4)),
            ("32S", np.int32, (1, 2)),
            ("32F", np.float32, (2, 3, 4)),
            ("64F", np.float64, (1, 3)),
        )
        for channels in counts
    },
}


def interleaved(encoding, rng, size, padding, bigendian=0):
    """Return a picture of samples side by side."""
    (height, width), (dtype, positions, is_picture) = size, _INTERLEAVED[encoding]
    shape = (height, width, len(positions))
    if np.dtype(dtype).kind == "f":
        samples = rng.uniform(0.1, 40, shape).astype(dtype)
        samples[1, 2], samples[2, 0] = np.nan, np.inf
    else:
        limits = np.iinfo(dtype)
        samples = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    rows = padded(samples, padding, rng, bigendian)
    message = raw(encoding, height, width, rows.shape[1], rows, bigendian)
    pixels = samples[..., list(positions)] if len(positions) > 1 else samples[..., 0]
    return Picture(message, pixels, rgb_of(pixels) if is_picture else None)


def bayer(encoding, rng, size, padding, bigendian=0):
    """Return a picture of which every pixel has one color; the others are bilinear."""
    height, width = size
    dtype = np.uint16 if encoding.endswith("16") else np.uint8
    samples = rng.integers(0, np.iinfo(dtype).max, size, dtype, endpoint=True)
    pattern = np.array(list(encoding.removeprefix("bayer_")[:4])).reshape(2, 2)
    colors = np.tile(pattern, (height // 2 + 1, width // 2 + 1))[:height, :width]
    cross = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
    diamond = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    planes = []
    for color, kernel in (("r", diamond), ("g", cross), ("b", diamond)):
        known = np.pad(np.where(colors == color, samples, 0).astype(np.float64), 1)
        planes.append(
            sum(
                kernel[y, x] * known[y : y + height, x : x + width]
                for y in range(3)
                for x in range(3)
            )
        )
    pixels = np.rint(np.stack(planes, axis=-1)).astype(dtype)  # right but at the border
    rows = padded(samples, padding, rng, bigendian)
    message = raw(encoding, height, width, rows.shape[1], rows, bigendian)
    return Picture(message, pixels, rgb_of(pixels), tolerance=1, border=1)


def bt601(y, u, v):
    """Return RGB of video-range YUV."""
    y, u, v = (plane.astype(np.float64) for plane in (y, u, v))
    light = 255 / 219 * (y - 16)
    chroma = 255 / 112 * 0.5
    red = light + chroma * 1.402 * (v - 128)
    green = light - chroma * (0.344136 * (u - 128) + 0.714136 * (v - 128))
    blue = light + chroma * 1.772 * (u - 128)
    return np.rint(np.clip(np.stack([red, green, blue], axis=-1), 0, 255)).astype(np.uint8)


_PAIRS = {"yuv422": "uyvy", "uyvy": "uyvy", "yuv422_yuy2": "yuyv", "yuyv": "yuyv", "YUYV": "yuyv"}


def yuv_pairs(encoding, rng, size, padding, bigendian=0):
    """Return a picture of which two pixels side by side share their color."""
    height, width = size
    luma = rng.integers(16, 236, size, np.uint8)
    u, v = rng.integers(16, 241, (2, height, width // 2), np.uint8)
    luma_at, chroma_at = (1, 0) if _PAIRS[encoding] == "uyvy" else (0, 1)
    samples = np.empty((height, width, 2), np.uint8)
    samples[..., luma_at] = luma
    samples[:, ::2, chroma_at], samples[:, 1::2, chroma_at] = u, v
    rows = padded(samples, padding, rng)
    pixels = bt601(luma, u.repeat(2, axis=1), v.repeat(2, axis=1))
    message = raw(encoding, height, width, rows.shape[1], rows, bigendian)
    return Picture(message, pixels, pixels, tolerance=3)


def yuv_planes(encoding, rng, size, padding, bigendian=0):
    """Return a picture with its colors in a second plane."""
    height, width = size
    shared = 1 if encoding == "nv24" else 2  # pixels a side that share their color
    luma = rng.integers(16, 236, size, np.uint8)
    u, v = rng.integers(16, 241, (2, height // shared, width // shared), np.uint8)
    chroma = np.stack([v, u] if encoding == "nv21" else [u, v], axis=-1)
    first = padded(luma, padding, rng)
    second = padded(chroma, padding * 2 // shared, rng).reshape(-1, first.shape[1])
    whole = [plane.repeat(shared, axis=0).repeat(shared, axis=1) for plane in (u, v)]
    pixels = bt601(luma, *whole)
    rows = np.concatenate([first, second])
    message = raw(encoding, height, width, first.shape[1], rows, bigendian)
    return Picture(message, pixels, pixels, tolerance=3)


def blocks(rng, size):
    """Return grays of 16 x 16 pixels: JPEG keeps them, but for rounding."""
    height, width = size
    coarse = rng.integers(60, 196, (-(-height // 16), -(-width // 16)), np.uint8)
    return coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]


def jpeg(kind, rng, size, *_):
    """Return a JPEG: in color, gray, or with an EXIF orientation that must not be applied."""
    import cv2

    pixels = blocks(rng, size)
    if kind != "jpeg_gray":  # one tint for all, as neighbors share their color
        pixels = (pixels[..., np.newaxis] + np.array([40, 0, -40])).astype(np.uint8)
    stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    content = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    if kind == "jpeg_exif":
        entry = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)  # orientation: turned by 90 degrees
        exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + bytes(4)
        content = content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:]
    form = "mono8; jpeg compressed mono8" if kind == "jpeg_gray" else "bgr8; jpeg compressed bgr8"
    message = compressed(form, content)
    return Picture(message, pixels, rgb_of(pixels), tolerance=5, file=content)


_PNGS = {
    "png_gray8": (np.uint8, 1),
    "png_rgb8": (np.uint8, 3),
    "png_rgba8": (np.uint8, 4),
    "png_gray16": (np.uint16, 1),
    "png_rgb16": (np.uint16, 3),
}


def png(kind, rng, size, *_):
    """Return a PNG."""
    dtype, channels = _PNGS[kind]
    pixels = rng.integers(0, np.iinfo(dtype).max, (*size, channels), dtype, endpoint=True)
    pixels = pixels[..., 0] if channels == 1 else pixels
    content = write_png(pixels)
    message = compressed("rgb8; png compressed", content)
    return Picture(message, pixels, rgb_of(pixels), file=content)


def webp(kind, rng, size, *_):
    """Return a lossless WebP."""
    import cv2

    pixels = rng.integers(0, 256, (*size, 3), np.uint8)
    content = cv2.imencode(".webp", pixels[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    return Picture(compressed("webp", content), pixels, pixels, file=content)


def depth(kind, rng, size, *_):
    """Return compressedDepth: 16 bits as PNG or RVL, or metric depth as inverse depth."""
    values = rng.integers(200, 9000, size, np.uint16)
    values[rng.random(size) < 0.3] = 0
    a, b = np.float32(1250.5), np.float32(-3.25)
    is_metric = kind == "depth_32FC1"
    head = struct.pack("<iff", 0, a if is_metric else 0, b if is_metric else 0)
    codec = "rvl" if kind == "depth_rvl" else "png"
    content = write_rvl(values) if codec == "rvl" else write_png(values)
    form = f"{'32FC1' if is_metric else '16UC1'}; compressedDepth {codec}"
    pixels, file = values, content if kind == "depth_16UC1" else None
    if is_metric:
        with np.errstate(divide="ignore"):
            pixels = np.where(values > 0, a / (values.astype(np.float32) - b), np.float32("nan"))
    return Picture(compressed(form, head + content), pixels, None, file=file)


# kind -> (encoding of the camera, how the plug-in packs its TIFF)
_TIFFS = {
    "tiff_rgb8": ("rgb8", "lzw"),
    "tiff_bgr8": ("bgr8", "lzw"),
    "tiff_rgba16": ("rgba16", "none"),
    "tiff_mono8": ("mono8", "deflate"),
    "tiff_mono16": ("mono16", "lzw"),
    "tiff_32FC1": ("32FC1", "none"),
    "tiff_32SC1": ("32SC1", "lzw"),
    "tiff_16UC1": ("16UC1", "deflate"),
}


def tiff(kind, rng, size, *_):
    """Return a TIFF as image_transport's plug-in writes it: every picture as if it were B, G, R."""
    encoding, packing = _TIFFS[kind]
    picture = interleaved(encoding, rng, size, 0)
    dtype, positions, _ = _INTERLEAVED[encoding]
    shape = (*size, len(positions)) if len(positions) > 1 else size
    samples = np.frombuffer(picture.message.payload, dtype).reshape(shape)
    stored = samples[..., [2, 1, 0, 3][: len(positions)]] if len(positions) > 2 else samples
    content = write_tiff(stored, packing)
    exchanged = len(positions) > 2 and not encoding.startswith("bgr")
    message = compressed(f"{encoding}; tiff compressed ", content)
    return picture._replace(message=message, file=None if exchanged else content)


def mosaic(kind, rng, size, *_):
    """Return a Bayer mosaic in a file: noise in a PNG, one color in a JPEG, whose loss is small."""
    import cv2

    _, pattern, suffix = kind.split("_")
    encoding = f"bayer_{pattern}{16 if suffix == 'png16' else 8}"
    picture = bayer(encoding, rng, size, 0)
    height, width = size
    if suffix != "jpeg":
        dtype = np.uint16 if suffix == "png16" else np.uint8
        samples = np.frombuffer(picture.message.payload, dtype).reshape(size)
        message = compressed(f"{encoding}; png compressed ", write_png(samples))
        return picture._replace(message=message)
    color = rng.integers(30, 226, 3, np.uint8)
    cell = np.array([color["rgb".index(name)] for name in pattern], np.uint8).reshape(2, 2)
    samples = np.tile(cell, (height // 2 + 1, width // 2 + 1))[:height, :width]
    content = cv2.imencode(".jpg", samples, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    pixels = np.broadcast_to(color, (*size, 3)).copy()
    message = compressed(f"{encoding}; jpeg compressed ", content)
    return Picture(message, pixels, pixels, tolerance=8, border=1)


def zstd(kind, rng, size, padding=0, bigendian=0):
    """Return what zstd_image_transport and librealsense make of an Image."""
    height, width = size
    if kind == "zstd_realsense":
        picture = yuv_pairs("yuyv", rng, (height, width + width % 2), 0)
        _, width, _, _, step, _ = picture.message.fields
        content = compress_zstd(picture.message.payload)
        form = f"YUYV; zstd; {width}x{height} step={step}"
        return picture._replace(message=compressed(form, content))
    encoding = kind.removeprefix("zstd_")
    picture = interleaved(encoding, rng, size, 5, bigendian=1)
    height, width, encoding, order, step, _ = picture.message.fields
    head = struct.pack("<IIBII", height, width, order, step, len(encoding)) + encoding.encode()
    content = head + gzip.compress(picture.message.payload, 1)
    return picture._replace(message=compressed("zstd", content))


def compress_zstd(content):
    if sys.version_info >= (3, 14):
        from compression import zstd as module
    else:
        from backports import zstd as module
    return module.compress(content)


def gray_of_mosaic(kind, rng, size, *_):
    """Return a gray JPEG of a Bayer camera, as ROS 2 writes it."""
    picture = jpeg("jpeg_gray", rng, size)
    message = compressed("bayer_rggb8; jpeg compressed mono8", picture.file)
    return picture._replace(message=message)


KINDS = {
    **dict.fromkeys(_INTERLEAVED, interleaved),
    **{f"bayer_{p}{b}": bayer for p in ("rggb", "bggr", "gbrg", "grbg") for b in (8, 16)},
    **dict.fromkeys(_PAIRS, yuv_pairs),
    **dict.fromkeys(("nv12", "nv21", "nv24"), yuv_planes),
    **dict.fromkeys(("jpeg", "jpeg_gray", "jpeg_exif"), jpeg),
    **dict.fromkeys(_PNGS, png),
    "webp": webp,
    **dict.fromkeys(("depth_16UC1", "depth_32FC1", "depth_rvl"), depth),
    **dict.fromkeys(_TIFFS, tiff),
    **dict.fromkeys(("mosaic_rggb_jpeg", "mosaic_grbg_png", "mosaic_gbrg_png16"), mosaic),
    **dict.fromkeys(("zstd_rgb8", "zstd_mono16", "zstd_32FC1", "zstd_realsense"), zstd),
    "jpeg_of_mosaic": gray_of_mosaic,
}


def make(kind, rng, size, padding=0, bigendian=0):
    """Return a Picture of noise of one of KINDS; `size` is (height, width)."""
    return KINDS[kind](kind, rng, size, padding, bigendian)
