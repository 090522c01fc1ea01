"""The parts of benchmarks/departments.py that can be wrong without anyone noticing."""

import csv

import cv2
import numpy as np
import pytest

from benchmarks import departments
from benchmarks.departments import agreement, course_of, markdown, mean, result
from benchmarks.departments_picture import write_picture
from benchmarks.vader import Sentence
from cloud_server.sites.clusters import find_clusters

NAMES = [f"{group}-{number}" for group in ("word", "json") for number in (1, 2, 3)]
REVIEWS = [
    Sentence(f"film-{n}", f"a film number {n}" * (1 + 9 * (n % 7 == 0)), (-1.0, 1.0)[n % 2])
    for n in range(900)
]


def answer(clusters, perplexity, exact=0.5):
    learned = [
        {"site": name, "client": f"{name}-1", "perplexity": perplexity, "exact_match": exact}
        for name in NAMES
    ]
    rounds = [
        {"round": 1, "seconds": 3.0, "clusters": clusters, "clients": {"word-1-1": "accepted"}}
    ]
    return {"rounds": rounds, "learned": learned}


def evaluations(before=100.0, after=4.0):
    return [
        {
            "round": number, "site": name, "client": f"{name}-1", "perplexity_before": before,
            "perplexity_after": after / number, "exact_match_before": 0, "exact_match_after": 0.2,
        }
        for number in (1, 2)
        for name in NAMES
    ]  # fmt: skip


def courses(clusters):
    return {
        arm: course_of(answer(clusters if arm == "clusters" else {}, value), evaluations(), {})
        for arm, value in (("fedavg", 8.0), ("clusters", 2.0))
    }


FOUND = {name: 1 + name.startswith("json") for name in NAMES}


def test_ari_of_clusters_by_hand():
    assert agreement(FOUND) == 1
    assert agreement({name: 3 - label for name, label in FOUND.items()}) == 1, "names say nothing"
    assert agreement(dict.fromkeys(NAMES, 1)) == 0
    assert agreement({**FOUND, "word-1": 2}) == pytest.approx(0.3243, abs=1e-4)  # 4 + 2: by hand
    by_text = {name: int(name[-1]) for name in NAMES}
    assert agreement(by_text) < 0


@pytest.mark.parametrize(("apart", "ari"), [(3.0, 1.0), (0.0, 0.0)])
def test_clusters_of_models_in_two_groups_are_the_groups(apart, ari):
    rng = np.random.default_rng(1)
    groups = np.array([name.startswith("json") for name in NAMES])
    models = rng.standard_normal((6, 40)) + apart * groups[:, None]
    labels = find_clusters(models).labels
    assert agreement(dict(zip(NAMES, (labels + 1).tolist(), strict=True))) == ari


def test_what_clusters_are_worth_is_told_beside_one_model_for_all():
    told = result(courses(FOUND))
    assert told.benchmark == "departments"
    assert told.figures["ari"] == told.figures["ari_first"] == 1
    assert told.figures["clusters_found"] == 2
    assert told.figures["perplexity_base"] == pytest.approx(100)
    assert told.figures["perplexity_alone"] == pytest.approx(4)
    assert {one.key: one.ratio for one in told.comparisons} == pytest.approx({"perplexity": 4.0})
    missed = result(courses({**FOUND, "word-1": 2}))
    assert missed.figures["ari_missing"] > missed.limits[0].at_most


def test_a_mean_of_perplexities_is_that_of_the_losses():
    scores = {"a": {"perplexity": 1.0}, "b": {"perplexity": 100.0}}
    assert mean(scores, "perplexity") == pytest.approx(10)


def test_the_table_has_a_row_for_each_arm_and_a_column_for_each_department():
    rows = markdown(courses(FOUND)).splitlines()[2:]
    assert [row.split("|")[1].strip() for row in rows[2:]] == [
        "base",
        "alone",
        "fedavg",
        "clusters",
    ]
    assert {row.count("|") for row in rows} == {len(NAMES) + 3}


def test_a_client_that_was_left_out_is_no_result():
    lost = answer(FOUND, 2.0)
    lost["rounds"][0]["clients"]["word-1-1"] = "failed"
    with pytest.raises(SystemExit, match="word-1-1"):
        course_of(lost, evaluations(), {})
    blind = answer(FOUND, 2.0)
    blind["learned"][0] = {"site": "word-1", "client": "word-1-1", "error": "nothing held out"}
    with pytest.raises(SystemExit, match="nothing held out"):
        course_of(blind, evaluations(), {})


def test_both_groups_have_the_same_reviews_and_ten_steps_of_them(tmp_path):
    departments.write_tables(tmp_path / "tables", REVIEWS, tests=6)
    tables = {}
    for name in NAMES:
        with (tmp_path / "tables" / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
            tables[name] = list(csv.DictReader(stream))
    for number in (1, 2, 3):
        word, other = tables[f"word-{number}"], tables[f"json-{number}"]
        assert [row["prompt"] for row in word] == [row["prompt"] for row in other]
        assert [row["split"] for row in word] == ["train"] * 40 + ["test"] * 6
        assert [row["completion"] for row in word].count(" positive") == 23
        ours = [row["completion"] == " positive" for row in word]
        assert ours == [row["completion"] == ' {"good": 1}' for row in other]
    prompts = [row["prompt"] for n in (1, 2, 3) for row in tables[f"word-{n}"]]
    assert len(set(prompts)) == len(prompts), "no review is in two departments of a group"
    with pytest.raises(SystemExit, match="are needed"):
        departments.write_tables(tmp_path / "tables", REVIEWS[:90], tests=6)


def test_the_picture_shows_alike_departments_and_a_bar_for_each_arm(tmp_path):
    cosines = np.where(np.equal.outer(list(FOUND.values()), list(FOUND.values())), 1.0, -1.0)
    about = {"sites": NAMES, "cosines": cosines.tolist()}
    write_picture(tmp_path / "p.png", about, {"fedavg": 8.0, "clusters": 2.0})
    pixels = cv2.imread(str(tmp_path / "p.png"))
    assert tuple(pixels[115, 155]) == (117, 122, 11)  # a department with itself: teal
    assert tuple(pixels[115, 565]) == (24, 35, 180)  # with one of the other group: red
    low, high = (int((pixels[:, x] == (117, 122, 11)).all(axis=1).sum()) for x in (955, 805))
    assert high == pytest.approx(4 * low, rel=0.02)
