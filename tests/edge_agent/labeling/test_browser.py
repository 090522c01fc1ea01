"""A person labels in headless Chromium, is killed in the middle, and a robot learns from it."""

import signal
from pathlib import Path

import pytest
from headless_browser import IN_BROWSER, told_by

from edge_agent.data.manifest import MANIFEST, DataSetManifest, ManifestRow, write_manifest
from edge_agent.examples.left_out import TOO_NEAR
from edge_agent.examples.source import source_of
from edge_agent.robot.settings import load_settings
from fleet_model.types import Box

pytestmark = IN_BROWSER


def browse(kind, page, folder):
    """Return what the page told a person."""
    told = told_by(Path(__file__).with_name("browse.py"), kind, page.url, folder)
    assert told["complaints"] == []
    assert all(url.startswith(page.origin) for url in told["asked"])
    assert not any(told["axe"].values()), told["axe"]
    return told


def learned(folder, labels=()):
    """Return the examples of the robot, as a round would have them."""
    source = source_of(load_settings(folder / "agent.toml", {}), read_only=True)
    return list(source.open(labels).examples())


def test_twenty_frames_by_keyboard_and_none_is_lost_by_a_kill(label, folder, bags):
    bags.drive(folder / "bag" / "long", [""] * 30, start_ns=10**18)
    (folder / "bag").rename(folder / "bags")
    settings = (folder / "agent.toml").read_text().replace('["bag"]', '["bags/long"]')
    (folder / "agent.toml").write_text(settings)
    page = label("--port", "0", "--as", "ann")
    told = browse("classes", page, folder)
    page.end(signal.SIGKILL)
    assert told["address"] == f"{page.origin}/"  # the token is gone from the address bar
    assert "Version 3 says " in told["first"]
    assert told["curve"].startswith("Agreement after 20 labels: ")
    assert "of your last 20 labels" in told["words"]
    assert told["too wide"] <= 0
    source = source_of(load_settings(folder / "agent.toml", {}), read_only=True)
    examples = source.open(("circle", "square", "star"))
    labels = [e.label for e in examples.examples()]
    # Which frames are labelled is the order's choice: some may lie next to those held out.
    assert len(labels) + examples.left_out.get(TOO_NEAR, 0) == 21
    assert {label: labels.count(label) >= 5 for label in set(labels)} == {
        "circle": True, "square": True, "star": True,
    }  # fmt: skip


def test_boxes_by_mouse_keyboard_and_touch_become_examples(label, folder):
    page = label("--port", "0", "--classes", "cup,pen", "--boxes")
    told = browse("boxes", page, folder)
    assert told["there"] == 0
    assert told["drawn"] == ["square", "square"]
    # A quarter of 32 x 24 in the middle; twice one pixel right, one down at its corner, one up.
    assert told["by keyboard"] == "Box 1: square, yours, from 14, 8 to 22, 15"
    assert told["too wide"] <= 0
    boxes = [e.boxes for e in learned(folder) if e.boxes]
    assert sorted(map(len, boxes)) == [1, 1, 2]
    assert all(0 <= b.x0 < b.x1 <= 32 and 0 <= b.y0 < b.y1 <= 24 for each in boxes for b in each)


@pytest.fixture
def one_picture(folder, picture_bytes):
    """Let the robot have one picture of 320 x 240 pixels, with these boxes."""

    def make(*boxes):
        (folder / "set").mkdir()
        (folder / "set" / "0.jpg").write_bytes(picture_bytes(0, shape=(240, 320, 3)))
        row = ManifestRow(
            file="0.jpg", topic="/c", stamp_ns=10**18, source="r1", label="cup", boxes=boxes
        )
        write_manifest(folder / "set" / MANIFEST, [row])
        settings = (folder / "agent.toml").read_text().replace('["bag"]', '["set"]')
        (folder / "agent.toml").write_text(settings)

    return make


def kept_boxes(folder):
    (kept,) = DataSetManifest(folder / "state" / "labels" / "frames" / MANIFEST)
    return kept.boxes


def test_boxes_of_the_model_are_accepted_corrected_and_rejected(label, folder, one_picture):
    one_picture()
    page = label("--port", "0", "--boxes", "--classes", "cup,pen")
    told = browse("proposals", page, folder)
    assert told["about"].endswith("Version 9 proposes 3 boxes.")
    assert told["proposed"] == ["cup 91 %", "cup 40 %", "pen 62 %"]
    assert told["accept"] == "Accept 3 boxes"
    assert told["left"] == ["cup 91 %", "pen"]
    assert told["still proposed"] == ["cup 91 %"]
    assert [(b.label, b.x0, b.y0, b.x1, b.y1) for b in kept_boxes(folder)] == [
        ("cup", 20, 40, 80, 90), ("pen", 220, 43, 280, 93),
    ]  # fmt: skip


def test_boxes_that_are_there_are_corrected(label, folder, one_picture):
    boxes = tuple(
        Box(label=n, x0=x, y0=40, x1=x + 60, y1=90) for n, x in (("cup", 40), ("pen", 200))
    )
    one_picture(*boxes)
    page = label("--port", "0", "--all", "--boxes", "--classes", "cup,pen")
    told = browse("corrections", page, folder)
    assert told["there"] == ["cup", "pen"]
    assert told["before"] == "Box 1: cup, yours, from 40, 40 to 100, 90"
    assert told["second"].startswith("Box 2: pen")
    assert told["left"] == 1
    (box,) = kept_boxes(folder)
    assert box.label == "cup"
    assert 40 < box.x0 < 100
    assert box.x1 - box.x0 > 60
    assert box.y1 - box.y0 > 50
