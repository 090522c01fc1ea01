"""What the words of a CompressedImage's `format` say about the samples in its file.

image_transport writes "ENCODING; jpeg compressed TARGET": the encoding that the camera sent, and
what it was converted to before it was compressed. Without a target the file holds the camera's own
samples, and only the encoding says what they are: a Bayer mosaic in a gray JPEG, say.
"""

from edge_agent.data.pictures.raw import Encoding, find_encoding
from fleet_model.errors import FrameError
from fleet_model.pictures.image_header import ImageHeader


def declared_encoding(declared: str) -> tuple[str, Encoding | None]:
    """Return the camera's own encoding by name and meaning; None where none is declared."""
    name, separator, _ = declared.partition(";")
    name = name.strip()
    return name, find_encoding(name) if separator else None


def is_data(declared: str) -> bool:
    """Return whether the camera sent depth or other data of which there is no picture."""
    encoding = declared_encoding(declared)[1]
    return encoding is not None and encoding.colors.rgb is None


def own_samples(declared: str, header: ImageHeader) -> str:
    """Return the encoding that the file's samples are in, where they are not the picture itself.

    Returns:
        "" where the file shows what it is.

    Raises:
        FrameError: the samples had more bits than the file, which were cut off.
    """
    name, encoding = declared_encoding(declared)
    if encoding is None or (_is_converted(declared) and not is_data(declared)):
        return ""
    sample = f"{header.kind}{header.bits // 8}"
    if (encoding.sample, encoding.channels) == (sample, header.channels):
        is_bayer = encoding.colors.pixels.startswith("COLOR_Bayer")
        # The plug-in hands a TIFF's writer every picture as if it were B, G, R.
        is_exchanged = header.format == "tiff" and encoding.channels > 1
        is_exchanged &= not encoding.colors.pixels.startswith("COLOR_BGR")
        return name if is_bayer or is_exchanged else ""
    if is_data(declared) or (encoding.channels == 1 and encoding.sample != "u1"):
        raise FrameError(
            f"a {header.format} with samples of {header.bits} bits, declared as {declared[:60]!r}: "
            f"not all of {name} is in it; record the raw picture, png or compressedDepth",
            "cut samples",
        )
    return ""


def _is_converted(declared: str) -> bool:
    """Return whether a target is named, as in "bayer_rggb8; jpeg compressed mono8"."""
    return bool(declared.partition(" compressed")[2].strip())
