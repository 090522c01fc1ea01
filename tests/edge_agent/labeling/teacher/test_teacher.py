"""A teacher by value: calibrated on what people have said, in the words of the fleet."""

from types import SimpleNamespace

import numpy as np
import pytest

from edge_agent.examples.taught import OTHER, UNREADABLE, UNSURE, Said
from edge_agent.labeling.teacher.teacher import taught_by
from edge_agent.labeling.teacher.wanted import Wanted
from fleet_model.bundle import WorkloadSpec
from fleet_model.errors import FrameError, SettingsError
from fleet_model.types import Box, Example, Frame
from fleet_model.workload import rebuild

pytestmark = pytest.mark.base

CLASSIFIER = ("image-classifier", {"labels": ["cup", "fork", "truck"], "image_size": 32})
DETECTOR = ("object-detector", {"labels": ["duck", "ball"], "image_size": 128})


def picture(value):
    """Return a frame of one gray, which is what an engine here answers by."""
    return Frame(
        source="s", topic="t", stamp_ns=0, data=b"", format="rgb8", width=128, height=128,
        decode=lambda: np.full((128, 128, 3), value, np.uint8),
    )  # fmt: skip


def damaged():
    def decode():
        raise FrameError("it is cut")

    return Frame(source="s", topic="t", stamp_ns=0, data=b"", format="x", decode=decode)


def engine(workload, run):
    """Return an engine whose outputs are a function of the gray."""
    spec = WorkloadSpec(name=workload[0], config=workload[1])
    return SimpleNamespace(
        workload=rebuild(spec),
        manifest=SimpleNamespace(workload=spec),
        run=lambda inputs: run(float(inputs["image"].max())),
    )


def logits(gray):
    """Below 100 a cup, below 200 a fork, then a truck; the surer the farther from the border."""
    best = int(gray // 100)
    values = np.zeros(3, np.float32)
    values[best] = (gray % 100) / 10
    return {"logits": values}


def seen(label, *grays):
    return [Example(raw=picture(g), key=f"{label}{g}", label=label, held_out=True) for g in grays]


def wanted(*classes, answer="class", **former):
    return Wanted(classes=classes, answer=answer, former=former)


def quiet():
    """Count no frame."""


def score(gray):
    best = np.exp((gray % 100) / 10)
    return float(best / (best + 2))


def test_the_score_of_a_class_is_that_of_people_s_frames():
    teacher, unknown = taught_by(engine(CLASSIFIER, logits), wanted("cup", "fork", "spoon"))
    assert unknown == ["spoon"]
    known = [
        *seen("cup", *range(30, 90, 5)), *seen("fork", 10, 12),  # twelve cups are right, two wrong
        *seen("fork", *range(150, 190, 5)),  # eight: too few
        *seen("spoon", 95),  # a class that it does not know is a wrong answer, too
    ]  # fmt: skip
    least = teacher.least(known, 0.9, quiet)
    assert least == {"cup": pytest.approx(score(30))}
    assert teacher.least(known, 0.95, quiet) == {}
    assert teacher.least(known, 0.8, quiet) == {"cup": pytest.approx(score(10))}
    assert teacher.say(picture(40), least) == Said(label="cup", score=round(score(40), 4))
    assert teacher.say(picture(29), least) == Said(refused=UNSURE)
    assert teacher.say(picture(180), least) == Said(refused=UNSURE)
    assert teacher.say(picture(250), least) == Said(refused=OTHER, other="truck")
    assert teacher.say(damaged(), least) == Said(refused=UNREADABLE)


def test_its_words_are_the_fleet_s():
    teacher, unknown = taught_by(engine(CLASSIFIER, logits), wanted("mug", "truck", cup="mug"))
    assert unknown == []
    least = teacher.least(seen("mug", *range(30, 90, 5)), 0.95, quiet)
    assert teacher.say(picture(80), least).label == "mug"
    assert teacher.say(picture(180), least) == Said(refused=OTHER, other="fork")


def test_without_held_out_frames_nothing_tells_when_it_is_right():
    teacher, _ = taught_by(engine(CLASSIFIER, logits), wanted("cup", "fork"))
    with pytest.raises(SettingsError, match="no frame that a person has labelled is held out;"):
        teacher.least([], 0.95, quiet)
    one = Example(raw=damaged(), key="x", label="cup", held_out=True)
    with pytest.raises(SettingsError, match=r"can be read \(it is cut\); label frames first"):
        teacher.least([one], 0.95, quiet)


@pytest.mark.parametrize(
    ("workload", "wish", "words"),
    [
        (CLASSIFIER, wanted("duck", answer="boxes"), "answers class, and this robot learns boxes"),
        (CLASSIFIER, wanted("a", "b"), "knows cup, fork, truck, and none of a, b"),
        (DETECTOR, wanted("duck", "cup", answer="boxes"), "none of cup, .* taught as nothing"),
    ],
)
def test_one_that_does_not_suit_the_fleet_is_refused(workload, wish, words):
    with pytest.raises(SettingsError, match=words):
        taught_by(engine(workload, logits), wish)


def test_two_of_its_classes_are_not_one_label():
    with pytest.raises(SettingsError, match="no name twice"):
        taught_by(engine(CLASSIFIER, logits), wanted("mug", cup="mug", fork="mug"))


# ------------------------------------------------------------------------------------------ boxes

LEFT, RIGHT = (10, 10, 40, 40), (60, 60, 110, 110)


def found(*boxes):
    """Return what a detector answers: (corners, score, class) each."""
    rows = {
        "boxes": np.zeros((100, 4), np.float32), "scores": np.zeros(100, np.float32),
        "classes": np.zeros(100, np.int32),
    }  # fmt: skip
    for row, (corners, sure, number) in enumerate(boxes):
        rows["boxes"][row], rows["scores"][row], rows["classes"][row] = corners, sure, number
    return rows


def box(label, corners):
    return Box(label=label, x0=corners[0], y0=corners[1], x1=corners[2], y1=corners[3])


def test_boxes_are_labels_where_all_of_them_are_sure():
    answers = {
        1: found((LEFT, 0.6, 0)), 2: found((RIGHT, 0.9, 1), (LEFT, 0.7, 0)),
        3: found((LEFT, 0.9, 0), (RIGHT, 0.5, 1)), 4: found(), 5: found((LEFT, 0.1, 0)),
        6: found((LEFT, 0.7, 0), (RIGHT, 0.1, 1)), 7: found((RIGHT, 0.8, 2)),
        8: found((LEFT, 0.7, 0), ((130, 130, 140, 140), 0.65, 0)),
        9: found(((130, 130, 140, 140), 0.9, 0), (LEFT, 0.7, 0), (RIGHT, 0.1, 1)),
    }  # fmt: skip
    three = ("object-detector", {"labels": ["duck", "ball", "tree"], "image_size": 128})
    teacher, _ = taught_by(
        engine(three, lambda gray: answers[int(gray)]), wanted("ball", "duck", answer="boxes")
    )
    right = (box("duck", LEFT), box("ball", RIGHT))
    held_out = [
        *(Example(raw=picture(1), key=f"a{i}", boxes=right[:1]) for i in range(10)),
        *(Example(raw=picture(2), key=f"b{i}", boxes=right) for i in range(10)),
        *(Example(raw=picture(7), key=f"c{i}", boxes=right[1:]) for i in range(10)),
    ]
    least = teacher.least(held_out, 0.95, quiet)
    assert least == {"duck": pytest.approx(0.6), "ball": pytest.approx(0.9)}

    def say(gray):
        return teacher.say(picture(gray), least)

    assert say(2) == Said(boxes=(right[1], right[0]), score=0.7)
    assert say(1) == Said(boxes=right[:1], score=0.6)
    assert say(6) == Said(boxes=right[:1], score=0.7)  # what is hardly there is nothing
    for gray in (3, 4, 5):
        assert say(gray) == Said(refused=UNSURE)
    assert say(7) == Said(refused=OTHER, other="tree")
    assert say(8) == Said(boxes=right[:1], score=0.7)  # what lies outside of the frame is nothing
    assert say(9) == Said(refused=UNSURE)  # and takes no place
