import pytest

from edge_agent.labeling.answer import LABEL, UNSURE, Answer, FrameName
from edge_agent.labeling.progress import curve, progress_of, thinned_curve

pytestmark = pytest.mark.base


def answers(shares, version=3):
    return [
        Answer(
            frame=FrameName("r1", "/camera", number), kind=LABEL, label="star", version=version,
            agreement=share,
        )
        for number, share in enumerate(shares)
    ]  # fmt: skip


def test_the_curve_has_the_mean_of_the_last_labels():
    assert curve([1.0] * 9) == []
    assert curve([1.0] * 10) == [(10, 1.0)]
    assert curve([0, 1, 1, 0, 1], window=2) == [(2, 0.5), (3, 1.0), (4, 0.5), (5, 0.5)]
    shares = [0.0] * 20 + [1.0] * 20
    assert curve(shares)[10] == (20, 0.0)
    assert curve(shares)[15] == (25, 0.25)
    assert curve(shares)[-1] == (40, 1.0)


def test_a_long_curve_keeps_its_end():
    points = [(n, 0.5) for n in range(10, 1010)]
    thin = thinned_curve(points, most=100)
    assert len(thin) == 100
    assert thin[-1] == (1009, 0.5)
    assert thin[-2] == (999, 0.5)
    assert thinned_curve([]) == []


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ([], ""),
        ([1.0] * 9, "1 more label, and this shows how often the model is right."),
        ([1.0], "9 more labels, and this shows how often the model is right."),
        ([1.0] * 5 + [0.0] * 5, "Version 3 agreed with 50% of your last 10 labels. What it has"),
        ([0.0] * 20 + [1.0] * 19 + [0.0], "Version 3 agreed with 95% of your last 20 labels. More"),
    ],
)
def test_words_say_what_more_labels_would_bring(shares, words):
    said = progress_of(answers(shares))["words"]
    assert said.startswith(words)
    assert bool(said) == bool(words)


def test_only_labels_with_a_model_are_judged_and_each_frame_once():
    first, second = answers([0.0, 1.0])
    unsure = Answer(frame=FrameName("r1", "/camera", 9), kind=UNSURE)
    alone = Answer(frame=FrameName("r1", "/camera", 10), kind=LABEL, label="star")
    again = answers([1.0])[0]
    progress = progress_of([first, second, unsure, alone, again])
    assert progress["frames"] == 3
    assert progress["labels"] == {"star": 3}
    assert progress["words"].startswith("8 more labels")
