"""The demo of boxes: its table, its checks, and a page that loads nothing, with drawn frames."""

import importlib
import re
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from edge_agent.data import box_drawing
from edge_agent.data.manifest import MANIFEST, ManifestRow, write_manifest
from fleet_model.types import Box, Prediction

DEMO = Path(__file__).parents[2] / "deploy" / "demo"
TRAINING, UNSEEN = ("hall-1/r1", "hall-2/r1"), ("hall-3/r1", "hall-4/r1")
TRIAL = {"version": 3, "state": "confirmed", "measure": "map50", "before": 0.01, "after": 0.2}
REFUSED = {**TRIAL, "state": "refused", "why": "worse"}
DUCK = Box(label="duck", x0=20.0, y0=20.0, x1=60.0, y1=60.0)


@pytest.fixture
def demo(monkeypatch):
    """Return a function that imports a file of the demo as detection.py finds it."""
    monkeypatch.syspath_prepend(str(DEMO))
    return importlib.import_module


def said(map50, duck, mug):
    """Return what predict --json prints of 20 frames; nobody has seen a mug where it is None."""
    details = {
        "duck": {"ap50": duck, "ap": 0.1, "boxes": 30.0},
        "mug": {"ap50": mug, "ap": mug, "boxes": 0.0 if mug is None else 10.0},
    }
    return {"summary": {"measures": {"map50": map50}, "details": details}}


@pytest.fixture
def data(demo, tmp_path):
    """Return what two robots that train and two that do not have come to in three rounds."""
    fleet, summary = demo("real_fleet"), demo("detection_summary")
    played = fleet.Demo(tmp_path, 3, TRAINING, UNSEEN)
    for robot in played.robots:
        folder = played.recording(robot)
        (folder / "images").mkdir(parents=True)
        rows = [
            ManifestRow(
                file=f"images/{at}.jpg",
                topic="/camera",
                stamp_ns=at,
                source=robot,
                boxes=(DUCK,) * (at != 5),
            )
            for at in range(1, 9)
        ]
        write_manifest(folder / MANIFEST, rows)
        (folder / "images" / "1.jpg").write_bytes(bytes(2_000_000))
    status = {
        "rounds": [{"num_examples": 96, "bytes_up": 30_000}] * 3, "active_version": 3,
        "publishes": [{"bytes_down": 15_000_000}, {"bytes_down": 160_000}],
        "idle_mb": 100.0, "peak_mb": 250.0, "framework_loaded": False, "trial": TRIAL,
    }  # fmt: skip
    closed = [
        {
            "round": number,
            "robots": [
                {
                    "name": name,
                    "outcome": "accepted",
                    "metrics": {"map50_before": number / 10, "map50_after": number / 8},
                }
                for name in ("hall-1-r1", "hall-2-r1")
            ],
            "metrics": {"map50_before": number / 10, "map50_after": number / 8},
        }
        for number in (1, 2, 3)
    ]
    measured = summary.Measured(
        run={"rounds": 3, "closed": closed, "published_version": 3},
        before={"hall-3-r1": said(0.01, 0.02, 0.0), "hall-4-r1": said(0.03, 0.04, None)},
        after={"hall-3-r1": said(0.2, 0.3, 0.1), "hall-4-r1": said(0.3, 0.5, None)},
        statuses={
            r: {**status, "rounds": status["rounds"] * (r in TRAINING)} for r in played.robots
        },
        signatures=[],
    )  # fmt: skip
    return summary.collect(played, measured, 61.0)


@pytest.fixture
def frames(tmp_path):
    """Return a folder with the pictures of predict: nothing found at first, then a right box."""
    found = {"before": (), "after": (Prediction(label="duck", score=0.8, box=(20, 20, 60, 60)),)}
    for moment, boxes in found.items():
        for robot in ("hall-3-r1", "hall-4-r1"):
            folder = tmp_path / "frames" / moment / robot
            folder.mkdir(parents=True)
            for at in range(1, 9):
                picture = box_drawing.with_boxes(np.zeros((96, 128, 3), np.uint8), boxes, [DUCK])
                cv2.imwrite(str(folder / f"{at:06d}_camera_{at}.jpg"), picture[..., ::-1])
    return tmp_path / "frames"


def test_the_summary_has_each_robots_own_measure_and_the_means_of_unseen_ones(data):
    summary = data["summary"]
    rows = {r["name"]: (r["map50_before"], r["map50_after"]) for r in summary["robots"]}
    assert rows["hall-1-r1"] == (0.1, 0.3)  # as the first and as the last round begins
    assert rows["hall-4-r1"] == (0.03, 0.3)
    assert summary["unseen"]["map50_before"] == 0.02
    assert summary["unseen"]["map50_after"] == 0.25
    assert summary["classes"]["duck"] == {"boxes": 60, "ap50_before": 0.03, "ap50_after": 0.4}
    assert summary["classes"]["mug"] == {"boxes": 10, "ap50_before": 0.0, "ap50_after": 0.1}
    assert data["frames_with_boxes"]["hall-3-r1"] == [1, 2, 3, 4, 6, 7, 8]
    assert data["frame_bytes"]["hall-1-r1"] == 2_000_000


def test_the_table_has_a_row_for_each_robot(demo, data):
    console = Console(width=80, file=StringIO())
    console.print(demo("detection_summary").table(data["summary"]))
    rows = [line.split("│") for line in console.file.getvalue().splitlines() if "│" in line]
    cells = [[cell.strip() for cell in row[1:-1]] for row in rows]
    assert cells[0] == ["hall-1-r1", "96 frames", "0.10 -> 0.30", "3", "100-250", "30.0 kB"]
    assert cells[3] == ["hall-4-r1", "-", "0.03 -> 0.30", "3", "100-250", "-"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("every robot runs", lambda s, _: s["robots"][1].update(active_version=2)),
        ("every robot tried it", lambda s, _: s["robots"][2].update(trials=[REFUSED])),
        ("map50 at least", lambda s, _: s["unseen"].update(map50_before=-1, map50_after=0.1)),
        ("more than before", lambda s, _: s["unseen"].update(map50_before=0.2)),
        ("at most 60 kB", lambda s, _: s["robots"][0].update(bytes_up_per_round=144_000)),
        ("TensorFlow", lambda s, _: s["robots"][3].update(framework_loaded=True)),
        ("exit code 0", lambda _, codes: codes.update(server=1)),
    ],
)  # fmt: skip
def test_each_check_holds_and_fails_by_itself(demo, data, name, change):
    checks, summary, codes = demo("detection_summary").checks, data["summary"], {"server": 0}
    assert all(checks(summary, codes).values())
    change(summary, codes)
    failed = [text for text, holds in checks(summary, codes).items() if not holds]
    assert len(failed) == 1
    assert name in failed[0]


def test_a_check_that_fails_ends_the_demo_with_an_error(demo, capsys):
    conclude = demo("real_fleet").conclude
    conclude({"it works": True}, 61, Path("report.html"), {"server": 0})
    assert "ok   it works" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="a check failed"):
        conclude({"it works": True, "it is fast": False}, 61, Path("report.html"), {"server": 0})
    assert "FAIL it is fast" in capsys.readouterr().err


def test_the_page_shows_the_same_frames_before_and_after_and_loads_nothing(
    demo, data, frames, tmp_path
):
    demo("detection_report").write_report(data, frames, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    text = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    for words in ("0.02  → 0.25", "30.0 kB", "2.0 MB", "4 of 4", "96 frames", "61 seconds"):
        assert re.sub(r"\s+", " ", words) in re.sub(r"\s+", " ", text)
    assert "<script" not in page
    assert all(place.startswith("data:image/jpeg") for place in re.findall(r'src="([^"]+)', page))
    alts = re.findall(r'alt="A frame of (\S+) with .*? (\w+) training"', page)
    both = [(name, moment) for name in ("hall-3-r1", "hall-4-r1") for moment in ("before", "after")]
    assert alts == [*both[:2], *both[:2], *both[2:], *both[2:]]
    pictures = re.findall(r'src="([^"]+)', page)
    assert pictures[0] != pictures[1]  # the first model has missed what the other one finds


def test_a_page_without_pictures_or_measures_can_be_written(demo, tmp_path):
    demo("detection_report").write_report({}, tmp_path / "frames", tmp_path / "report.html")
    assert "What they see" in (tmp_path / "report.html").read_text()


def test_the_legend_has_the_colors_of_the_drawn_boxes(demo):
    colors = {meaning: color for color, meaning in demo("detection_report").COLORS.items()}
    drawn = {"right": "_RIGHT", "wrong": "_WRONG", "missed": "_MISSED"}
    assert colors == {
        meaning: "#{:02x}{:02x}{:02x}".format(*getattr(box_drawing, name))
        for meaning, name in drawn.items()
    }
