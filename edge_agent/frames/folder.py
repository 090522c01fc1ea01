"""Read images from a folder."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from edge_agent.frames.decode import decode_compressed, image_format
from edge_agent.frames.source import image_files
from fleet_model.errors import FrameError
from fleet_model.types import Frame


class FolderFrames:
    """The images in a folder and its folders, in the order of their relative names.

    `topic` of a frame is the relative name, e.g. "circle/0001.jpg"; `stamp_ns` is the time the file
    was last written. A single image is read as a folder that holds nothing else.
    """

    def __init__(self, path: Path, topic: str = "") -> None:
        """Keep `path`.

        Raises:
            FrameError: a topic was named, which a folder does not have.
        """
        if topic:
            raise FrameError(f"{path.name}: is a folder of images and has no topic {topic!r}")
        self.path = path.resolve()

    def frames(self) -> Iterator[Frame]:
        """Yield the images; see FrameSource for what happens to damaged ones."""
        root = self.path if self.path.is_dir() else self.path.parent
        named = {file.relative_to(root).as_posix(): file for file in image_files(self.path)}
        failures: list[str] = []
        for name, file in sorted(named.items()):
            where = f"{root.name}/{name}"
            try:
                content, stamp_ns = file.read_bytes(), file.stat().st_mtime_ns
            except OSError as error:
                failures.append(f"{where}: {error.strerror}")
                continue
            yield Frame(
                source=root.name,
                topic=name,
                stamp_ns=stamp_ns,
                data=content,
                format=image_format(content, file.suffix),
                decode=partial(decode_compressed, content, file.suffix, where),
            )
        if failures:
            raise FrameError("; ".join(failures[:3]))
