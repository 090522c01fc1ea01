"""What a person does at the page: take frames, answer, take an answer back. Safe in threads."""

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from edge_agent.data.label_formats.data_set import clean_text
from edge_agent.labeling.advice import Advised
from edge_agent.labeling.answer import KINDS, LABEL, Answer
from edge_agent.labeling.answers import Answers
from edge_agent.labeling.frames import Candidate
from edge_agent.labeling.progress import progress_of
from edge_agent.labeling.ranking import Ranking
from edge_agent.labeling.scoring import agreement
from fleet_model.types import Box

AHEAD = 12  # frames that a page may have and not have answered
MOST_BOXES = 500  # of one frame
MOST_CLASSES = 1000
SHOWN_SIDE = 1280  # pixels of the longer side, on the page
QUALITY = 85  # of the JPEG on the page; what is learned is the frame itself
_PICTURES = 24  # that are kept as JPEG
_LONGEST = 200  # characters of a label


class RequestError(Exception):
    """What the page asked for cannot be; the text is for a person."""


class Desk:
    """One person's session, over any number of pages."""

    def __init__(
        self, answers: Answers, ranking: Ranking, classes: Sequence[str], *, of_boxes: bool
    ) -> None:
        """Start with what was answered before.

        Args:
            answers: where they are kept.
            ranking: gives the frames.
            classes: that a person may choose; the first ones have keys.
            of_boxes: whether boxes are drawn; else a frame has one class.
        """
        self._answers, self._ranking = answers, ranking
        self.classes, self.of_boxes = tuple(classes), of_boxes
        self._changing = threading.Lock()
        self._out: OrderedDict[str, Candidate] = OrderedDict()  # id -> taken in this session
        self._open: set[str] = set()  # ids of these without an answer
        self._given = 0  # answers of this session that can be taken back
        self._pictures: OrderedDict[str, bytes] = OrderedDict()

    def state(self) -> dict[str, Any]:
        """Return what the page shows beside the frames."""
        ranked = self._ranking.now
        with self._changing:
            progress = progress_of(self._answers.given)
            can_undo, waiting = self._given > 0, ranked.waiting + len(self._open)
        return {
            "classes": list(self.classes),
            "boxes": self.of_boxes,
            "progress": progress,
            "can_undo": can_undo,
            "ranking": {**ranked._asdict(), "waiting": waiting},
            "problems": self._ranking.problems,
        }

    def upcoming(self, count: int, have: Sequence[str]) -> list[dict[str, Any]]:
        """Return frames to ask about, those first that a page had and did not answer.

        Args:
            count: at most.
            have: ids of the frames that the page has.
        """
        with self._changing:
            held = set(have)
            back = [name for name in self._out if name in self._open and name not in held]
            while len(back) < count and len(self._open) < AHEAD:
                candidate = self._ranking.take()
                if candidate is None:
                    break
                frame_id = candidate.name.id
                self._out[frame_id] = candidate
                self._open.add(frame_id)
                back.append(frame_id)
            return [self._shown(self._out[name]) for name in back[:count]]

    def picture(self, frame_id: str) -> bytes:
        """Return a frame as JPEG for the page.

        Raises:
            RequestError: no page was given it.
            FrameError: it cannot be read any more.
        """
        with self._changing:
            candidate, kept = self._out.get(frame_id), self._pictures.get(frame_id)
        if candidate is None:
            raise RequestError("there is no such frame here; load the page again")
        if kept is None:
            kept = _as_jpeg(candidate)
            with self._changing:
                self._pictures[frame_id] = kept
                while len(self._pictures) > _PICTURES:
                    self._pictures.popitem(last=False)
        return kept

    def answer(self, values: Any) -> dict[str, Any]:
        """Keep an answer, which is on disk when this returns; return `state`.

        Raises:
            RequestError: it makes no sense.
            FrameError: the frame cannot be read any more.
            StorageError: it cannot be written; nothing of it is kept.
        """
        if not isinstance(values, Mapping):
            raise RequestError("expected an object")
        frame_id, kind = values.get("id"), values.get("kind")
        with self._changing:
            candidate = self._out.get(frame_id) if isinstance(frame_id, str) else None
            if candidate is None or kind not in KINDS:
                raise RequestError("there is no such frame or answer here; load the page again")
            given = self._read(candidate, kind, values)
            self._answers.give(candidate.frame, given)
            self._open.discard(candidate.name.id)
            self._given += 1
        return self.state()

    def undo(self) -> dict[str, Any]:
        """Take back the last answer of this session.

        Returns:
            `state`, and "frame": what it was about; None without one.
        """
        frame = None
        with self._changing:
            if self._given:
                gone = self._answers.undo()
                self._given -= 1
                if gone is not None:
                    self._open.add(gone.frame.id)
                    frame = self._shown(self._out[gone.frame.id])
        return {**self.state(), "frame": frame}

    def _read(self, candidate: Candidate, kind: str, values: Mapping[str, Any]) -> Answer:
        """Return the answer that a page sent, without who and when."""
        advised = self._ranking.advised(candidate.name)
        frame = candidate.frame
        width, height = frame.width, frame.height
        label, boxes = "", tuple[Box, ...]()
        if kind == LABEL and self.of_boxes:
            boxes = self._boxes(values.get("boxes"), width, height)
        elif kind == LABEL:
            label = self._label(values.get("label"))
        agrees = None
        if kind == LABEL and advised.answer == ("boxes" if self.of_boxes else "class"):
            agrees = agreement(advised.found, label, boxes, of_boxes=self.of_boxes)
        return Answer(
            frame=candidate.name,
            kind=kind,
            label=label,
            boxes=boxes,
            width=width,
            height=height,
            version=advised.version,
            agreement=None if agrees is None else round(agrees, 4),
        )

    def _label(self, label: Any) -> str:
        if label not in self.classes:
            raise RequestError(f"{str(label)[:_LONGEST]!r} is none of the classes")
        return str(label)

    def _boxes(self, listed: Any, width: int, height: int) -> tuple[Box, ...]:
        """Return boxes, cut at the edges of the picture; width and height 0 are not known."""
        if not isinstance(listed, list) or len(listed) > MOST_BOXES:
            raise RequestError(f"expected a list of at most {MOST_BOXES} boxes")
        boxes = []
        for one in listed:
            if not isinstance(one, Mapping):
                raise RequestError("a box is an object with label, x0, y0, x1, y1")
            corners = [_number(one.get(name)) for name in ("x0", "y0", "x1", "y1")]
            most = (width or math.inf, height or math.inf) * 2
            x0, y0, x1, y1 = (min(max(c, 0.0), m) for c, m in zip(corners, most, strict=True))
            if x0 >= x1 or y0 >= y1:
                raise RequestError("a box has no area in the picture")
            boxes.append(Box(label=self._label(one.get("label")), x0=x0, y0=y0, x1=x1, y1=y1))
        return tuple(boxes)

    def _shown(self, candidate: Candidate) -> dict[str, Any]:
        """Return what a page needs to show a frame."""
        advised = self._ranking.advised(candidate.name)
        frame = candidate.frame
        return {
            "id": candidate.name.id,
            "source": clean_text(frame.source),
            "topic": clean_text(frame.topic),
            "stamp_ns": str(frame.stamp_ns),  # more than JavaScript's numbers hold
            "width": frame.width,
            "height": frame.height,
            "version": advised.version,
            "proposed": _proposed(advised, self.classes),
            "label": candidate.label,
            "boxes": [_corners(box.label, 1.0, box) for box in candidate.boxes],
        }


def _proposed(advised: Advised, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return what the model says: classes with their scores, best first, or boxes."""
    found: list[dict[str, Any]] = []
    for one in advised.found:
        if one.label not in classes:
            continue
        values: dict[str, Any] = {"label": one.label, "score": round(one.score, 4)}
        if one.box is not None:
            values |= zip(("x0", "y0", "x1", "y1"), map(float, one.box), strict=True)
        found.append(values)
    return found[:MOST_BOXES]


def _corners(label: str, score: float, box: Box) -> dict[str, Any]:
    return {
        "label": label, "score": score, "x0": box.x0, "y0": box.y0, "x1": box.x1, "y1": box.y1,
    }  # fmt: skip


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise RequestError("a corner of a box is no number")
    return float(value)


def _as_jpeg(candidate: Candidate) -> bytes:
    import cv2

    from edge_agent.data.pictures.encode import encode_jpeg

    picture = candidate.frame.decode()
    height, width = picture.shape[:2]
    scale = SHOWN_SIDE / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return encode_jpeg(picture, QUALITY)
