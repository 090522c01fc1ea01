"""Draw what an inspection found as one picture to look at."""

from collections.abc import Sequence
from datetime import datetime, timezone

import numpy as np

from edge_agent.data.inspection.inspect import CameraSamples, Inspection, Sample, TopicReport
from fleet_model.confusion.lettering import Colour, shortened, text_width, write_text
from fleet_model.files.damage import Damage
from fleet_model.types import NS_PER_S, RgbImage

_NIGHT, _CARD = (20, 22, 26), (33, 36, 42)
_INK, _FAINT, _DIM = (238, 240, 243), (168, 175, 186), (112, 119, 131)
_LIVE, _LOST, _HATCH = (64, 176, 142), (236, 98, 84), (52, 34, 36)
_MARGIN, _GUTTER = 40, 14  # pixels
_COLUMNS, _CELL_WIDTH = 5, 300
_WIDTH = 2 * _MARGIN + _COLUMNS * _CELL_WIDTH + (_COLUMNS - 1) * _GUTTER
_INNER = _WIDTH - 2 * _MARGIN
_CAPTION = 30  # height of the text below a picture
_STRIP = 10  # height of the time line
_LINE = 30  # height of a row of the tables
_TOPIC_COLUMNS = (0.0, 0.34, 0.62, 0.72, 0.82)
_DAMAGE_COLUMNS = (0.0, 0.2, 0.28)


def contact_sheet(inspection: Inspection) -> RgbImage:
    """Return (height, 1636, 3): title, every camera's frames by time, all topics, the damage."""
    blocks = [_title(inspection)]
    for camera in inspection.cameras:
        blocks += [_time_line(camera), _pictures(camera)]
    blocks += [_topics(inspection.topics), _damage(inspection.damage), _canvas(_MARGIN // 2)]
    return np.concatenate(blocks)


def _title(inspection: Inspection) -> RgbImage:
    canvas = _canvas(126)
    topics = [topic for topic in inspection.topics if topic.messages]
    words = [f"{len(topics)} topics", f"{sum(t.messages for t in topics)} messages"]
    if topics:
        first, last = min(t.first_ns for t in topics), max(t.last_ns for t in topics)
        words = [_clock(first, "%Y-%m-%d %H:%M:%S UTC"), _span((last - first) / NS_PER_S), *words]
    write_text(canvas, shortened(inspection.name, 1.25, 1150), (_MARGIN, 54), 1.25, _INK)
    write_text(canvas, "    ".join(words), (_MARGIN, 98), 0.6, _FAINT)
    kinds = len(inspection.damage)
    verdict = f"{kinds} kind{'s' if kinds > 1 else ''} of damage" if kinds else "no damage"
    _badge(canvas, verdict, 54, _LOST if kinds else _LIVE)
    return canvas


def _time_line(camera: CameraSamples) -> RgbImage:
    """Draw a camera's name above its recording time: red are gaps and damaged frames.

    The ticks below are the frames that are shown.
    """
    canvas, report = _canvas(96), camera.topic
    details = f"{report.messages} frames    {report.rate_hz:.1f} Hz"
    if camera.damaged_ns:
        details = f"{len(camera.damaged_ns)} damaged    {details}"
    look = next((sample.remark for sample in camera.samples if sample.picture is not None), "")
    details = f"{look}    {details}" if look else details
    room = _INNER - text_width(details, 0.55) - 40
    write_text(canvas, shortened(report.name, 0.8, room), (_MARGIN, 36), 0.8, _INK)
    write_text(canvas, details, (_WIDTH - _MARGIN, 36), 0.55, _FAINT, align=1.0)
    top = 60
    canvas[top : top + _STRIP, _MARGIN : _WIDTH - _MARGIN] = _LIVE
    for gap in report.gaps:
        end = gap.begins_ns + gap.seconds * NS_PER_S
        left, right = _position(gap.begins_ns, report), _position(end, report)
        canvas[top : top + _STRIP, left : max(right, left + 2)] = _LOST
    for damaged_ns in camera.damaged_ns:
        x = _position(damaged_ns, report)
        canvas[top - 6 : top + _STRIP, x - 1 : x + 2] = _LOST
    for sample in camera.samples:
        x = _position(sample.bag_ns, report)
        canvas[top + _STRIP + 4 : top + _STRIP + 12, x - 1 : x + 1] = _FAINT
    return canvas


def _position(time_ns: float, report: TopicReport) -> int:
    """Return x of a time on the time line."""
    span = max(report.last_ns - report.first_ns, 1)
    return _MARGIN + 1 + round((time_ns - report.first_ns) / span * (_INNER - 2))


def _pictures(camera: CameraSamples) -> RgbImage:
    pictures = [sample.picture for sample in camera.samples if sample.picture is not None]
    shape = pictures[0].shape if pictures else (3, 4)
    height = round(_CELL_WIDTH * min(max(shape[0] / shape[1], 0.5), 1.0))
    rows = -(-len(camera.samples) // _COLUMNS)
    canvas = _canvas(rows * (height + _CAPTION + _GUTTER) + 10)
    for number, sample in enumerate(camera.samples):
        row, column = divmod(number, _COLUMNS)
        left = _MARGIN + column * (_CELL_WIDTH + _GUTTER)
        top = row * (height + _CAPTION + _GUTTER)
        cell = canvas[top : top + height + _CAPTION, left : left + _CELL_WIDTH]
        _draw_cell(cell, sample, camera.topic.first_ns)
    return canvas


def _draw_cell(cell: RgbImage, sample: Sample, first_ns: int) -> None:
    """Fill a cell: the picture or why there is none, since the beginning, time of day."""
    image = cell[:-_CAPTION]
    if sample.picture is None:
        _draw_damaged(image, sample.remark)
    else:
        _fit(image, sample.picture)
    cell[-_CAPTION:] = _CARD
    middle = cell.shape[0] - _CAPTION / 2
    ink = _LOST if sample.picture is None else _INK
    since = f"+{(sample.bag_ns - first_ns) / NS_PER_S:.2f} s"
    write_text(cell, since, (10, middle), 0.5, ink)
    clock = _clock(sample.bag_ns, "%H:%M:%S.%f")[:-5]
    write_text(cell, clock, (_CELL_WIDTH - 10, middle), 0.45, _DIM, align=1.0)


def _fit(image: RgbImage, picture: RgbImage) -> None:
    """Put the whole picture into the middle of `image`."""
    import cv2

    image[:] = _CARD
    factor = min(image.shape[0] / picture.shape[0], image.shape[1] / picture.shape[1])
    height = min(image.shape[0], max(1, round(picture.shape[0] * factor)))
    width = min(image.shape[1], max(1, round(picture.shape[1] * factor)))
    smooth = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    small = cv2.resize(picture, (width, height), interpolation=smooth)
    image[top : top + height, left : left + width] = small


def _draw_damaged(image: RgbImage, reason: str) -> None:
    rows, columns = np.indices(image.shape[:2])
    image[:] = np.where(((rows + columns) // 12 % 2 == 0)[..., None], _HATCH, _CARD)
    height, width = image.shape[:2]
    reason = shortened(reason, 0.6, width - 60)
    half = text_width(reason, 0.6) // 2 + 16
    middle = height // 2
    image[middle - 22 : middle + 22, width // 2 - half : width // 2 + half] = _NIGHT
    write_text(image, reason, (width / 2, middle), 0.6, _LOST, align=0.5)


def _topics(topics: tuple[TopicReport, ...]) -> RgbImage:
    rows = [(("topic", "type", "messages", "rate", "gaps"), _DIM)]
    for topic in topics:
        longest = max((gap.seconds for gap in topic.gaps), default=0.0)
        gaps = f"{len(topic.gaps)}, longest {_span(longest)}" if topic.gaps else "-"
        rate = f"{topic.rate_hz:.1f} Hz" if topic.rate_hz else "-"
        cells = (topic.name, topic.type, str(topic.messages), rate, gaps)
        rows.append((cells, _INK if topic.messages else _DIM))
    return _table("Topics", rows, _TOPIC_COLUMNS)


def _damage(damage: tuple[Damage, ...]) -> RgbImage:
    if not damage:
        return _canvas(0)
    rows = [(("kind", "count", "begins"), _DIM)]
    rows += [((loss.kind, str(loss.count), loss.begins), _LOST) for loss in damage]
    return _table("Damage", rows, _DAMAGE_COLUMNS)


def _table(
    title: str, rows: Sequence[tuple[tuple[str, ...], Colour]], columns: tuple[float, ...]
) -> RgbImage:
    """Draw a table; `columns` is where each begins, as a share of the width."""
    canvas = _canvas(64 + _LINE * len(rows))
    write_text(canvas, title, (_MARGIN, 36), 0.8, _INK)
    starts = [_MARGIN + 14 + share * (_INNER - 28) for share in columns]
    ends = [*starts[1:], _WIDTH - _MARGIN - 14.0]
    for number, (cells, colour) in enumerate(rows):
        top = 60 + _LINE * number
        canvas[top : top + _LINE - 2, _MARGIN : _WIDTH - _MARGIN] = _CARD
        for text, start, end in zip(cells, starts, ends, strict=True):
            words = shortened(text, 0.5, end - start - 20)
            write_text(canvas, words, (start, top + _LINE / 2 - 1), 0.5, colour)
    return canvas


def _badge(canvas: RgbImage, text: str, middle: int, colour: Colour) -> None:
    """Write text on a field of its colour, at the right margin."""
    right = _WIDTH - _MARGIN
    left = right - text_width(text, 0.6) - 36
    canvas[middle - 20 : middle + 20, left:right] = colour
    write_text(canvas, text, ((left + right) / 2, middle), 0.6, _NIGHT, align=0.5, thickness=2)


def _canvas(height: int) -> RgbImage:
    return np.full((height, _WIDTH, 3), _NIGHT, np.uint8)


def _clock(time_ns: int, form: str) -> str:
    """Return a time in UTC; in seconds where no calendar has it."""
    try:
        return datetime.fromtimestamp(time_ns / NS_PER_S, timezone.utc).strftime(form)
    except (ValueError, OverflowError, OSError):
        return f"{time_ns / NS_PER_S:.5f}"


def _span(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes} min {seconds % 60:.0f} s" if minutes else f"{seconds:.2f} s"
