"""Read camera frames live: RTSP streams and the webcams of this machine.

One thread connects, decodes and connects again; the reader gets the newest pictures through a short
queue. Stamps are this machine's clock when a picture was decoded: what cameras send has no date.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edge_agent.data.frames.live import LiveQueue, ending_at_signals
from edge_agent.data.frames.source import FrameEntry, is_webcam, live_name, shown
from edge_agent.data.frames.video.decoder import AFTER, AFTER_LOST, NAMES, NO_KEY, load_av, rgb_of
from edge_agent.data.frames.video.nal import Headers
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.types import Frame

log = logging.getLogger(__name__)

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0  # before the camera is asked again
_JOIN_S = 10.0
LOST = "connection lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSettings:
    """How a camera is listened to."""

    queue_frames: int = 4  # kept while the reader is busy; then the oldest is dropped
    patience_s: float = (
        30.0  # for the first connection; a later one is tried for as long as it takes
    )
    silence_s: float = 5.0  # without a byte until the connection counts as lost
    wait_s: float = _FIRST_WAIT_S  # before the first new try; then twice as long each time


class CameraFrames:
    """The frames of one camera from now on, of the form of a bag's; its clock is this machine's.

    While `entries` is read in the main thread, the first SIGINT or SIGTERM ends it as `stop` does,
    so that a command can still write its summary.
    """

    def __init__(
        self,
        path: Path,
        settings: CameraSettings | None = None,
        connect: Callable[[str, float], Any] | None = None,
    ) -> None:
        """Keep what to listen to; nothing is opened yet.

        Args:
            path: "rtsp://host/stream", "/dev/video0" or "0"; see `source.is_live`.
            settings: see CameraSettings.
            connect: opens a camera by its address and the silence that it may keep; returns an
                av.container.InputContainer.
        """
        name = live_name(path)
        self._address = f"/dev/video{name}" if name.isdecimal() else name
        self.name = self._address if is_webcam(path) else shown(path)
        self._settings = settings or CameraSettings()
        self._connect = connect or (_open_webcam if is_webcam(path) else _open_rtsp)
        self._stopped = threading.Event()
        self._queue = LiveQueue(self.name, self._settings.queue_frames)
        self.outage = ""  # why the camera is not connected now

    def stop(self) -> None:
        """End `entries`, for good; what arrived before is still delivered. From any thread."""
        self._stopped.set()
        self._queue.end(None)

    def entries(self, damage: DamageLog) -> Iterator[FrameEntry]:
        """Yield every frame as it arrives until `stop` is called.

        What does not arrive is counted in `damage`: "queue full" frames that the reader was too
        slow for, "connection lost" times, frames that cannot be decoded.

        Raises:
            FrameError: there is no such camera, or it does not answer within the patience, or
                PyAV is not installed.
        """
        load_av(self.name)
        thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        try:
            with ending_at_signals(self.stop):
                thread.start()
                yield from self._queue.entries(damage)
        finally:
            self._stopped.set()
            thread.join(_JOIN_S)

    def _run(self) -> None:
        error = None
        try:
            self._listen()
        except FrameError as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001  (else the reader would wait for ever)
            error = FrameError(f"{self.name}: {type(failure).__name__} while it was read")
        self._queue.end(error)

    def _listen(self) -> None:
        import av

        settings, begun, arrived = self._settings, time.monotonic(), False
        wait_s = settings.wait_s
        while not self._stopped.is_set():
            connected = False
            try:
                with self._connect(self._address, settings.silence_s) as container:
                    connected = True
                    for frame in _Decoding(container, self._queue).frames():
                        if self._stopped.is_set():
                            return
                        arrived, wait_s, now_ns = True, settings.wait_s, time.time_ns()
                        self.outage = ""
                        self._queue.put(now_ns, partial(_frame, frame, self.name, now_ns))
                reason = "it ended the stream"
            except av.error.FFmpegError as error:  # its text has the password
                reason = error.strerror or type(error).__name__
                if not arrived and _is_final(error):
                    raise FrameError(f"{self.name}: {_said(error, reason)}", LOST) from None
            if not arrived and time.monotonic() - begun > settings.patience_s:
                patience = f"no picture in {settings.patience_s:g} s"
                raise FrameError(f"{self.name}: {patience}: {reason}", LOST)
            self.outage = reason
            if connected:
                self._queue.lost(LOST)
            if wait_s < _LONGEST_WAIT_S:  # then nothing new is to be said
                log.warning("%s: %s; trying again in %.1f s", self.name, reason, wait_s)
            self._stopped.wait(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


class _Decoding:
    """Decodes one connection's pictures; those that are not right are counted and left out."""

    def __init__(self, container: Any, queue: LiveQueue) -> None:
        self._container, self._queue = container, queue
        self._stream = container.streams.video[0]
        codec = self._stream.codec_context
        codec.thread_count = 1
        self._codec = NAMES.get(codec.name) or f"{codec.name} video"
        self._headers = Headers(self._codec) if codec.name in NAMES else None
        if self._headers and codec.extradata:  # parameters may come before the stream only
            with suppress(FrameError):
                self._headers.packet(codec.extradata)
        self._right_from: int | None = None  # number of the key frame that decoding began at
        self._spoilt: tuple[int, str] | None = None  # number of the first wrong picture, reason

    def frames(self) -> Iterator[Any]:
        """Yield the pictures as av.VideoFrame; raises av.error.FFmpegError."""
        packets = (packet for packet in self._container.demux(self._stream) if packet.size)
        for number, packet in enumerate(packets):
            packet.pts = number  # comes back with the picture
            if self._is_wanted(number, packet):
                yield from self._decoded(number, packet)

    def _is_wanted(self, number: int, packet: Any) -> bool:
        """Look at a packet's headers; without a key frame it is not decoded."""
        is_key, is_lost = packet.is_keyframe, False
        if self._headers:
            try:
                info = self._headers.packet(bytes(packet))
            except FrameError as error:
                self._spoil(number, error.reason)
                self._queue.lost(error.reason)
                return False
            if not info.is_picture:  # parameters, which the decoder takes alone as well
                self._decode_parameters(packet)
                return False
            is_key, is_lost = info.is_key, info.lost
        if is_key:
            self._right_from, self._spoilt = number, None
        if self._right_from is None:
            self._queue.lost(NO_KEY)
            return False
        if is_lost:
            self._spoil(number, AFTER_LOST)
        return True

    def _decode_parameters(self, packet: Any) -> None:
        import av

        with suppress(av.error.FFmpegError):  # "no frame"
            packet.decode()

    def _decoded(self, number: int, packet: Any) -> Iterator[Any]:
        import av

        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            self._spoil(number, AFTER)
            self._queue.lost(f"damaged {self._codec}")
            return
        for frame in frames:
            if frame.is_corrupt:
                self._spoil(frame.pts, AFTER)
                self._queue.lost(f"damaged {self._codec}")
            elif self._spoilt and frame.pts >= self._spoilt[0]:
                self._queue.lost(self._spoilt[1])
            else:
                yield frame

    def _spoil(self, number: int, reason: str) -> None:
        self._spoilt = self._spoilt or (number, reason)


def _frame(picture: Any, name: str, stamp_ns: int) -> Frame:
    decode = partial(rgb_of, picture)
    return Frame(
        source=name,
        topic=name,
        stamp_ns=stamp_ns,
        data=b"",
        format="video",
        decode=decode,
        width=picture.width,
        height=picture.height,
    )


def _open_rtsp(address: str, silence_s: float) -> Any:
    import av

    options = {
        "rtsp_transport": "tcp",  # over UDP packets get lost, which few decoders notice
        "protocol_whitelist": "rtsp,rtsps,tcp,tls,crypto,rtp,udp",
        "fpsprobesize": "0",  # its rate is not wanted; finding it holds the first frames back
    }
    return av.open(address, options=options, timeout=silence_s)


def _open_webcam(address: str, silence_s: float) -> Any:
    import av

    return av.open(address, format="v4l2", timeout=silence_s)


def _is_final(error: Exception) -> bool:
    """Whether asking again will not help."""
    import av

    kinds = (av.error.HTTPClientError, av.error.PermissionError, av.error.FileNotFoundError)
    return isinstance(error, (*kinds, av.error.InvalidDataError, av.error.ArgumentError))


def _said(error: Exception, reason: str) -> str:
    import av

    if isinstance(error, av.error.HTTPUnauthorizedError):
        return "asks for a user and password: rtsp://USER:PASSWORD@host/stream"
    if isinstance(error, av.error.FileNotFoundError):
        return "no such camera; plugged-in cameras are /dev/video*"
    return reason
