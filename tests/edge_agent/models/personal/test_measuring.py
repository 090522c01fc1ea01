"""Which is better on a robot's own examples: the shared model, or what it has of its own."""

import numpy as np
import pytest

from edge_agent.models.personal.measuring import NOT_BETTER, Asked, Own, Truth, choose, own_labels
from fleet_model.bundle import Task
from fleet_model.personal.choice import OWN_SHARES
from fleet_model.types import Example
from fleet_model.workloads.image_classifier import ImageClassifier

CUPS = ImageClassifier(("cup", "fork", "plate"))


def truth(label, *logits):
    index = CUPS.labels.index(label)
    outputs = {"logits": np.array(logits, np.float32)}
    return Truth(outputs, {"class": np.array(index, np.int32)})


def unsure(label):
    """An answer that is nearly a tie between cup and fork, for the fork."""
    return truth(label, 0.0, 0.5, -9.0)


MOSTLY_CUPS = Own({"cup": 90.0, "fork": 10.0}, "digest")
SHARES = Asked(own_shares=True, tensors="")
TENSORS = Asked(own_shares=False, tensors="own.safetensors")
BOTH = Asked(own_shares=True, tensors="own.safetensors")


def test_own_shares_run_where_they_are_better():
    """log 9 is more than .5: every answer becomes a cup, six of eight are."""
    answers = [*map(unsure, ["cup"] * 6 + ["fork"] * 2)]

    choice = choose(CUPS, "int8", SHARES, MOSTLY_CUPS, {(): answers})

    assert choice.uses == choice.asked == (OWN_SHARES,)
    assert (choice.measure, choice.examples, choice.precision) == ("accuracy", 8, "int8")
    assert (choice.shared, choice.personal) == (0.25, 0.75)
    assert (choice.counts, choice.digest, choice.why) == (MOSTLY_CUPS.counts, "digest", "")


@pytest.mark.parametrize(
    ("own", "labels", "why"),
    [
        (MOSTLY_CUPS, ["cup"] * 4 + ["fork"] * 4, NOT_BETTER),  # four are right either way
        (MOSTLY_CUPS, ["cup"] * 2 + ["fork"] * 6, NOT_BETTER),
        (MOSTLY_CUPS, ["cup"] * 5 + ["fork"], "6 held-out examples with a label, at least 7"),
        (MOSTLY_CUPS, ["cup"] * 9, "all held-out examples have the same label"),
        (MOSTLY_CUPS, [], "0 held-out examples"),
        (Own({}, "", "this robot has no examples"), ["cup", "fork"] * 4, "has no examples"),
    ],
)
def test_else_the_shared_model_runs_with_the_reason(own, labels, why):
    choice = choose(CUPS, "fp32", SHARES, own, {(): [*map(unsure, labels)]})

    assert choice.uses == ()
    assert why in choice.why
    assert why in choice.words


def test_answers_that_are_no_numbers_choose_nothing(monkeypatch):
    monkeypatch.setattr(
        CUPS, "measure", lambda outputs, targets: {"accuracy": np.nan}, raising=False
    )
    answers = {(): [*map(unsure, ["cup", "fork"] * 4)]}
    choice = choose(CUPS, "fp32", SHARES, MOSTLY_CUPS, answers)
    assert choice.uses == ()
    assert choice.why == "accuracy is no number"
    assert choice.model_dump_json()


CUP, FORK = (9.0, 0.0, 0.0), (0.0, 9.0, 0.0)
LABELS = ["cup"] * 6 + ["fork"] * 2


@pytest.mark.parametrize(
    ("asked", "own_answers", "uses", "personal"),
    [
        (TENSORS, [CUP] * 6 + [FORK] * 2, ("own_tensors",), 1.0),
        (TENSORS, [FORK] * 8, (), 0.25),  # equal is not better
        (TENSORS, [FORK] * 6 + [CUP] * 2, (), 0.0),
        # Shares alone make six of eight right; of equals the one with less of the robot's own runs.
        (BOTH, [CUP] * 8, ("own_shares",), 0.75),
        (BOTH, [CUP] * 6 + [FORK] * 2, ("own_tensors",), 1.0),
        (BOTH, [(0.0, 0.5, 0.0)] * 6 + [FORK] * 2, ("own_shares", "own_tensors"), 1.0),
    ],
)
def test_the_best_of_the_robots_own_runs(asked, own_answers, uses, personal):
    answers = {
        (): [*map(unsure, LABELS)],
        ("own_tensors",): [
            truth(label, *given) for label, given in zip(LABELS, own_answers, strict=True)
        ],
    }
    choice = choose(CUPS, "fp32", asked, MOSTLY_CUPS, answers)

    assert choice.uses == uses
    assert (choice.shared, choice.personal) == (0.25, personal)
    assert choice.tensors == "own.safetensors"


def test_why_own_tensors_are_not_measured_is_told():
    asked = Asked(own_shares=False, tensors="", no_tensors="own tensors are of another trunk")
    assert asked.parts == ("own_tensors",)
    choice = choose(CUPS, "fp32", asked, MOSTLY_CUPS, {(): [*map(unsure, LABELS)]})
    assert choice.words == "the shared model; own tensors are of another trunk"
    assert choice.counts == {}  # nobody asked for them


class Source:
    """A source of the robot's owner; `module:factory` of this test."""

    def __init__(self, labels="", held_out="", fails=""):
        self.labels, self.held_out, self.fails = labels, held_out, fails

    def examples(self):
        if self.fails:
            raise ValueError(self.fails)
        for number, label in enumerate(self.labels.split()):
            yield Example(raw=None, key=f"k{number}", label=label)
        for number, label in enumerate(self.held_out.split()):
            yield Example(raw=None, key=f"h{number}", label=label, held_out=True)


@pytest.fixture
def count(monkeypatch):
    monkeypatch.setattr("edge_agent.examples.source.load_plugin", lambda table, name: Source)
    task = Task(**CUPS.task.model_dump())
    return lambda **options: own_labels(CUPS, {"name": "test:Source", "options": options}, task)


def test_training_examples_are_counted_by_label_without_reading_them(count):
    own = count(labels="cup fork cup spoon cup", held_out="plate")
    assert own.counts == {"cup": 3.0, "fork": 1.0}
    assert own.no_shares == ""


def test_the_digest_tells_other_examples(count):
    some = count(labels="cup fork cup", held_out="plate")
    assert some.digest == count(labels="cup fork cup", held_out="plate").digest
    others = [
        count(labels="cup cup fork", held_out="plate"),
        count(labels="cup fork cup", held_out="cup"),
        count(labels="cup fork cup"),
    ]
    assert len({some.digest, *(one.digest for one in others)}) == 4


def test_nothing_to_count_is_said(count):
    assert count(held_out="cup").no_shares == "this robot has no training examples"
    assert count(fails="a bug").no_shares == "this robot's examples cannot be read"
    assert own_labels(CUPS, None, CUPS.task).no_shares == "this robot has no examples"
