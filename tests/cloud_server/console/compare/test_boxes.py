"""Detectors side by side: boxes in pixels of the picture, and how many have a counterpart."""

import json
import re
import time

import cv2
import pytest
from compared_models import Page, detectors
from foreign_models import corners, picture

from cloud_server.console.compare.contenders import contenders
from cloud_server.console.compare.lineup import Lineup
from cloud_server.console.compare.view import answer_values, batch_values

BLOCKS = (("red", 0, 0), ("blue", 2, 1))


def png(*blocks, times=1):
    pixels = picture(*blocks).repeat(times, 0).repeat(times, 1)[..., ::-1]
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return detectors(tmp_path_factory.mktemp("detectors"), exact=0.0, near=0.2, far=1.0)


@pytest.fixture(scope="module")
def lineup(folders):
    one = Lineup(contenders(folders))
    yield one
    one.close()


@pytest.mark.parametrize("times", [1, 3])
def test_boxes_lie_in_the_picture_that_was_sent(lineup, times):
    told = lineup.ask(png(*BLOCKS, times=times))
    found = {one["label"]: one["box"] for one in told["answers"][0]["found"]}
    expected = {label: [times * side for side in corners(c, r)] for label, c, r in BLOCKS}
    assert set(found) == {"red", "blue"}
    for label, box in found.items():
        assert box == pytest.approx(expected[label], abs=0.5)
    assert told["size"] == [128 * times, 128 * times]


def test_boxes_that_share_half_of_their_union_agree(lineup):
    assert lineup.ask(png(*BLOCKS))["agree"] == [1.0, 1.0, 0.0]
    assert lineup.ask(png())["agree"] == [1.0, 1.0, 1.0]  # nothing is there


def test_the_page_draws_each_models_boxes(lineup):
    values = answer_values(lineup, lineup.ask(png(*BLOCKS)))
    assert values["verdict"] == "0 % of the boxes agree (exact: 2, near: 2, far: 2)"
    assert values["width"] == 128
    drawn = [sorted(one["label"] for one in json.loads(c["boxes"])) for c in values["columns"]]
    assert drawn == [["blue", "red"]] * 3
    assert not lineup.has_classes


def test_of_a_data_set_the_least_alike_come_first(lineup, tmp_path):
    for name, blocks in (("empty", ()), ("one", BLOCKS[:1]), ("two", BLOCKS)):
        (tmp_path / f"{name}.png").write_bytes(png(*blocks))
    lineup.begin_batch(tmp_path)
    while lineup.batch.state == "running":
        time.sleep(0.01)
    values = batch_values(lineup)
    assert values["matrices"] == []
    assert values["differ"] == 2
    said = {one["input"].name: [s["said"].label for s in one["said"]] for one in values["gallery"]}
    assert said == {"one.png": ["1 box"] * 3, "two.png": ["2 boxes"] * 3}


def test_a_page_of_detectors_asks_for_no_class(folders):
    page = Page(*folders[:2])
    try:
        assert 'id="truth"' not in page.client.get(page.path).text
        answer = page.post("/ask?truth=red", png(*BLOCKS)).text
        assert "100 % of the boxes agree" in answer
        assert re.findall(r'<p class="big">([^<]+)</p>', answer) == ["1", "100.0 %"]
        assert "Accuracy" not in answer
        assert answer.count('data-width="128"') == 2
    finally:
        assert page.end() == 0
