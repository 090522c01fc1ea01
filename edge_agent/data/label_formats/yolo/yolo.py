"""YOLO: a text file beside every image, one line a box, numbers as shares of the picture."""

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path

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
from edge_agent.data.label_formats.marks import UNSEEN, Mark, is_seen
from edge_agent.data.label_formats.picture_size import class_names, size_of
from edge_agent.data.label_formats.yolo.layout import (
    KeyPoints,
    YoloLayout,
    find_layout,
    label_files,
)
from edge_agent.data.manifest import ManifestRow
from fleet_model.durable import sync_file_system, write_durably
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.files.text import read_text
from fleet_model.types import Box

_BOX = 4  # numbers
_OUTSIDE = 0.01  # shares of the picture: tools round outlines
_SIX = (
    "six numbers are three corners of an outline, or a box, a score and the number 1 of a track; "
    "leave out the track numbers"
)


class YoloFormat:
    """Reads what Ultralytics, darknet and labelling tools write; writes Ultralytics' layout.

    A line is `class x_center y_center width height`, with a score, a track's number or both behind
    it, or the class and an outline, which becomes the box around it. Key points are read past where
    data.yaml has their `kpt_shape`. A class without a name is its number. An empty label file
    says that nothing is in the picture; one without a label file nobody has looked at.
    """

    embeds_images = False
    holds_boxes_only = True

    def recognizes(self, path: Path) -> bool:
        """Return whether there is a data.yaml with names, or images and labels side by side."""
        return find_layout(path) is not None

    def entries(self, path: Path, damage: DamageLog) -> Iterator[LabelledEntry]:
        """Yield every image of every split; see DataSetFormat."""
        layout = find_layout(path.resolve(), damage)
        if layout is None:
            raise FrameError(f"{path.name}: is no YOLO data set; expected data.yaml or images/")
        names = layout.image_names(damage)
        for image in image_rows(layout.root, names, damage):
            yield entry_of(layout.root, image, partial(_mark, layout, image, damage))

    def path_of(self, row: ManifestRow) -> str:
        """Return images/name."""
        return f"images/{row.file}"

    def finish(self, out: Path, rows: Iterable[ManifestRow]) -> None:
        """Write data.yaml and a label file for every image that somebody has looked at."""
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
    file = inside(out, label_files(row.file)[0])
    if not row.seen:
        file.unlink(missing_ok=True)
        return
    content = "".join(lines).encode()
    if file.is_file() and file.read_bytes() == content:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.new")
    aside.write_bytes(content)
    aside.replace(file)


def _mark(layout: YoloLayout, image: ImageRow, damage: DamageLog, facts: FrameFacts) -> Mark:
    files = label_files(image.name)
    name = next((file for file in files if (layout.root / file).is_file()), "")
    where = f"{layout.root.name}/{name or files[0]}"
    if not name:
        if image.row is None or not image.row.boxes:
            return mark_of((), image.row, seen=False)
        damage.add("missing label file", f"{where}; the manifest's boxes count")
        return Mark(image.row.label, image.row.boxes)
    try:
        text = read_text(layout.root / name, where, damage)
    except FrameError as error:
        damage.add("bad label file", str(error))
        return UNSEEN
    boxes = tuple(_boxes(text, facts, layout, name, damage))
    return mark_of(boxes, image.row, seen=is_seen(text.split(), boxes, seen=True))


def _boxes(
    text: str, facts: FrameFacts, layout: YoloLayout, name: str, damage: DamageLog
) -> Iterator[Box]:
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        where = f"{layout.root.name}/{name} line {number}"
        try:
            label = layout.label(words[0], name)
        except KeyError:
            damage.add("unknown class", f"{where}: class {words[0][:40]}")
            continue
        try:
            numbers = _center_and_size(words[1:], layout.key_points)
            box = yolo_box(label, numbers, facts.width, facts.height)
        except ValueError as error:
            damage.add("bad label line", f"{where}: {error}")
            continue
        yield from sound_boxes((box,), facts.width, facts.height, where, damage)


def _center_and_size(words: list[str], key_points: KeyPoints | None) -> tuple[Fraction, ...]:
    """Return the center and the size of a line's box, as shares of the picture.

    Raises:
        ValueError: nothing says for certain what the numbers mean.
    """
    numbers = tuple(map(exact, words))
    count = len(numbers)
    if key_points:
        behind = count - _BOX - key_points.points * key_points.numbers
        if 0 <= behind <= 2 or _BOX <= count <= _BOX + 1:  # a score, a track's number
            return numbers[:_BOX]
        raise ValueError(f"{count} numbers, expected 4 and {key_points.points} key points")
    if count in (_BOX, _BOX + 1):
        return numbers[:_BOX]
    inside = all(-_OUTSIDE <= number <= 1 + _OUTSIDE for number in numbers)
    if count == _BOX + 2 and not inside and _is_track(numbers):
        return numbers[:_BOX]
    if count == _BOX + 2 and numbers[-1] == 1:
        raise ValueError(_SIX)
    if count < _BOX + 2 or count % 2:
        raise ValueError(f"{count} numbers, expected x_center y_center width height")
    if not inside:
        raise ValueError("no outline: a number is above 1; key points need kpt_shape in data.yaml")
    xs, ys = numbers[::2], numbers[1::2]
    x, y = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    return x, y, max(xs) - min(xs), max(ys) - min(ys)


def _is_track(numbers: tuple[Fraction, ...]) -> bool:
    """Return whether two numbers behind a box are a score and a track's number above 1."""
    score, number = numbers[-2:]
    return 0 <= score <= 1 and number.denominator == 1 and number > 1
