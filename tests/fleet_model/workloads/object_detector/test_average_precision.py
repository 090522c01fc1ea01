import contextlib
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_model.workloads.object_detector.average_precision import (
    AREAS,
    LIMITS,
    THRESHOLDS,
    Found,
    Truth,
    evaluate,
    iou,
    picture_scores,
)

pytestmark = pytest.mark.base

BOX = (0, 0, 8, 8)
NAN = pytest.approx(math.nan, nan_ok=True)


def found(*rows):
    """Return the detections of one picture, each (box, score) or (box, score, class)."""
    boxes, scores, classes = zip(
        *(row if len(row) == 3 else (*row, 0) for row in rows), strict=True
    )
    return Found(np.array(boxes), np.array(scores), np.array(classes))


def truth(*boxes, classes=None, **fields):
    classes = [0] * len(boxes) if classes is None else classes
    named = {name: np.array(values) for name, values in fields.items()}
    return Truth(np.array(boxes, float).reshape(-1, 4), np.array(classes, int), **named)


NOTHING_FOUND = Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
NOTHING_THERE = truth()


def right_at(boxes, scores, true):
    """Return the recall of one picture at an overlap of .5, for areas of every size."""
    detections = found(*zip(boxes, scores, strict=True))
    return evaluate([detections], [true], 1).recall[0, 0, 0, -1]


# --------------------------------------------------------------------------------- by hand


def test_the_overlap_of_boxes_is_the_shared_area_by_that_of_both():
    boxes = np.array([[0, 0, 8, 8], [4, 4, 12, 12], [8, 0, 16, 8], [2, 2, 4, 4]], float)
    overlaps = iou(boxes[:1], boxes)[0]
    assert overlaps == pytest.approx([1, 16 / 112, 0, 4 / 64])
    with_crowd = iou(boxes[3:], boxes, np.array([True, False, False, False]))[0]
    assert with_crowd == pytest.approx([1, 0, 0, 1])  # all of it lies in the first
    assert iou(np.zeros((1, 4)), boxes)[0] == pytest.approx([0, 0, 0, 0])  # a point


def test_a_box_found_exactly_is_worth_one_at_every_threshold():
    scores = evaluate([found((BOX, 0.3))], [truth(BOX)], 1)
    assert (scores.map50, scores.map, scores.mean_recall()) == (1.0, 1.0, 1.0)


def test_an_overlap_of_five_eighths_is_right_at_three_thresholds_of_ten():
    scores = evaluate([found(((0, 0, 8, 5), 0.9))], [truth(BOX)], 1)
    at = [scores.mean_precision(float(threshold)) for threshold in THRESHOLDS]
    assert at == [1.0] * 3 + [0.0] * 7
    assert (scores.map50, scores.map) == (1.0, pytest.approx(0.3))
    assert scores.mean_recall() == pytest.approx(0.3)


def test_an_overlap_as_large_as_the_threshold_is_right():
    scores = evaluate([found(((0, 0, 8, 4), 0.9))], [truth(BOX)], 1)
    assert (scores.map50, scores.mean_precision(0.55)) == (1.0, 0.0)


def test_precision_is_read_at_101_recalls_from_the_best_of_this_recall_or_above():
    far, true = (100, 100, 108, 108), (BOX, (20, 20, 28, 28))
    detections = found((true[0], 0.9), (far, 0.8), (true[1], 0.7))
    scores = evaluate([detections], [truth(*true)], 1)
    # Precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1: 1 at 51 recalls up to .5, then 2/3 at 50.
    assert scores.map50 == pytest.approx((51 + 50 * 2 / 3) / 101)
    recall, precision = scores.curve(0)
    assert precision[recall <= 0.5] == pytest.approx(1.0)
    assert precision[recall > 0.5] == pytest.approx(2 / 3)


def test_the_ranking_goes_over_all_pictures_and_equal_scores_have_their_order():
    pictures = [found(((50, 0, 58, 8), 0.5)), found((BOX, 0.5)), found((BOX, 0.9))]
    scores = evaluate(pictures, [NOTHING_THERE, truth(BOX), truth(BOX)], 1)
    # right, wrong, right: the wrong one's picture comes before that of the same score
    assert scores.map50 == pytest.approx((51 + 50 * 2 / 3) / 101)
    swapped = evaluate(
        [pictures[1], pictures[0], pictures[2]], [truth(BOX), NOTHING_THERE, truth(BOX)], 1
    )
    assert swapped.map50 == 1.0


def test_a_second_detection_of_the_same_box_is_wrong():
    detections = found((BOX, 0.9), (BOX, 0.8), ((9, 9, 17, 17), 0.7))
    scores = evaluate([detections], [truth(BOX, (9, 9, 17, 17))], 1)
    assert scores.map50 == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_the_surer_detection_chooses_first_even_if_the_other_fits_better():
    # The sure one overlaps by 5/8 and takes the box; the exact one is left with nothing.
    scores = evaluate([found(((0, 0, 8, 5), 0.9), (BOX, 0.8))], [truth(BOX)], 1)
    assert (scores.map50, scores.mean_precision(0.75)) == (1.0, pytest.approx(0.5))


def test_a_detection_takes_the_box_that_it_overlaps_most():
    true = truth((0, 0, 8, 8), (0, 0, 8, 3))
    assert right_at([(0, 0, 8, 4), (0, 0, 8, 8)], [0.9, 0.8], true) == 1.0  # 4/8, or 3/4
    assert right_at([(0, 0, 8, 5), (0, 0, 8, 8)], [0.9, 0.8], true) == 0.5  # 5/8, or 3/5


def test_of_two_boxes_that_it_overlaps_equally_a_detection_takes_the_later_one():
    first, second, between = (0, 0, 8, 8), (4, 0, 12, 8), (2, 0, 10, 8)  # 48/80 of both
    pictures = [found((between, 0.9), (first, 0.8)), found((between, 0.9), (second, 0.8))]
    true = [truth(first, second)._replace(crowd=np.zeros(2, bool), ignored=np.zeros(2, bool))]
    recalls = []
    for picture in pictures:
        recalls.append(evaluate([picture], true, 1).recall[0, 0, 0, -1])
        assert by_pycocotools([picture], true, 1).eval["recall"][0, 0, 0, -1] == recalls[-1]
    assert recalls == [1.0, 0.5]


def test_boxes_of_another_class_are_no_match():
    pictures = [found((BOX, 0.9, 1))], [truth(BOX, classes=[0])]
    scores = evaluate(*pictures, 2)
    assert scores.average_precision(0.5) == pytest.approx([0, math.nan], nan_ok=True)


def test_a_class_without_a_box_is_no_number_and_does_not_count_in_the_mean():
    scores = evaluate([found((BOX, 0.9, 0), (BOX, 0.9, 2))], [truth(BOX, BOX, classes=[0, 1])], 3)
    assert scores.average_precision() == pytest.approx([1, 0, math.nan], nan_ok=True)
    assert (scores.map50, scores.map) == (0.5, 0.5)
    assert scores.truths[0].tolist() == [1, 1, 0]


def test_without_a_detection_the_value_is_zero_and_without_truth_no_number():
    assert evaluate([NOTHING_FOUND], [truth(BOX)], 1).map == 0.0
    assert evaluate([found((BOX, 0.9))], [NOTHING_THERE], 1).map == NAN
    assert evaluate([NOTHING_FOUND], [NOTHING_THERE], 2).mean_recall() == NAN
    assert evaluate([], [], 2).map50 == NAN


def test_a_crowd_takes_any_number_of_detections_that_lie_in_it_by_half():
    crowd = truth((0, 0, 80, 80), (200, 0, 208, 8), crowd=[True, False])
    hit = ((200, 0, 208, 8), 0.1)
    inside = [((i, i, i + 8, i + 8), 0.9) for i in range(5)]
    assert evaluate([found(*inside, hit)], [crowd], 1).map == 1.0
    half, less = ((76, 0, 84, 8), 0.9), ((77, 0, 85, 8), 0.9)  # 4/8 and 3/8 of it inside
    assert evaluate([found(half, hit)], [crowd], 1).map50 == 1.0
    assert evaluate([found(less, hit)], [crowd], 1).map50 == pytest.approx(0.5)


def test_an_ignored_box_takes_one_detection_and_need_not_be_found():
    true = truth(BOX, (20, 20, 28, 28), ignored=[True, False])
    hit = ((20, 20, 28, 28), 0.1)
    assert evaluate([found(hit)], [true], 1).map == 1.0
    assert evaluate([found((BOX, 0.9), hit)], [true], 1).map == 1.0
    assert evaluate([found((BOX, 0.9), (BOX, 0.8), hit)], [true], 1).map == pytest.approx(0.5)


def test_a_box_that_counts_goes_before_an_ignored_one_that_fits_better():
    true = truth((0, 0, 8, 8), (0, 0, 8, 5), ignored=[True, False])
    assert right_at([(0, 0, 8, 8)], [0.9], true) == 1.0


def test_a_range_of_areas_leaves_out_other_boxes_and_detections_that_match_nothing_in_it():
    small, large = (0, 0, 32, 32), (200, 200, 400, 400)  # 32 x 32 is small and medium
    detections = found((small, 0.5), (large, 0.9), ((500, 0, 700, 200), 0.8))
    scores = evaluate([detections], [truth(small, large)], 1)
    at = {area: scores.mean_precision(area=area) for area in AREAS}
    assert at == {
        "all": pytest.approx((51 + 50 * 2 / 3) / 101),
        "small": 1.0,
        "medium": 1.0,
        "large": 1.0,
    }
    assert scores.truths[:, 0].tolist() == [2, 1, 1, 1]


def test_the_given_area_decides_and_not_that_of_the_box():
    true = truth((0, 0, 200, 200), areas=[1000.0])  # a thin thing
    scores = evaluate([found(((0, 0, 200, 200), 0.9))], [true], 1)
    assert scores.truths[:, 0].tolist() == [1, 1, 0, 0]
    assert (scores.mean_precision(area="small"), scores.mean_precision(area="large")) == (1.0, NAN)


def test_only_the_surest_hundred_of_a_class_in_a_picture_count():
    wrong = [((1000.0 + i, 0, 1008.0 + i, 8), 0.9) for i in range(99)]
    hit, other = (BOX, 0.5), (BOX, 0.5, 1)
    true = truth(BOX, BOX, classes=[0, 1])
    scores = evaluate([found(*wrong, hit, other)], [true], 2)
    assert [scores.recall[0, 0, :, column].tolist() for column in range(len(LIMITS))] == [
        [0.0, 1.0],
        [0.0, 1.0],
        [1.0, 1.0],
    ]
    scores = evaluate([found(*wrong, ((900, 0, 908, 8), 0.9), hit, other)], [true], 2)
    assert scores.average_precision().tolist() == [0.0, 1.0]
    assert (scores.mean_recall(1), scores.mean_recall(100)) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("detections", "true", "said"),
    [
        ([], [NOTHING_THERE], "detections of 0 pictures, truth of 1"),
        (
            [found((BOX, math.nan))],
            [NOTHING_THERE],
            "picture 0: one of its boxes or scores is no n",
        ),
        ([found(((0, 0, 1, math.inf), 1))], [NOTHING_THERE], "picture 0: one of its boxes or sco"),
        ([found((BOX, 1, 2))], [NOTHING_THERE], "picture 0: a class is not one of 0 to 1"),
        ([found((BOX, 1, 0.5))], [NOTHING_THERE], "picture 0: a class is not one of 0 to 1"),
        ([NOTHING_FOUND], [truth(BOX, classes=[-1])], "picture 0: a class is not one of 0 to 1"),
        ([NOTHING_FOUND], [truth(BOX, areas=[math.nan])], "picture 0: one of its boxes or areas"),
        ([NOTHING_FOUND], [truth(BOX, crowd=[True, True])], "picture 0 has 2 flags, 1 classes"),
        (
            [Found(np.zeros((1, 4)), np.ones(2), np.zeros(1))],
            [NOTHING_THERE],
            "picture 0 has 1 boxes, 2 scores, 1 classes; expected as many of each",
        ),
    ],
)
def test_what_does_not_fit_is_refused(detections, true, said):
    with pytest.raises(ValueError, match=said):
        evaluate(detections, true, 2)


def test_a_threshold_that_was_not_measured_is_refused():
    with pytest.raises(ValueError, match=r"an overlap of 0\.4, expected one of 0\.5, 0\.55"):
        evaluate([], [], 1).average_precision(0.4)


# ----------------------------------------------------------------------------- one picture


def score(detections, true, classes=2):
    return picture_scores([detections], [true], classes)[0]


def test_a_picture_in_which_nothing_is_and_nothing_is_found_is_worth_one():
    assert score(NOTHING_FOUND, NOTHING_THERE) == 1.0
    assert picture_scores([], [], 2).shape == (0,)


def test_a_false_alarm_in_an_empty_picture_costs_as_much_as_it_is_sure():
    assert score(found((BOX, 0.25), (BOX, 0.75, 1)), NOTHING_THERE) == pytest.approx(0.25)


def test_a_missed_box_is_worth_nothing_and_one_that_was_found_the_precision_there():
    wrong = (50, 50, 58, 58)
    assert score(NOTHING_FOUND, truth(BOX)) == 0.0
    assert score(found((BOX, 0.9), (wrong, 0.8)), truth(BOX)) == 1.0
    assert score(found((BOX, 0.7), (wrong, 0.8)), truth(BOX)) == pytest.approx(0.5)
    assert score(found((BOX, 0.7)), truth(BOX, wrong)) == pytest.approx(51 / 101)


def test_one_ranking_holds_all_classes_and_a_class_that_is_not_there_is_wrong_in_it():
    true = truth(BOX, (20, 20, 28, 28), classes=[0, 1])
    hits = [(BOX, 0.9), ((20, 20, 28, 28), 0.7, 1)]
    assert score(found(*hits, (BOX, 0.1, 2)), true, 3) == 1.0
    # right, wrong, right
    assert score(found(*hits, (BOX, 0.8, 2)), true, 3) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert score(found((BOX, 0.9, 1)), truth(BOX, classes=[0])) == 0.0


def test_a_picture_of_which_nothing_counts_is_as_an_empty_one():
    crowd = truth((0, 0, 80, 80), crowd=[True])
    assert score(found((BOX, 0.9)), crowd) == 1.0
    assert score(found((BOX, 0.9), ((90, 0, 98, 8), 0.25)), crowd) == pytest.approx(0.75)


def test_pictures_are_scored_by_themselves_and_the_area_plays_no_part():
    large = (0, 0, 200, 200)
    detections = [found((large, 0.9)), NOTHING_FOUND, found((BOX, 0.5)), found((BOX, 0.5, 1))]
    true = [truth(large), truth(BOX), NOTHING_THERE, truth(BOX, classes=[1])]
    assert picture_scores(detections, true, 2).tolist() == [1.0, 0.0, 0.5, 1.0]


# ------------------------------------------------------------------------ random pictures


def random_set(seed, pictures=12, classes=4):
    """Return detections and truth with every case: corners in eighths, so that sums are exact."""
    rng = np.random.default_rng(seed)
    places = rng.permutation(classes)[: rng.integers(2, classes + 1)]  # classes with truth
    detections, true = [], []
    for picture in range(pictures):
        count = rng.integers(0, 7)
        sides = np.exp(rng.uniform(np.log(8), np.log(200), (count, 2)))
        corners = np.hstack([low := rng.uniform(0, 400, (count, 2)), low + sides])
        corners = np.round(corners * 8) / 8
        kinds = rng.choice(places, count)
        own = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
        areas = own * rng.uniform(0.3, 1.0, count) if seed % 2 else None
        crowd, ignored = rng.random((2, count)) < 0.12
        true.append(Truth(corners, kinds, crowd, ignored, areas))

        copies = np.repeat(np.arange(count), rng.integers(0, 4, count))
        jitter = rng.normal(0, 0.08, (len(copies), 4)) * np.tile(sides[copies], 2)
        others = 130 if picture == 0 and seed % 5 == 0 else rng.integers(0, 5)
        free = np.hstack([low := rng.uniform(0, 400, (others, 2)), low + rng.uniform(4, 90)])
        boxes = np.round(np.vstack([corners[copies] + jitter, free]) * 8) / 8
        swapped = rng.random(len(copies)) < 0.1
        labels = np.where(swapped, rng.integers(0, classes, len(copies)), kinds[copies])
        wrong = rng.integers(0, classes, others) if others < 130 else np.full(others, places[0])
        labels = np.concatenate([labels, wrong])
        scores = rng.integers(1, 20, len(boxes)) / 20  # many are equal
        order = rng.permutation(len(boxes))
        detections.append(Found(boxes[order], scores[order], labels[order]))
    return detections, true


@st.composite
def sets(draw):
    return random_set(draw(st.integers(0, 2**32 - 1)), pictures=draw(st.integers(0, 5)))


@given(sets())
def test_every_value_is_a_share_and_no_number_only_without_truth(given_set):
    scores = evaluate(*given_set, 4)
    missing = np.isnan(scores.precision).all(axis=(1, 3))
    assert (missing == (scores.truths == 0)).all()
    assert (np.isnan(scores.recall).any(axis=(1, 3)) == missing).all()
    for values in (scores.precision, scores.recall, picture_scores(*given_set, 4)):
        known = values[~np.isnan(values)]
        assert ((known >= 0) & (known <= 1)).all()


@given(sets())
def test_precision_falls_with_recall_and_recall_with_the_threshold_and_the_limit(given_set):
    scores = evaluate(*given_set, 4)
    assert not (np.diff(scores.precision, axis=3) > 0).any()
    assert not (np.diff(scores.recall, axis=3) < 0).any()


@given(sets(), st.randoms(use_true_random=False))
def test_the_order_of_pictures_and_boxes_matters_only_between_equal_scores(given_set, random):
    detections, true = given_set
    unequal, step = [], 0
    for one in detections:
        unequal.append(
            one._replace(scores=one.scores + np.arange(step, step + len(one.scores)) / 1e6)
        )
        step += len(one.scores)
    order = random.sample(range(len(true)), len(true))
    mixed = []
    for index in order:
        inside = random.sample(range(len(unequal[index].scores)), len(unequal[index].scores))
        mixed.append(Found(*(column[inside] for column in unequal[index])))
    first = evaluate(unequal, true, 4)
    second = evaluate(mixed, [true[index] for index in order], 4)
    np.testing.assert_array_equal(first.precision, second.precision)
    np.testing.assert_array_equal(first.recall, second.recall)


@given(sets())
def test_the_truth_itself_is_found_wholly(given_set):
    true = [one._replace(crowd=None, ignored=None) for one in given_set[1]]
    exact = [Found(one.boxes, np.ones(len(one.boxes)), one.classes) for one in true]
    # The same box twice may be taken in either order; each is still found.
    scores = evaluate(exact, true, 4)
    assert scores.map50 == (1.0 if any(len(one.boxes) for one in true) else NAN)
    assert picture_scores(exact, true, 4).tolist() == [1.0] * len(true)


@given(sets())
def test_an_unsurer_wrong_detection_changes_nothing(given_set):
    detections, true = given_set
    longer = [
        Found(
            np.vstack([one.boxes, [[5000, 5000, 5008, 5008]]]),
            np.append(one.scores, 0.001),
            np.append(one.classes, 0),
        )
        for one in detections
    ]
    first, second = evaluate(detections, true, 4), evaluate(longer, true, 4)
    np.testing.assert_array_equal(first.precision, second.precision)


# ---------------------------------------------------------------------------- pycocotools


def coco(images, annotations, classes):
    """Return the data set as pycocotools has it; identifiers from 1: it takes 0 for no match."""
    from pycocotools.coco import COCO

    data = COCO()
    data.dataset = {
        "images": [{"id": number + 1} for number in range(images)],
        "categories": [{"id": number + 1} for number in range(classes)],
        "annotations": [{"id": n, **one} for n, one in enumerate(annotations, start=1)],
    }
    data.createIndex()
    return data


def annotation(picture, box, kind, area=None, **fields):
    x0, y0, x1, y1 = map(float, box)
    area = (x1 - x0) * (y1 - y0) if area is None else float(area)
    where = {"image_id": picture + 1, "category_id": int(kind) + 1}
    return where | {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": area, "iscrowd": 0} | fields


def by_pycocotools(detections, true, classes):
    """Return an evaluated COCOeval. It knows no ignored box: an area beyond all ranges is one."""
    from pycocotools.cocoeval import COCOeval

    theirs = [
        annotation(
            picture,
            one.boxes[i],
            one.classes[i],
            2e10 if one.ignored[i] else None if one.areas is None else one.areas[i],
            iscrowd=int(one.crowd[i]),
        )
        for picture, one in enumerate(true)
        for i in range(len(one.boxes))
    ]
    ours = [
        annotation(picture, one.boxes[i], one.classes[i], score=float(one.scores[i]))
        for picture, one in enumerate(detections)
        for i in range(len(one.boxes))
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        judged = COCOeval(coco(len(true), theirs, classes), coco(len(true), ours, classes), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return judged


def unknown_as_nan(values):
    return np.where(values == -1, np.nan, values)


@pytest.mark.parametrize("seed", range(24))
def test_all_numbers_are_those_of_pycocotools(seed):
    detections, true = random_set(seed)
    judged = by_pycocotools(detections, true, 4)
    scores = evaluate(detections, true, 4)

    def same(ours, theirs):  # theirs: thresholds, recalls, classes, areas, limits
        np.testing.assert_allclose(ours, unknown_as_nan(theirs), rtol=0, atol=1e-9)

    same(scores.precision.transpose(1, 3, 2, 0), judged.eval["precision"][..., -1])
    same(scores.recall.transpose(1, 2, 0, 3), judged.eval["recall"])
    sizes = ("small", "medium", "large")
    ours = [scores.map, scores.map50, scores.mean_precision(0.75)]
    ours += [scores.mean_precision(area=area) for area in sizes]
    ours += [scores.mean_recall(limit) for limit in LIMITS]
    ours += [scores.mean_recall(area=area) for area in sizes]
    same(np.array(ours), judged.stats)
    assert 0.05 < scores.map < 0.95  # the sets are neither trivial nor hopeless


def test_the_random_sets_have_every_case():
    drawn = [random_set(seed) for seed in range(24)]
    detections = [one for pictures, _ in drawn for one in pictures]
    true = [one for _, pictures in drawn for one in pictures]
    assert sum(one.crowd.sum() for one in true) > 50
    assert sum((one.ignored & ~one.crowd).sum() for one in true) > 50
    assert sum(len(one.boxes) == 0 for one in true) > 10
    assert sum(len(set(one.scores)) < len(one.scores) for one in detections) > 50
    assert max(np.bincount(one.classes, minlength=1).max() for one in detections) > 100
    assert any(np.isnan(evaluate(*one, 4).average_precision()).any() for one in drawn)
