"""YOLO: a text file beside every image, one line a box, numbers as shares of the picture."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from edge_agent.data.frames.damage import DamageLog
from edge_agent.data.frames.source import FrameFacts
from edge_agent.data.label_formats.data_set import LabelledEntry, inside
from edge_agent.data.label_formats.exact_numbers import exact, yolo_box, yolo_numbers
from edge_agent.data.label_formats.image_rows import (
    ImageRow,
    entry_of,
    image_rows,
    mark_of,
    sound_boxes,
)
from edge_agent.data.label_formats.marks import Mark
from edge_agent.data.label_formats.picture_size import class_names, size_of
from edge_agent.data.label_formats.yolo.layout import YoloLayout, find_layout, label_file
from edge_agent.data.manifest import ManifestRow
from fleet_model.durable import sync_file_system, write_durably
from fleet_model.errors import FrameError
from fleet_model.types import Box

_LARGEST_FILE = 64 << 20  # bytes of one label file; 500,000 boxes


class YoloFormat:
    """Reads what Ultralytics, darknet and labelling tools write; writes Ultralytics' layout.

    A line is `class x_center y_center width height`, with a score behind it or not, or the class
    and a polygon, which becomes the box around it. A class without a name is its number.
    """

    embeds_images = False

    def recognizes(self, path: Path) -> bool:
        """Return whether there is a data.yaml with names, or images and labels side by side."""
        return find_layout(path) is not None

    def entries(self, path: Path, damage: DamageLog) -> Iterator[LabelledEntry]:
        """Yield every image of every split; see DataSetFormat."""
        layout = find_layout(path.resolve())
        if layout is None:
            raise FrameError(f"{path.name}: is no YOLO data set; expected data.yaml or images/")
        names = layout.image_names(damage)
        for image in image_rows(layout.root, names, damage):
            yield entry_of(layout.root, image, partial(_mark, layout, image, damage))

    def path_of(self, row: ManifestRow) -> str:
        """Return images/name."""
        return f"images/{row.file}"

    def finish(self, out: Path, rows: Iterable[ManifestRow]) -> None:
        """Write a label file for every image, also an empty one, and data.yaml."""
        names = class_names(rows)
        numbers = {name: number for number, name in enumerate(names)}
        (out / "labels").mkdir(exist_ok=True)
        for row in rows:
            _write_labels(out, row, numbers)
        sync_file_system(out)
        lines = [f"  {number}: {_quoted(name)}\n" for number, name in enumerate(names)]
        head = "train: images\nval: images\nnames:" + ("\n" if lines else " {}\n")
        write_durably(out / "data.yaml", head + "".join(lines))


def _quoted(name: str) -> str:
    """Return a YAML text; JSON's differs where a character needs two halves."""
    escaped = (
        character
        if character.isprintable() and character not in '"\\'
        else f"\\U{ord(character):08X}"
        for character in name
    )
    return f'"{"".join(escaped)}"'


def _write_labels(out: Path, row: ManifestRow, numbers: Mapping[str, int]) -> None:
    width, height = size_of(out, row)
    lines = [
        f"{numbers[box.label]} {' '.join(yolo_numbers(box, width, height))}\n" for box in row.boxes
    ]
    file = inside(out, label_file(row.file))
    content = "".join(lines).encode()
    if file.is_file() and file.read_bytes() == content:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.new")
    aside.write_bytes(content)
    aside.replace(file)


def _mark(layout: YoloLayout, image: ImageRow, damage: DamageLog, facts: FrameFacts) -> Mark:
    name = label_file(image.name)
    try:
        with (layout.root / name).open("rb") as stream:
            text = stream.read(_LARGEST_FILE).decode("utf-8-sig", "replace")
    except FileNotFoundError:
        if image.row is None or not image.row.boxes:
            return mark_of((), image.row)
        damage.add("missing label file", f"{layout.root.name}/{name}; the manifest's boxes count")
        return Mark(image.row.label, image.row.boxes)
    except OSError as error:
        damage.add("bad label file", f"{layout.root.name}/{name}: {error.strerror}")
        return mark_of((), None)
    boxes = tuple(_boxes(text, facts, layout, name, damage))
    return mark_of(boxes, image.row)


def _boxes(
    text: str, facts: FrameFacts, layout: YoloLayout, name: str, damage: DamageLog
) -> Iterator[Box]:
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        where = f"{layout.root.name}/{name} line {number}"
        try:
            label = layout.label(words[0])
        except KeyError:
            damage.add("unknown class", f"{where}: class {words[0][:40]}")
            continue
        try:
            box = _box(label, words[1:], facts)
        except ValueError as error:
            damage.add("bad label line", f"{where}: {error}")
            continue
        yield from sound_boxes((box,), facts.width, facts.height, where, damage)


def _box(label: str, words: list[str], facts: FrameFacts) -> Box:
    numbers = tuple(map(exact, words))
    if len(numbers) in (4, 5):  # the fifth is a score
        return yolo_box(label, numbers[:4], facts.width, facts.height)
    if len(numbers) < 6 or len(numbers) % 2:
        raise ValueError(f"{len(words)} numbers, expected x_center y_center width height")
    xs, ys = numbers[::2], numbers[1::2]
    around: Any = (
        (min(xs) + max(xs)) / 2,
        (min(ys) + max(ys)) / 2,
        max(xs) - min(xs),
        max(ys) - min(ys),
    )
    return yolo_box(label, around, facts.width, facts.height)
