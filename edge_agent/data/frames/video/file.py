"""Frames of a video file: .mp4, .mov, .mkv, .avi and what else holds pictures in time."""

import heapq
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edge_agent.data.frames.source import FrameEntry, Place
from edge_agent.data.frames.video.container_end import is_cut
from edge_agent.data.frames.video.decoder import (
    AFTER_LOST,
    NAMES,
    Group,
    Pictures,
    frame_loader,
    load_av,
    packet_of,
)
from edge_agent.data.frames.video.nal import Headers
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.types import NS_PER_S, Frame

if TYPE_CHECKING:
    from fractions import Fraction

# What a file may hold, and that it may name no other file or address: a playlist would.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi"
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
_NEVER = -(1 << 62)
_WAITING = 64  # packets; of a file that says no order of decoding


class VideoFile:
    """The frames of one file in the order of time, stamped by the file: 0 is where it begins.

    A frame is known by its number in the order of decoding. Listing reads every packet once and
    decodes none.
    """

    def __init__(self, path: Path, source: str, topic: str) -> None:
        """Keep what to read; nothing is opened yet.

        Args:
            path: the file.
            source: `Frame.source`.
            topic: `Frame.topic`.
        """
        self._path, self._names = path, (source, topic)
        self._where = topic if source == topic else f"{source}/{topic}"

    def entries(self, damage: DamageLog) -> Iterator[FrameEntry]:
        """Yield every frame, the same ones in the same order at every call.

        Raises:
            FrameError: the file cannot be opened or holds no video, or PyAV is not installed.
        """
        load_av(self._where)
        waiting: list[tuple[int, int, FrameEntry]] = []
        for found in self._listed(damage):
            place = Place(self._path, found.number)
            entry = FrameEntry(found.stamp_ns, found.load, self._names[1], place)
            heapq.heappush(waiting, (found.stamp_ns, found.number, entry))
            while waiting and (waiting[0][0] <= found.decoded_ns or len(waiting) > _WAITING):
                yield heapq.heappop(waiting)[2]
        yield from (heapq.heappop(waiting)[2] for _ in range(len(waiting)))

    def _listed(self, damage: DamageLog) -> "Iterator[_Listed]":
        """Yield every frame in the order of decoding."""
        with _opened(self._path, self._where) as container:
            stream = _video_of(container, self._where, damage)
            codec = stream.codec_context
            pictures = Pictures(
                partial(_decoder, codec.name, codec.extradata),
                _Feeder(self._path, self._where).packets,
                self._where,
            )
            is_behind_a_gap = _gap_finder(stream)
            # FFmpeg stamps a picture before one that the camera left out one frame too late.
            in_order = container.format.name == "avi" and not codec.has_b_frames
            group = before = None
            shift = chain = last_ns = count = 0
            for number, packet in self._packets(container, stream, damage):
                count += 1
                if number == 0:
                    shift = _shift(container, packet)
                pts = None if in_order else packet.pts
                stamp_ns = _ns(pts, packet.dts, shift, stream, last_ns)
                if packet.is_keyframe:
                    before, chain = group, 0
                    group = Group(codec.name, number, stamp_ns, closed=True)
                    group.packets.append((packet.dts, packet.pts))
                if group and packet.is_corrupt and group.spoilt is None:
                    group.spoilt = number
                if is_behind_a_gap(packet) and group and group.spoilt is None:
                    group.spoilt, group.spoilt_by = number, AFTER_LOST
                chain = zlib.crc32(packet, chain)
                if packet.is_discard:  # the file says that it is not shown
                    continue
                last_ns = max(last_ns, stamp_ns)
                where = f"{self._where} at {stamp_ns}"
                load = frame_loader(
                    partial(packet_of, number, stamp_ns, group, before, where),
                    pictures,
                    self._names,
                    chain,
                    (codec.width, codec.height),
                )
                decoded_ns = _ns(packet.dts, None, 0, stream, _NEVER)
                yield _Listed(number, stamp_ns, decoded_ns, load)
            self._require_whole(container, stream, count, last_ns, damage)

    def _packets(self, container: Any, stream: Any, damage: DamageLog) -> Iterator[tuple[int, Any]]:
        import av

        try:
            yield from _numbered(container, stream)
        except av.error.FFmpegError as error:
            damage.add("damaged file", f"{self._where}: {error.strerror}")

    def _require_whole(
        self, container: Any, stream: Any, count: int, last_ns: int, damage: DamageLog
    ) -> None:
        """Add to the damage what the file says it has and what is not there."""
        counted = stream.frames if "mp4" in container.format.name else 0
        missing = counted - count
        if missing > 0:
            damage.add("cut file", f"{self._where} at {last_ns}, {missing} frames", missing)
        elif is_cut(self._path):
            damage.add("cut file", f"{self._where} at {last_ns}")


class _Listed(NamedTuple):
    number: int
    stamp_ns: int
    decoded_ns: int  # no frame that follows is shown before
    load: Callable[[], Frame]


def _opened(path: Path, where: str) -> Any:
    import av

    try:
        return av.open(f"file:{path}", options=dict(_OPTIONS))
    except (av.error.PermissionError, av.error.FileNotFoundError) as error:
        raise FrameError(f"{where}: {error.strerror}", "unreadable") from None
    except av.error.FFmpegError:  # its text has the whole path
        raise FrameError(
            f"{where}: no video that can be read: it was cut before its index was written, or is "
            "of another kind",
            "damaged file",
        ) from None


def _video_of(container: Any, where: str, damage: DamageLog) -> Any:
    """Return the stream of pictures; others of the same file are added to the damage."""
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams or streams[0].codec_context is None:
        raise FrameError(f"{where}: holds no video that can be decoded", "damaged file")
    if more := len(streams) - 1:
        damage.add("further video stream", where, more)
    codec = streams[0].codec_context
    if container.format.name == "avi" and codec.name in NAMES and codec.has_b_frames:
        raise FrameError(
            f"{where}: {NAMES[codec.name]} with B-frames in an .avi, which does not say when they "
            f"are shown; convert it: ffmpeg -i {where} {Path(where).stem}.mp4",
            "unknown stamps",
        )
    return streams[0]


def _numbered(container: Any, stream: Any) -> Iterator[tuple[int, Any]]:
    """Yield (number, packet), but for empty ones: the end, and frames that were left out."""
    return enumerate(packet for packet in container.demux(stream) if packet.size)


def _gap_finder(stream: Any) -> Callable[[Any], bool]:
    """Return what says of packet after packet whether one that it is made from is missing.

    Only h264 needs it: see nal.py.
    """
    import av

    if stream.codec_context.name != "h264":
        return lambda packet: False
    headers = Headers("h264")
    annex_b = av.BitStreamFilterContext("h264_mp4toannexb", stream)

    def is_behind_a_gap(packet: Any) -> bool:
        try:
            parts = annex_b.filter(av.Packet(bytes(packet)))
            return any(headers.packet(bytes(part)).lost for part in parts)
        except (av.error.FFmpegError, FrameError):  # damaged; the decoder tells it
            return False

    return is_behind_a_gap


def _decoder(codec: str, extradata: bytes | None, _: Group) -> Any:
    import av

    decoder = av.CodecContext.create(codec, "r")
    decoder.extradata = extradata
    decoder.thread_count = 1  # with more, errors are told at other packets
    return decoder


def _shift(container: Any, first: Any) -> int:
    """Return how much later pictures are stamped than they were recorded.

    An .avi holds no stamps, only an order. FFmpeg makes stamps that leave room for pictures that
    are decoded before they are shown; the first picture is shown at once all the same.
    """
    if container.format.name != "avi" or first.pts is None or first.dts is None:
        return 0
    return int(first.pts - first.dts)


def _ns(time: int | None, other: int | None, shift: int, stream: Any, unknown_ns: int) -> int:
    if time is None:
        time, shift = other, 0
    if time is None:
        return unknown_ns
    seconds: Fraction = (time - shift) * stream.time_base
    return round(seconds * NS_PER_S)


class _Feeder:
    """Gives the packets of groups to the decoder: in their order, or after a seek."""

    def __init__(self, path: Path, where: str) -> None:
        self._path, self._where = path, where
        self._container: Any = None
        self._packets: Iterator[Any] = iter(())
        self._waiting: Any = None  # a packet that was read and begins the next group
        self._number = -1  # of that packet

    def packets(self, group: Group) -> Iterator[tuple[int, Any]]:
        """Yield (number, packet) of a group."""
        import av

        try:
            if self._waiting is None or self._number != group.begins:
                self._find(group)
            while self._waiting is not None:
                number, packet, self._waiting = self._number, self._waiting, None
                following = next(self._packets, None)
                self._number, self._waiting = number + 1, following
                yield number, packet
                if following is not None and following.is_keyframe:
                    return
        except av.error.FFmpegError:
            return  # where the file is damaged; the listing has told it

    def _find(self, group: Group) -> None:
        """Go to a key frame: by the file's index, or else from its beginning."""
        ((dts, pts),) = group.packets
        self._number, self._waiting = group.begins, None
        if self._container is not None or group.begins:
            for packet in islice(self._read(dts if dts is not None else pts), _WAITING):
                if (packet.dts, packet.pts) == (dts, pts):
                    self._waiting = packet
                    return
        self._container = None
        self._waiting = next(islice(self._read(None), group.begins, None), None)

    def _read(self, time: int | None) -> Iterator[Any]:
        """Read on from the key frame before a time, or from the beginning."""
        if self._container is None:
            self._container = _opened(self._path, self._where)
        stream = _video_of(self._container, self._where, DamageLog())
        if time is not None:
            self._container.seek(time, stream=stream)
        self._packets = (packet for _, packet in _numbered(self._container, stream))
        return self._packets
