"""Read what an h264 or h265 packet says about itself: key frame, number, size of the picture.

A decoder shows a wrong picture, and says nothing, where an h264 packet before it is missing, as in
a bag whose recorder lost messages. The numbers in the headers tell (H.264, 7.4.3 frame_num).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from fleet_model.errors import FrameError

_START = re.compile(b"\0\0\1")
_HEAD = 64  # bytes of a slice: its number lies in the first few
_MAX_SPS = 4096
_CHROMA_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)


class PacketInfo(NamedTuple):
    """What is known of a packet without decoding it."""

    is_picture: bool  # else it has only parameters for those that follow
    is_key: bool = False  # decoding can begin here
    is_open: bool = False  # pictures that follow may be made from some before the key frame
    size: tuple[int, int] | None = None  # (width, height), where the packet says it
    lost: bool = False  # a picture that this one is made from is missing


class Headers:
    """Follows one stream from packet to packet."""

    def __init__(self, codec: str) -> None:
        """Begin a stream of "h264" or "h265"."""
        self._read = {"h264": self._h264, "h265": self._h265}[codec]
        self._codec = codec
        self._number_bits: int | None = None
        self._gaps_allowed = False
        self._last: int | None = None  # frame_num of the last reference picture
        self.size = (0, 0)  # of the last picture that said it

    def packet(self, data: bytes) -> PacketInfo:
        """Return what a packet says.

        Args:
            data: one picture in Annex B form: NAL units behind start codes.

        Raises:
            FrameError: it is no packet of this codec.
        """
        units = list(_units(data))
        if not units:
            raise FrameError(
                f"{len(data)} bytes of {self._codec} without a start code", f"damaged {self._codec}"
            )
        try:
            info = self._read(units)
        except IndexError:
            raise FrameError(
                f"a {self._codec} packet of {len(data)} bytes ends inside its header",
                f"damaged {self._codec}",
            ) from None
        self.size = info.size or self.size
        return info

    def _h264(self, units: list[bytes]) -> PacketInfo:
        is_key, is_idr, size, lost, pictures = False, False, None, False, 0
        for unit in units:
            kind = unit[0] & 31
            if kind == 7:
                size = self._h264_sps(_Bits(unit[1:]))
            elif kind == 6:
                # recovery point, at once: decoding can begin at a picture that is no IDR
                is_key |= unit[1] == 6 and bool(unit[3] & 128)
            elif kind in (1, 5):
                pictures += 1
                is_idr |= kind == 5
                if pictures == 1:
                    lost = self._is_behind_a_gap(unit, is_key or is_idr)
        return PacketInfo(pictures > 0, is_key or is_idr, not is_idr, size, lost)

    def _is_behind_a_gap(self, unit: bytes, is_key: bool) -> bool:
        if self._number_bits is None:
            return False
        bits = _Bits(unit[1:_HEAD])
        for _ in range(3):  # first_mb_in_slice, slice_type, pic_parameter_set_id
            bits.ue()
        number, last = bits.u(self._number_bits), self._last
        if unit[0] & 0x60:
            self._last = number
        if is_key or last is None or self._gaps_allowed:
            return False
        return number not in (last, (last + 1) % (1 << self._number_bits))

    def _h264_sps(self, bits: "_Bits") -> tuple[int, int]:
        profile = bits.u(8)
        bits.u(16)
        bits.ue()
        chroma = 1
        if profile in _CHROMA_PROFILES:
            chroma = bits.ue()
            if chroma == 3:
                bits.u(1)
            bits.ue(), bits.ue(), bits.u(1)
            if bits.u(1):
                _skip_scaling_lists(bits, 12 if chroma == 3 else 8)
        self._number_bits = bits.ue() + 4
        order = bits.ue()
        if order == 0:
            bits.ue()
        elif order == 1:
            bits.u(1), bits.ue(), bits.ue()
            for _ in range(bits.ue()):
                bits.ue()
        bits.ue()
        self._gaps_allowed = bool(bits.u(1))
        width, height = 16 * (bits.ue() + 1), 16 * (bits.ue() + 1)
        frames_only = bits.u(1)
        height *= 2 - frames_only
        if not frames_only:
            bits.u(1)
        bits.u(1)
        unit_x, unit_y = _CROP_UNITS.get(chroma, (1, 1))
        return _cropped(bits, width, height, unit_x, unit_y * (2 - frames_only))

    def _h265(self, units: list[bytes]) -> PacketInfo:
        is_key, is_open, size, pictures = False, False, None, 0
        for unit in units:
            kind = unit[0] >> 1 & 63
            if kind == 33:
                size = _h265_size(_Bits(unit[2:]))
            elif kind < 32:
                pictures += 1
                is_key |= 16 <= kind <= 23
                is_open |= kind not in _IDR
        return PacketInfo(pictures > 0, is_key, is_open, size)


_IDR = (19, 20)
_CROP_UNITS = {1: (2, 2), 2: (2, 1)}  # chroma format -> luma samples a step


def _units(data: bytes) -> Iterator[bytes]:
    """Yield the NAL units; of a picture's slices only what the headers need is unescaped."""
    begins = [match.end() for match in _START.finditer(data)]
    ends = [begin - 3 for begin in begins[1:]] + [len(data)]
    for begin, end in zip(begins, ends, strict=False):  # without a start code there is no unit
        if end > begin:
            yield data[begin : min(end, begin + _MAX_SPS)].replace(b"\0\0\3", b"\0\0")


def _h265_size(bits: "_Bits") -> tuple[int, int]:
    bits.u(4)
    layers = bits.u(3)
    bits.u(1)
    bits.skip(96)
    flags = [(bits.u(1), bits.u(1)) for _ in range(8 if layers else 0)][:layers]
    for has_profile, has_level in flags:
        bits.skip(88 * has_profile + 8 * has_level)
    bits.ue()
    chroma = bits.ue()
    if chroma == 3:
        bits.u(1)
    width, height = bits.ue(), bits.ue()
    return _cropped(bits, width, height, *_CROP_UNITS.get(chroma, (1, 1)))


def _cropped(bits: "_Bits", width: int, height: int, unit_x: int, unit_y: int) -> tuple[int, int]:
    if bits.u(1):
        left, right, top, bottom = (bits.ue() for _ in range(4))
        width, height = width - unit_x * (left + right), height - unit_y * (top + bottom)
    return width, height


def _skip_scaling_lists(bits: "_Bits", count: int) -> None:
    for index in range(count):
        if not bits.u(1):
            continue
        last = following = 8
        for _ in range(16 if index < 6 else 64):
            if following:
                following = (last + bits.se()) % 256
            last = following or last


class _Bits:
    """Reads bits from the highest on; IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def u(self, count: int) -> int:
        """Return an unsigned number of `count` bits."""
        self.skip(count)
        return self._value >> self._left & ((1 << count) - 1)

    def skip(self, count: int) -> None:
        """Pass over bits."""
        self._left -= count
        if self._left < 0:
            raise IndexError

    def ue(self) -> int:
        """Return an unsigned Exp-Golomb number (H.264, 9.1)."""
        zeros = 0
        while not self.u(1):
            zeros += 1
            if zeros > 32:
                raise IndexError
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        """Return a signed Exp-Golomb number."""
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)
