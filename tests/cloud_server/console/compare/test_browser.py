"""A person compares two models in headless Chromium."""

import cv2
import foreign_models
from compared_models import Page, bomb, detectors, picture, visit
from headless_browser import IN_BROWSER
from text_bundles import write_text_bundle

pytestmark = IN_BROWSER


def test_pictures_are_dropped_answered_drawn_and_refused(page, tmp_path):
    files = {"one.png": picture(side=300), "other.jpg": picture(".jpg", 96), "bomb": bomb(8_000)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    page.post("/clear", b"")
    told = visit("pictures", page.url, tmp_path, *(tmp_path / name for name in files))
    # The refusal has status 422, which the browser writes down.
    assert [one for one in told["complaints"] if "422" not in one] == []
    assert "token" not in told["address"]
    assert told["chosen"] == "They differ: teacher: star, student: square"
    assert [name.split()[0] for name in told["names"]] == ["teacher", "student"]
    assert len(told["bars"]) == 6
    assert told["drawn"]
    assert told["numbers"] == ["1", "0.0 %", "1"]
    assert told["dropped"] == ["2", "0.0 %", "1"]
    assert "8000 x 8000 pixels, at most 34 million" in told["bomb"]
    assert "100 MB, at most 20 MB are taken" in told["huge"]
    assert told["batch"] == "12 of 12 inputs are answered differently"
    assert len(told["gallery"]) == 12
    assert told["matrices"] == 2
    assert not told["is stoppable"]
    assert told["again"]
    assert told["cleared"] == ["0", "-", "0"]


def test_a_text_is_asked_by_keyboard_alone(tmp_path):
    for name, turned in (("one", False), ("other", True)):
        (tmp_path / name).mkdir()
        write_text_bundle(tmp_path / name, turned=turned)
    page = Page(tmp_path / "one", tmp_path / "other")
    try:
        told = visit("texts", page.url, tmp_path)
    finally:
        page.end()
    assert told["text"] == "They differ: one: good, other: bad"
    assert told["complaints"] == []


def test_boxes_are_drawn_for_each_model(tmp_path):
    page = Page(*detectors(tmp_path, exact=0.0, far=0.5))
    pixels = foreign_models.picture(("red", 0, 0), ("blue", 2, 1)).repeat(4, 0).repeat(4, 1)
    cv2.imwrite(str(tmp_path / "blocks.png"), pixels[..., ::-1])
    try:
        told = visit("boxes", page.url, tmp_path, tmp_path / "blocks.png")
    finally:
        page.end()
    assert told["chosen"] == "0 % of the boxes agree (exact: 2, far: 2)"
    assert told["drawn"] == [True, True]
    assert told["complaints"] == []
