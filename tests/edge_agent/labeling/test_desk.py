from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edge_agent.labeling.advice import Advised
from edge_agent.labeling.answer import LABEL, SKIP, UNSURE, Answer, FrameName
from edge_agent.labeling.answers import Answers
from edge_agent.labeling.desk import AHEAD, Desk, RequestError
from edge_agent.labeling.frames import KeptFrames
from edge_agent.labeling.ranking import Ranked
from fleet_model.types import Box, Prediction

pytestmark = pytest.mark.base
CLASSES = ("circle", "star")


class Frames:
    """A ranking that gives frames in their order; the model says what it was told to say."""

    problems = ()

    def __init__(self, candidates, found):
        self.left, self.found = list(candidates), found

    @property
    def now(self):
        return Ranked(True, 9, 9, 9, len(self.left), 0)

    def take(self):
        return self.left.pop(0) if self.left else None

    def advised(self, name):
        answer = "boxes" if any(one.box for one in self.found) else "class"
        return Advised(self.found, 5, answer, 0.5) if self.found else Advised()


@pytest.fixture
def desk_of(bags, tmp_path, robot, clock):
    opened = []

    def make(count=4, *, of_boxes=False, found=()):
        bag = bags.drive(tmp_path / "r1", [""] * count)
        frames = KeptFrames(robot(bag), tmp_path / "index", boxes=of_boxes)
        answers = Answers(tmp_path / "labels", "ann", clock)
        opened.append(answers)
        desk = Desk(answers, Frames(frames.listed(), found), CLASSES, of_boxes=of_boxes)
        return SimpleNamespace(desk=desk, answers=answers)

    yield make
    for answers in opened:
        answers.close()


def test_a_page_gets_frames_ahead_and_after_a_reload_the_same_again(desk_of):
    desk = desk_of().desk
    first = desk.upcoming(2, [])
    ids = [frame["id"] for frame in first]
    assert len(set(ids)) == 2
    assert [frame["id"] for frame in desk.upcoming(2, [])] == ids
    assert ids[0] not in [frame["id"] for frame in desk.upcoming(6, ids)]
    assert desk.upcoming(6, [frame["id"] for frame in desk.upcoming(6, [])]) == []


def test_a_page_cannot_take_all_frames_of_the_robot(desk_of):
    desk = desk_of(AHEAD + 5).desk
    have = []
    for _ in range(AHEAD):
        have += [frame["id"] for frame in desk.upcoming(6, have)]
    assert len(have) == AHEAD


def test_a_frame_is_shown_with_what_the_model_says(desk_of):
    found = [Prediction(label="star", score=0.75), Prediction(label="circle", score=0.25)]
    desk = desk_of(found=found).desk
    (frame,) = desk.upcoming(1, [])
    assert (frame["source"], frame["width"], frame["height"]) == ("r1", 32, 24)
    assert frame["proposed"] == [
        {"label": "star", "score": 0.75},
        {"label": "circle", "score": 0.25},
    ]
    picture = cv2.imdecode(np.frombuffer(desk.picture(frame["id"]), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (24, 32, 3)
    with pytest.raises(RequestError, match="no such frame"):
        desk.picture("../../etc/passwd")


def test_a_class_is_kept_with_the_agreement_of_the_model(desk_of):
    made = desk_of(found=[Prediction(label="star", score=0.75)])
    for frame, label in zip(made.desk.upcoming(2, []), ("star", "circle"), strict=True):
        state = made.desk.answer({"id": frame["id"], "kind": LABEL, "label": label})
    assert [(a.label, a.version, a.agreement) for a in made.answers.given] == [
        ("star", 5, 1.0), ("circle", 5, 0.0),
    ]  # fmt: skip
    assert state["progress"]["labels"] == {"star": 1, "circle": 1}
    assert state["can_undo"]


def test_boxes_are_cut_at_the_edges_and_compared_with_the_models(desk_of):
    found = [Prediction(label="star", score=0.9, box=(0.0, 0.0, 10.0, 10.0))]
    made = desk_of(of_boxes=True, found=found)
    (frame,) = made.desk.upcoming(1, [])
    assert frame["proposed"] == [
        {"label": "star", "score": 0.9, "x0": 0.0, "y0": 0.0, "x1": 10.0, "y1": 10.0}
    ]
    corners = {"x0": -3, "y0": 0.5, "x1": 10, "y1": 99}
    boxes = [{"label": "star", **corners}]
    made.desk.answer({"id": frame["id"], "kind": LABEL, "boxes": boxes})
    (given,) = made.answers.given
    assert given.boxes == (Box(label="star", x0=0.0, y0=0.5, x1=10.0, y1=24.0),)
    # 95 of 240 shared: no counterpart
    assert (given.label, given.agreement) == ("star", 0.0)


def test_a_model_of_classes_is_not_judged_by_boxes(desk_of):
    made = desk_of(of_boxes=True, found=[Prediction(label="star", score=0.75)])
    (frame,) = made.desk.upcoming(1, [])
    made.desk.answer({"id": frame["id"], "kind": LABEL, "boxes": []})
    assert [(a.version, a.agreement) for a in made.answers.given] == [(5, None)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "other"},
        {"kind": LABEL},
        {"kind": LABEL, "label": "moon"},
        {"kind": LABEL, "label": ["star"]},
        {"id": "0", "kind": SKIP},
        {"id": None, "kind": SKIP},
    ],
    ids=str,
)
def test_an_answer_that_makes_no_sense_is_refused(desk_of, wrong):
    made = desk_of()
    (frame,) = made.desk.upcoming(1, [])
    with pytest.raises(RequestError):
        made.desk.answer({"id": frame["id"], **wrong})
    assert made.answers.given == []


@pytest.mark.parametrize(
    "boxes",
    [
        None,
        ["star"],
        [{"label": "moon", "x0": 0, "y0": 0, "x1": 5, "y1": 5}],
        [{"label": "star", "x0": 0, "y0": 0, "x1": 5}],
        [{"label": "star", "x0": 0, "y0": 0, "x1": float("nan"), "y1": 5}],
        [{"label": "star", "x0": 0, "y0": 0, "x1": True, "y1": 5}],
        [{"label": "star", "x0": 40, "y0": 0, "x1": 50, "y1": 5}],
        [{"label": "star", "x0": 0, "y0": 0, "x1": 5, "y1": 5}] * 501,
    ],
)
def test_boxes_that_make_no_sense_are_refused(desk_of, boxes):
    made = desk_of(of_boxes=True)
    (frame,) = made.desk.upcoming(1, [])
    with pytest.raises(RequestError):
        made.desk.answer({"id": frame["id"], "kind": LABEL, "boxes": boxes})
    assert made.answers.given == []


def test_undo_gives_the_frame_back_and_stops_at_the_session_before(desk_of):
    made = desk_of()
    one, two = (frame["id"] for frame in made.desk.upcoming(2, []))
    before = Answer(frame=FrameName("r0", "/camera", 5), kind=SKIP)
    made.answers.give(None, before)
    made.desk.answer({"id": one, "kind": UNSURE})
    made.desk.answer({"id": two, "kind": SKIP})
    assert made.desk.undo()["frame"]["id"] == two
    assert [frame["id"] for frame in made.desk.upcoming(1, [])] == [two]
    assert made.desk.undo()["frame"]["id"] == one
    state = made.desk.undo()
    assert state["frame"] is None
    assert not state["can_undo"]
    assert [one.frame for one in made.answers.given] == [before.frame]
