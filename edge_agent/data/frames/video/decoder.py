"""Decode pictures of a stream, each by itself as far as its caller sees.

A picture is made from those before it, back to its key frame: the packets from one key frame to the
next are a group. Whoever asks in the order of the stream costs one pass. A damaged packet spoils
the rest of its group, in whatever order pictures are asked for; the next group is right again.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from fleet_model.errors import FrameError
from fleet_model.types import Frame, RgbImage

NO_LIBRARY = "video needs PyAV"
NO_KEY = "before the first key frame"
AFTER, AFTER_LOST = "after a damaged frame", "after a lost frame"
NAMES = {"h264": "h264", "hevc": "h265"}  # FFmpeg's word -> ours; other codecs have one word
_KEPT = 4  # earlier pictures: threads ask in nearly the order of the stream
_DELAY = 17  # packets; a picture is shown at most 16 later than decoded (H.264 A.3.1, H.265 A.4)


def load_av(what: str) -> Any:
    """Return the PyAV library; `what` needs it. Raises FrameError where it is not installed."""
    try:
        import av
    except ImportError as error:
        missing = "" if isinstance(error, ModuleNotFoundError) else f" ({error})"
        raise FrameError(
            f"{what}: is video, which needs PyAV{missing}; run: pip install 'fleetlearn[video]'",
            NO_LIBRARY,
        ) from None
    return av


@dataclass(eq=False, slots=True)
class Group:
    """The packets from a key frame to the next one, in the order of decoding."""

    codec: str  # FFmpeg's word
    begins: int  # number of the key frame
    stamp_ns: int  # of the key frame
    # Pictures that are shown before the key frame may be made from the group before as well.
    is_open: bool = True
    packets: list[Any] = field(default_factory=list)  # of the source that feeds the decoder
    closed: bool = False  # no packet is to come
    spoilt: int | None = None  # number of the first packet that cannot be decoded right
    spoilt_by: str = ""  # reason; "" is damage of this packet itself


@dataclass(frozen=True, eq=False, slots=True)
class Packet:
    """One picture that was not yet decoded."""

    number: int  # in the order of decoding, from 0
    stamp_ns: int
    run: tuple[Group, ...]  # what is decoded to get it; the last one is its own

    @property
    def codec(self) -> str:
        """Our word for its codec."""
        codec = self.run[-1].codec
        return NAMES.get(codec) or f"{codec} video"


def packet_of(
    number: int, stamp_ns: int, group: Group | None, before: Group | None, where: str
) -> Packet:
    """Return a packet of a group; `before` is the group before it.

    Raises:
        FrameError: what it is made from was not recorded.
    """
    leads = group is not None and group.is_open and stamp_ns < group.stamp_ns
    run = tuple(each for each in (before if leads else group, group) if each)
    if len(run) < 2:
        raise FrameError(f"{where}: {NO_KEY}", NO_KEY)
    return Packet(number, stamp_ns, run if leads else run[1:])


def frame_loader(
    packet_of: Callable[[], Packet],
    pictures: "Pictures",
    names: tuple[str, str],
    chain: int,
    size: tuple[int, int],
) -> Callable[[], Frame]:
    """Return what gives a packet's frame, or raises why there is none; see `packet_frame`."""
    try:
        return partial(packet_frame, packet_of(), pictures, names, chain, size)
    except FrameError as error:
        return partial(refuse, error)


def refuse(error: FrameError) -> Frame:
    """Raise an error that was found before the frame was wanted."""
    raise error


def packet_frame(
    packet: Packet,
    pictures: "Pictures",
    names: tuple[str, str],
    chain: int,
    size: tuple[int, int],
) -> Frame:
    """Return the frame of a packet; its picture is decoded when it is asked for.

    Its data is no picture: it is a text that differs where this packet or one before it, back to
    the key frame, differs.

    Args:
        packet: which one.
        pictures: of its stream.
        names: source and topic.
        chain: crc32 of the packets from the key frame to this one.
        size: width and height.

    Raises:
        FrameError: it is known already that it cannot be decoded.
    """
    pictures.require_sound(packet)
    return Frame(
        source=names[0],
        topic=names[1],
        stamp_ns=packet.stamp_ns,
        data=f"{packet.codec} {chain:08x}".encode(),
        format=packet.codec,
        decode=partial(pictures.picture, packet),
        width=size[0],
        height=size[1],
    )


class Pictures:
    """Decodes pictures of one stream. Safe in threads; memory is flat."""

    def __init__(
        self,
        open_decoder: Callable[[Group], Any],
        feed: Callable[[Group], Iterator[tuple[int, Any] | None]],
        where: str,
    ) -> None:
        """Keep how to decode.

        Args:
            open_decoder: returns a fresh av.CodecContext.
            feed: yields (number, av.Packet) of a group; None where what follows is not known yet.
            where: names the stream in errors.
        """
        self._open_decoder, self._feed, self._where = open_decoder, feed, where
        self._lock = Lock()
        self._run: tuple[Group, ...] = ()
        self._steps: Iterator[bool] = iter(())
        self._last = -1  # number of the last packet that was fed
        self._ready: OrderedDict[int, Any] = OrderedDict()  # number -> av.VideoFrame, as shown
        self._pending: set[int] = set()  # numbers that were fed and did not come out yet

    def picture(self, packet: Packet) -> RgbImage:
        """Return a picture as (height, width, 3), the caller's own.

        Raises:
            FrameError: it is damaged, or what it is made from is; `reason` says which.
        """
        with self._lock:
            frame = self._frame(packet)
        return rgb_of(frame)

    def _frame(self, packet: Packet) -> Any:
        run, number = packet.run, packet.number
        self.require_sound(packet)
        if run != self._run or (number <= self._last and number not in self._ready):
            self._run, self._last, self._steps = run, -1, self._decoding(run)
            self._ready.clear()
            self._pending.clear()
        while not self._is_settled(number) and next(self._steps, False):
            while len(self._ready) > _KEPT and number not in self._ready:
                self._ready.popitem(last=False)
        self.require_sound(packet)
        if number not in self._ready:
            self._run = ()
            reason = f"damaged {packet.codec}"
            raise FrameError(f"{self._at(packet)}: a packet without a picture", reason)
        for shown in list(self._ready)[: -_KEPT - 1]:
            if shown == number:
                break
            del self._ready[shown]
        return self._ready[number]

    def _is_settled(self, number: int) -> bool:
        """Whether a picture is there, and whether those it is made from are sound is known."""
        if number not in self._ready:
            return False
        return min(self._pending, default=number) >= number or self._last >= number + _DELAY

    def _decoding(self, run: tuple[Group, ...]) -> Iterator[bool]:
        """Decode packet by packet; True as long as there may be another one."""
        decoder = self._open_decoder(run[0])
        for group in run:
            for item in self._feed(group):
                if item is None:
                    yield False
                    continue
                number, packet = item
                self._last = number
                self._decode(decoder, packet, group, number)
                yield True
        self._decode(decoder, None, run[-1], self._last)
        yield True

    def _decode(self, decoder: Any, packet: Any, group: Group, number: int) -> None:
        import av

        if packet is not None:
            packet.pts = number  # comes back with the picture, whatever the order is
            packet.dts = None
            self._pending.add(number)
        try:
            frames = decoder.decode(packet)
        except av.error.FFmpegError:
            self._pending.discard(number)
            _spoil(group, number)
            return
        for frame in frames:
            if frame.pts is None:
                continue
            if frame.is_corrupt:
                _spoil(next(g for g in reversed(self._run) if g.begins <= frame.pts), frame.pts)
            self._pending.discard(frame.pts)
            self._ready[frame.pts] = frame

    def require_sound(self, packet: Packet) -> None:
        """Raise FrameError if it is known that a packet cannot be decoded."""
        *before, group = packet.run
        if any(each.spoilt is not None for each in before):
            raise FrameError(f"{self._at(packet)}: {AFTER}", AFTER)
        if group.spoilt is None or packet.number < group.spoilt:
            return
        reason = group.spoilt_by or AFTER
        if packet.number == group.spoilt and not group.spoilt_by:
            reason = f"damaged {packet.codec}"
        raise FrameError(f"{self._at(packet)}: {reason}", reason)

    def _at(self, packet: Packet) -> str:
        return f"{self._where} at {packet.stamp_ns}"


def rgb_of(frame: Any) -> RgbImage:
    """Return an av.VideoFrame as (height, width, 3), turned as its file says."""
    pixels = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _spoil(group: Group, number: int) -> None:
    if group.spoilt is None or number < group.spoilt:
        group.spoilt, group.spoilt_by = number, ""
