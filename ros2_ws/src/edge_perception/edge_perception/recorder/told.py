"""What the recorder tells of itself: its status topic and its diagnostics."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edge_perception.diagnostics import ERROR, OK, WARN, Health
from edge_perception.recorder.frame_recorder import Status


class Bounds(NamedTuple):
    """What the parameters allow."""

    spool: Path
    buffer_bytes: int
    budget_bytes: int


def status_message(status: Status, bounds: Bounds, now: Any) -> Any:
    """Return a RecorderStatus; `now` is its stamp."""
    from edge_perception_msgs.msg import RecorderStatus

    counts, disk = status.counts, status.disk
    message = RecorderStatus(
        recording=bool(status.recording),
        bag=str(bounds.spool / disk.bag) if disk.bag else "",
        frames_received=counts["frames seen"],
        frames_written=counts["frames written"],
        labels_written=counts["labels written"],
        events=counts["events"],
        bags_closed=disk.finished,
        left_out=list(status.left_out),
        left_out_counts=list(status.left_out.values()),
        buffered_frames=status.buffered_frames,
        buffered_bytes=status.memory_bytes,
        buffer_limit_bytes=bounds.buffer_bytes,
        disk_bytes=disk.size_bytes,
        disk_limit_bytes=bounds.budget_bytes,
    )
    message.header.stamp = now
    return message


def health_of(
    status: Status, before: Status | None, problems: Sequence[str], bounds: Bounds
) -> Health:
    """Return what diagnostics say.

    Args:
        status: of now.
        before: of the last time: what was left out since then is a warning.
        problems: why nothing arrives, or why the model cannot be asked; "" is none.
        bounds: see there.
    """
    values = {
        **status.counts,
        **{f"left out: {why}": count for why, count in status.left_out.items()},
        **{f"recovered {what}": count for what, count in status.disk.recovered.items()},
        "bags": status.disk.finished,
        "bags removed": status.disk.removed,
        "disk MB": round(status.disk.size_bytes / 1e6, 1),
        "buffer MB": round(status.memory_bytes / 1e6, 1),
        "buffer reaches back s": round(status.held_ns / 1e9, 1),
    }
    if status.error:
        return Health(ERROR, f"{bounds.spool}: {status.error}; frames are lost", values)
    lately = status.left_out - (before.left_out if before else status.left_out)
    words = [
        *filter(None, problems),
        *(f"left out: {count}, {why}" for why, count in lately.items()),
    ]
    if words:
        return Health(WARN, "; ".join(words), values)
    return Health(OK, "records an event" if status.recording else "waits for events", values)
