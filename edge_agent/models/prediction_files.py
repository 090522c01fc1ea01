"""What `edge-agent predict` leaves in files: rows, pictures of frames, charts, COCO's results."""

import csv
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from io import TextIOWrapper
from pathlib import Path, PurePosixPath
from typing import TextIO

from edge_agent.data.frames.source import FrameFacts
from edge_agent.data.label_formats.coco.results import CocoResults, pictures_file
from edge_agent.models.predictions import FRAMES, PredictSummary, Row
from fleet_model.command_line.output_file import output_file, write_output
from fleet_model.errors import FrameError, SettingsError
from fleet_model.types import Box, Example, RgbImage

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


def row_writer(
    file: Path | None, stdout: TextIO | None, columns: Sequence[str], files: ExitStack
) -> Callable[[Row], None]:
    """Return what takes one row after the other.

    Args:
        file: gets the CSV; None: `stdout` does.
        stdout: None: it has other uses.
        columns: of the table, see columns_of.
        files: closes the CSV file.
    """
    if file:
        stream = files.enter_context(output_file(file))
        wrapper = TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        files.callback(wrapper.detach)  # `output_file` closes the stream itself
        stdout = wrapper
    if stdout is None:
        return lambda _: None
    table = csv.writer(stdout, lineterminator="\n")
    head = iter([columns])

    def keep(row: Row) -> None:  # the head comes with the first one, not before an error
        table.writerows([*head, row.cells(columns).values()])

    return keep


def frame_of(example: Example, option: str) -> tuple[FrameFacts, tuple[int, int]]:
    """Return the frame of an example, width and height.

    Raises:
        SettingsError: it is none, and `option` needs one.
        FrameError: only decoding tells its size, and it cannot be decoded.
    """
    frame = example.raw
    if not isinstance(frame, FRAMES):
        raise SettingsError(f"{option} needs camera frames; these examples are none")
    if frame.width and frame.height:
        return frame, (frame.width, frame.height)
    height, width = frame.decode().shape[:2]
    return frame, (width, height)


def annotate(
    folder: Path, index: int, example: Example, rows: Sequence[Row], truth: Sequence[Box] | None
) -> None:
    """Write a picture of a frame with what is found in it, and with boxes that are true.

    `truth` is None where nobody has said which there are.
    """
    from edge_agent.data.box_drawing import with_boxes
    from edge_agent.data.drawing import annotated
    from fleet_model.confusion.picture import encoded

    frame = example.raw
    if not isinstance(frame, FRAMES):
        raise SettingsError("--annotate draws on camera frames; these examples are none")
    boxes = [row.prediction for row in rows if row.prediction and row.prediction.box]
    picture = with_boxes(frame.decode(), boxes, truth)
    for row in rows:
        if row.prediction and not row.prediction.box:
            title = row.prediction.label or row.prediction.text
            picture = annotated(picture, title, row.prediction.score, row.truth)
    stem = f"{PurePosixPath(frame.topic).stem}_{frame.stamp_ns}"
    folder.mkdir(parents=True, exist_ok=True)
    write_output(folder / f"{index:06d}_{stem}.jpg", encoded(picture, ".jpg"))


def write_coco(path: Path, results: CocoResults) -> None:
    """Write the results, and beside them the pictures that their numbers belong to."""
    write_output(pictures_file(path), results.pictures())
    write_output(path, results.results())


def draw_confusion(path: Path, summary: PredictSummary) -> None:
    """Write the confusion matrix as a picture; raises FrameError if no frame has a label."""
    from fleet_model.confusion.picture import confusion_picture

    if not summary.confusion or not summary.confusion.count:
        raise _without_labels(path, summary)
    subject = f"model {summary.model_version}, {summary.confusion.count} labelled frames"
    _write_picture(path, confusion_picture(summary.confusion, subject))


def draw_curves(path: Path, summary: PredictSummary) -> None:
    """Write the workload's curves as a picture; raises FrameError if no frame has a label."""
    from edge_agent.data.curves import curves_picture

    curves = summary.details and summary.details.curves
    if not curves or not curves.lines:
        raise _without_labels(path, summary)
    subject = f"model {summary.model_version}, {summary.labelled} labelled frames"
    _write_picture(path, curves_picture(curves, subject))


def _without_labels(path: Path, summary: PredictSummary) -> FrameError:
    if unknown := ", ".join(summary.unknown_labels):
        return FrameError(f"{path.name}: the model knows no label of these frames: {unknown}")
    return FrameError(
        f"{path.name}: no frame has a label; name a label topic, or sort images into folders "
        "named by label"
    )


def _write_picture(path: Path, picture: RgbImage) -> None:
    from fleet_model.confusion.picture import encoded

    write_output(path, encoded(picture, path.suffix if path.suffix in PICTURES else ".png"))
