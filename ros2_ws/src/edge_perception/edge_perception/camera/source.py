"""What camera_node plays: a camera, a video, a bag or a folder of pictures."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from edge_agent.data.frames.source import LIVE_PREFIX, is_live, shown, source_path
from edge_agent.data.frames.video.camera import CameraFrames, CameraSettings
from edge_agent.data.label_formats.videos import is_of_videos
from edge_agent.data.labels import LabelledEntry, LabelSettings, is_bag_at, labelled_entries
from edge_agent.data.manifest import MANIFEST
from fleet_model.errors import FrameError, SettingsError
from fleet_model.files.damage import DamageLog
from fleet_model.types import Frame

EXPECTED = "a camera (/dev/video0, rtsp://host/stream), a video file, a bag or a folder of pictures"
_NEWEST = CameraSettings(queue_frames=1)  # an old picture of a live camera is of no use


class Picture(NamedTuple):
    """One picture that was not yet read."""

    time_ns: int  # when it was recorded; of a camera, when it was decoded
    load: Callable[[], Frame]  # raises FrameError, with `reason`


class CameraSource:
    """One source. A recording can be played again, a camera can be asked again after an error."""

    def __init__(self, text: str, topic: str = "") -> None:
        """Open what a person typed; a recording is looked at, a camera is not asked yet.

        Args:
            text: see EXPECTED; `~` is the home folder.
            topic: which camera topic of a bag; "" takes the only one.

        Raises:
            SettingsError: it names nothing that can be played.
            FrameError: a recording cannot be read, or its camera topic must be named first.
        """
        if not text:
            raise SettingsError(f"the parameter source is empty; expected {EXPECTED}")
        if text.startswith(LIVE_PREFIX):
            raise SettingsError(f"source {text}: is a topic already; expected {EXPECTED}")
        path = source_path(text)
        self.is_live = is_live(path)
        self._path = path if self.is_live else path.expanduser()
        self.name = shown(self._path)
        self._topic = topic
        self._camera: CameraFrames | None = None
        self._stopped = False
        if self.is_live and topic:
            raise SettingsError(f"source {self.name}: a camera has no topics; leave out {topic}")
        self.has_times = self.is_live or self._has_times()
        if not self.is_live:
            self._require_pictures()

    def pictures(self, damage: DamageLog) -> Iterator[Picture]:
        """Yield every picture: of a recording from its beginning to its end, of a camera for ever.

        A camera's lost connections are made again and counted in `damage`, as is whatever else
        cannot be read.

        Raises:
            FrameError: it cannot be read, or a camera never answered.
        """
        if not self.is_live:
            for entry in self._entries(damage):
                yield Picture(entry.time_ns, partial(_frame, entry))
            return
        self._camera = CameraFrames(self._path, _NEWEST)
        if self._stopped:  # meanwhile
            return
        for live in self._camera.entries(damage):
            yield Picture(live.time_ns, live.load)

    @property
    def outage(self) -> str:
        """Return why a camera is not connected now, "" of one that is."""
        return self._camera.outage if self._camera else ""

    def stop(self) -> None:
        """End `pictures` of a camera, for good. From any thread."""
        self._stopped = True
        if self._camera:
            self._camera.stop()

    def _entries(self, damage: DamageLog) -> Iterator[LabelledEntry]:
        return labelled_entries(self._path, LabelSettings(topic=self._topic), damage)

    def _has_times(self) -> bool:
        """Whether its frames say when they were recorded: picture files do not."""
        return (
            is_bag_at(self._path) or is_of_videos(self._path) or (self._path / MANIFEST).is_file()
        )

    def _require_pictures(self) -> None:
        if next(self._entries(DamageLog()), None) is None:
            raise FrameError(f"{self.name}: holds no picture")


def _frame(entry: LabelledEntry) -> Frame:
    return entry.load().frame
