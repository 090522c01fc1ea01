"""Power cuts while a person labels frames, and while a teacher does."""

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from power_cuts import Scenario
from recorder import mark

from edge_agent.examples.example_store import ExampleStore
from edge_agent.examples.taught import LEARNED, Said, place_of, read_learned, read_taught
from edge_agent.labeling.answer import FRAMES, LABEL, UNSURE, Answer, FrameName, read_answers
from edge_agent.labeling.answers import Answers
from edge_agent.labeling.teacher.record import Record
from fleet_model.types import Box, Frame

FOLDER = "labels"
BOX = Box(label="cup", x0=1.0, y0=2.0, x1=3.0, y1=4.0)


def _frame(number: int) -> Frame:
    return Frame(
        source="r1", topic="/camera", stamp_ns=number, data=_jpeg(number), format="jpeg",
        decode=lambda: None,  # type: ignore[arg-type,return-value]
    )  # fmt: skip


def _jpeg(number: int) -> bytes:
    import cv2
    import numpy as np

    return cv2.imencode(".jpg", np.full((8, 8, 3), 10 * number, np.uint8))[1].tobytes()


def _open(root: Path) -> Answers:
    return Answers(root / FOLDER, "ann", lambda: datetime(2026, 12, 1, tzinfo=timezone.utc))


def _give(answers: Answers, number: int, kind: str = LABEL, **values: Any) -> None:
    name = FrameName("r1", "/camera", number)
    answers.give(_frame(number), Answer(frame=name, kind=kind, width=8, height=8, **values))


def _act(root: Path) -> None:
    answers = _open(root)
    _give(answers, 1, label="star")
    mark()
    _give(answers, 2, boxes=(BOX,))
    mark()
    answers.undo()
    mark()
    answers.undo()
    mark()
    _give(answers, 3, label="star")
    mark()
    _give(answers, 3, UNSURE)
    mark()
    answers.undo()
    mark()
    answers.close()


def _observe(root: Path) -> tuple[list[Any], list[Any]]:
    """Return the answers that count, and what training reads: every picture is whole."""
    given = [(a.frame.stamp_ns, a.kind, a.label) for a in read_answers(root / FOLDER)]
    frames = root / FOLDER / FRAMES
    store = ExampleStore([], "", "", [], answered=frames)
    found = [(e.raw.stamp_ns, e.label, e.boxes) for e in store.examples()]
    assert store.left_out.keys() <= {"missing file"}, store.left_out
    for example in store.examples():
        assert bytes(example.raw.data) == _jpeg(example.raw.stamp_ns)
    return given, found


def _between(states: list[Any], step: int) -> Sequence[Any]:
    """Return the state in which the answer counts, and training does not see it yet."""
    return [(states[step + 1][0], states[step][1])] if step + 1 < len(states) else []


def _resume(root: Path) -> None:
    answers = _open(root)
    while answers.undo():
        pass
    _give(answers, 1, label="star")
    _give(answers, 2, boxes=(BOX,))
    answers.close()


def _settled(root: Path) -> Any:
    return _observe(root), sorted(file.name for file in (root / FOLDER / FRAMES).iterdir())


LABELS = Scenario(
    prepare=lambda root: None,
    act=_act,
    observe=_observe,
    resume=_resume,
    settled=_settled,
    between=_between,
)


def _who(score: float) -> dict[str, Any]:
    return {"teacher": "big", "version": 1, "least": {"star": score}}


def _teach(root: Path) -> None:
    record = Record(root / FOLDER)
    record.begin(_who(0.5))
    mark()
    record.add({"a-1": Said(label="star"), "b-1": Said(refused="unsure")})
    mark()
    record.add({"c-1": Said(label="star")})
    mark()
    record.begin(_who(0.6))
    mark()
    record.add({"a-1": Said(label="star")})
    mark()
    record.finish()
    mark()
    record.forget("big")
    mark()
    record.close()


def _taught(root: Path) -> Any:
    """Return the labels that count, and the frames that ever had one."""
    said = read_taught(root / FOLDER)
    ever = {*map(place_of, said), *read_learned(root / FOLDER)}
    return sorted(said), sorted(ever)


def _some_of(states: list[Any], step: int) -> Sequence[Any]:
    """Return what is there where only some of the answers that came together are whole."""
    (now, _), (later, ever) = states[step], states[min(step + 1, len(states) - 1)]
    return [(later[:count], ever[:count]) for count in range(len(now), len(later))]


def _teach_again(root: Path) -> None:
    record = Record(root / FOLDER)
    record.begin(_who(0.7))
    record.add({"a-1": Said(label="star"), "b-1": Said(label="star")})
    record.finish()
    record.close()


def _settled_teacher(root: Path) -> Any:
    """Return what counts; which frames ever had a label differs from cut to cut."""
    files = {file.name for file in (root / FOLDER).iterdir()} - {LEARNED}
    return sorted(read_taught(root / FOLDER)), sorted(files)


TEACHER = Scenario(
    prepare=lambda root: None,
    act=_teach,
    observe=_taught,
    resume=_teach_again,
    settled=_settled_teacher,
    between=_some_of,
)
