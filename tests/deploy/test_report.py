"""The demo's report: one page, honest numbers, nothing loaded from elsewhere."""

import importlib
import json
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from edge_agent.data.drawing import annotated

DEMO = Path(__file__).parents[2] / "deploy" / "demo"
LABELS = ["circle", "square", "star", "triangle"]
TRAINING = {name: name[:6] for name in ("hall-1-r1", "hall-1-r2", "hall-2-r1", "hall-2-r2")}
UNSEEN = {name: name[:6] for name in ("hall-1-r3", "hall-2-r3", "hall-3-r1")}
COUNTS = ((100, 20, 90, 30), (15, 150, 40, 35), (60, 4, 6, 170), (25, 88, 110, 17))
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Collects elements and texts; complains about tags that do not match."""

    def __init__(self, source):
        super().__init__()
        self.source, self.open, self.elements, self.text = source, [], [], []
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, text):
        self.text.append((tuple(self.open), text))

    def named(self, *names):
        return [attributes for tag, attributes in self.elements if tag in names]

    def said(self, inside="body"):
        """Return the text inside elements of that name, one piece after the other."""
        return " ".join(text for server_dir, text in self.text if inside in server_dir)


@pytest.fixture
def page_of(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(DEMO))  # as demo.py finds it
    report = importlib.import_module("report")

    def page(data, frames_dir=tmp_path / "frames"):
        report.write_report(data, frames_dir, tmp_path / "report.html")
        return Page((tmp_path / "report.html").read_text(encoding="utf-8"))

    return page


@pytest.fixture
def pictures_of(tmp_path):
    """Return a function that draws the first ten frames of every unseen robot."""

    def draw(data):
        for name, pair in data["predictions"].items():
            (tmp_path / "frames" / name).mkdir(parents=True)
            for index, answer in enumerate(pair["after"]["predictions"][:10]):
                picture = np.full((24, 32, 3), 90, np.uint8)
                drawn = annotated(picture, answer["label"], answer["score"], answer["truth"])
                stem = f"{index:06d}_compressed_{answer['stamp_ns']}"
                cv2.imwrite(str(tmp_path / "frames" / name / f"{stem}.jpg"), drawn)
        return tmp_path / "frames"

    return draw


def test_the_page_says_the_headline_numbers(page_of, data):
    header = page_of(data).said("header")
    for number in ("25%", "92%", "68%", "7 of 7", "version 5", "24.7 kB", "2.2 MB"):
        assert number in header
    assert "Four robots trained. Seven run the model." in header
    assert "frames never left the robots" in header


def test_the_page_loads_nothing_and_runs_no_script(page_of, data, pictures_of):
    page = page_of(data, pictures_of(data))
    assert not page.named("script", "link", "iframe", "object", "use")
    places = [v for _, a in page.elements for k, v in a.items() if "src" in k or "href" in k]
    assert places
    assert all(server_dir.startswith("data:image/") for server_dir in places)
    markup = re.sub(r"base64,[^\"]+", "", page.source)
    assert not re.search(r"url\(|@import|https?://|//[a-z]", markup)
    policy = next(a["content"] for a in page.named("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_every_chart_has_a_name_and_a_table(page_of, data):
    page = page_of(data)
    charts = [svg for svg in page.named("svg") if "aria-hidden" not in svg]
    assert len(charts) == 9  # diagram, four curves, labels, accuracy, two confusions
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in charts)
    assert len(page.named("table")) == 6
    assert "hall-2-r1: 170 examples of triangle" in page.said("title")


def test_the_page_says_what_is_simulated_and_how_to_have_one_of_your_own(page_of, data):
    story = page_of(data).said("p")
    assert "The cameras are simulated: shapes on stock photographs" in story
    assert "cloud-server report makes such a page of your own robots" in story


def test_charts_that_stand_beside_each_other_have_one_scale_and_markers_no_dashes(page_of, data):
    page = page_of(data)
    both = [svg for svg in page.named("svg") if "Truth and prediction" in svg.get("aria-label", "")]
    assert len({svg["viewbox"] for svg in both}) == 1 < len(both)
    style = page.said("style")
    dashed = re.findall(r"([^{}]+) \{[^{}]*stroke-dasharray", style)
    assert dashed
    assert all(re.search(r"\.line\.d\d$|\.bot$", selectors) for selectors in dashed)


def test_on_a_phone_charts_can_be_read_and_wide_tables_scroll(page_of, data):
    page = page_of(data)
    (phone,) = re.findall(
        r"@media screen and \(max-width: 860px\) \{(.*?)\} \}", page.said("style"), re.S
    )
    assert "text, text.head { font-size: 15px" in phone  # of 440 units on 350 pixels: 12
    around = [a for a in page.named("div") if a.get("class") == "scroll"]
    assert len(around) == len(page.named("table"))
    assert all(a["tabindex"] == "0" for a in around)


def test_every_command_and_version_is_there(page_of, data):
    page = page_of(data)
    said = "".join(text for inside, text in page.text if "code" in inside)
    assert said == "".join(data["commands"])
    assert page.said("span").count("--labels") == 1  # a flag is never broken between its letters
    assert all(str(value) in page.said("dl") for value in data["about"].values())


def test_the_page_says_which_version_is_signed_by_whom(page_of, data):
    assert "Who signed what" not in page_of(data).said()
    one = {"version": 5, "channel": "stable", "role": "online", "key": "1a2b3c4d", "at": 1.8e9}
    data["summary"]["signatures"] = [one]
    page = page_of(data).said()
    for words in ("Who signed what", "1a2b3c4d", "2027-01-15 08:00:00"):
        assert words in page


def test_the_page_says_which_robots_confirmed_and_which_refused_the_planted_model(page_of, data):
    data["summary"]["robots"][2]["trials"].pop()
    page = page_of(data)
    titles = page.said("h3")
    assert "Version 5: confirmed by 7 of 7 robots" in titles
    assert "Version 6: refused by 6 of 7 robots" in titles
    assert "as version 6: 6 of 7 robots refused it by their own frames." in page.said("p")
    assert "Planted: the same weights with the labels in another order" in page.said("p")
    assert page.said("td").count("accuracy 0.050, 0.920 with version 5, on 40 held-out") == 6


def test_what_nobody_measured_is_a_dash(page_of):
    page = page_of({})
    assert re.search(r"-\s+→\s+-", page.said("header"))
    assert not re.search(r"\b(None|nan|null|0 bytes|0\.0)\b", page.said("p") + page.said("td"))
    assert "0%" not in page.said("header")


def test_null_and_nan_count_as_missing(page_of, data):
    data["summary"]["unseen"]["single_robot_mean"] = None
    data["summary"]["robots"][0] |= {"peak_rss_mb": math.nan, "framework_loaded": None}
    data["history"][0]["robots"][0]["metrics"]["loss_after"] = math.inf
    data["single_robot"] = None
    page = page_of(json.loads(json.dumps(data)))
    assert "68%" not in page.said("header")
    assert not re.search(r"\b(None|nan|inf)\b", page.said())
    assert "spot" not in {a["class"] for a in page.named("circle")}


def test_a_robot_that_failed_a_round_interrupts_its_line_and_is_named(page_of, data):
    complete = page_of(data).source
    lost = data["history"][2]["robots"][3]
    lost |= {"outcome": "no reply by the deadline", "metrics": {}}
    page = page_of(data)
    assert "Round 3, hall-2-r2: no reply by the deadline." in page.said("p")
    lines = [a["d"] for a in page.named("path") if a["class"] == "line s1 d1" and "L" in a["d"]]
    assert {line.count("M") for line in lines} == {2}
    assert complete.count("hall-2-r2, round 3") == 4
    assert "hall-2-r2, round 3" not in page.source


def test_a_robot_without_held_out_examples_keeps_its_row(page_of, data):
    for closed in data["history"]:
        closed["robots"][0]["metrics"] = {"train_loss": 0.7, "encode_s": 1.5, "train_s": 0.75}
    page = page_of(data)
    assert "hall-1-r1, round" not in page.source
    assert "hall-1-r1" in page.said("tbody")
    assert "2.2" in page.said("tbody").split()  # seconds are known all the same


def test_robots_on_another_version_are_not_counted(page_of, data):
    data["summary"]["robots"][6]["active_version"] = 4
    header = page_of(data).said("header")
    assert "6 of 7" in header
    assert "Six run the model" in header


def test_hostile_names_stay_text(page_of, data):
    evil = "<script>alert('x')</script>\"><img src=x onerror=y>"
    text = json.dumps(data).replace("hall-1-r1", json.dumps(evil)[1:-1]).replace("star", "<b>&")
    page = page_of(json.loads(text))
    assert not page.named("script", "img")
    assert evil in page.said("th")
    assert "<b>&" in page.said("th")


def test_unknown_fields_are_ignored_and_wrong_types_are_not(page_of, data):
    data["summary"]["robots"][0]["colour"] = "red"
    page_of(data | {"later": {"version": 2}})
    data["summary"]["rounds"] = "many"
    with pytest.raises(ValidationError, match=r"summary\.rounds"):
        page_of(data)


def test_pictures_say_prediction_score_and_truth(page_of, data, pictures_of):
    page = page_of(data, pictures_of(data))
    styles = [a["class"] for a in page.named("figure") if a["class"].startswith("matched")]
    assert len(styles) == 12
    assert set(styles) == {"matched good", "matched bad"}
    captions = page.said("figcaption")
    assert re.search(r"✓ circle\s+\d+%\s+truth: circle, hall-1-r3", captions)
    assert all(picture["alt"] for picture in page.named("img"))


def test_one_mistake_of_a_robot_is_shown_even_if_it_is_the_only_one(page_of, data, pictures_of):
    answers = data["predictions"]["hall-3-r1"]["after"]["predictions"]
    for answer in answers:
        answer["label"] = answer["truth"]
    answers[6]["label"] = "triangle"
    captions = page_of(data, pictures_of(data)).said("figcaption")
    assert re.search(r"✗ triangle\s+\d+%\s+truth: circle, hall-3-r1", captions)


def test_a_picture_without_an_answer_is_shown_whole(page_of, data, pictures_of):
    frames = pictures_of(data)
    for pair in data["predictions"].values():
        pair["after"]["predictions"] = []
    page = page_of(data, frames)
    assert len(page.named("img")) == 12
    assert "matched" not in str(page.named("figure"))


def test_a_robot_named_like_a_path_reads_no_other_directory(page_of, data, tmp_path):
    cv2.imwrite(str(tmp_path / "secret_1.png"), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "frames").mkdir()
    data["predictions"] = {"..": data["predictions"]["hall-3-r1"]}
    assert not page_of(data).named("img")


# fmt: off
@pytest.fixture
def data(rounds=5):
    """Return what the demo hands over, with invented numbers."""
    draw = random.Random(7)
    fleet = TRAINING | UNSEEN
    return {
        "summary": {
            "rounds": rounds, "seconds": 118.4, "published_version": rounds, "planted_version": 6,
            "robots": [made_up_robot(draw, name, site) for name, site in fleet.items()],
            "unseen": {
                "robots": list(UNSEEN), "accuracy_before": 0.2472, "accuracy_after": 0.9183,
                "single_robot_mean": 0.6814,
            },
        },
        "history": [made_up_round(number + 1) for number in range(rounds)],
        "labels": LABELS,
        "label_counts": {
            name: dict(zip(LABELS, counts, strict=True))
            for name, counts in zip(TRAINING, COUNTS, strict=True)
        },
        "predictions": {
            name: {"before": made_up_answers(draw, 0.05), "after": made_up_answers(draw, 0.9)}
            for name in UNSEEN
        },
        "single_robot": {n: {u: draw.uniform(0.55, 0.8) for u in UNSEEN} for n in TRAINING},
        "frame_bytes": {name: 2_150_000 + 37_000 * i for i, name in enumerate(fleet)},
        "commands": ["cloud-server init demo --labels a,b", "cloud-server start demo &"],
        "about": {
            "fleetlearn": "0.1.0", "flwr": "1.41.0", "python": "3.11.7", "seed": 7,
            "date": "2026-11-22", "backbone": "efficientnet-lite0", "image_size": 128,
        },
    }


def made_up_robot(draw, name, site):
    trains = name in TRAINING
    measured = {"measure": "accuracy", "examples": 40}
    return {
        "name": name, "site": site, "trains": trains, "examples": 192 if trains else 0,
        "accuracy_before": draw.uniform(0.2, 0.35), "accuracy_after": draw.uniform(0.88, 0.96),
        "active_version": 5, "idle_mb": draw.uniform(95, 105), "peak_rss_mb": 242.5,
        "bytes_up_per_round": draw.randint(24_660, 24_740) if trains else 0,
        "bytes_down_per_publish": draw.randint(30_500, 31_500), "bytes_down_first": 15_000_000,
        "framework_loaded": False,
        "trials": [
            {"version": 5, "state": "confirmed", "running": 0, "before": 0.2, "after": 0.92}
            | measured,
            {"version": 6, "state": "refused", "why": "worse", "running": 5, "before": 0.92,
             "after": 0.05} | measured,
        ],
    }


def made_up_round(number):
    robots = []
    for rank, (name, site) in enumerate(TRAINING.items()):
        before = 0.87 - 0.62 * math.exp(-0.9 * (number - 1)) + 0.03 * rank
        loss = math.exp(-0.42 * (number - 1))
        robots.append({
            "name": name, "site": site, "outcome": "accepted", "num_examples": 192,
            "num_steps": 12, "update_bytes": 20496,
            "metrics": {
                "loss_before": 1.4 * loss + 0.12 * rank, "loss_after": loss + 0.08 * rank,
                "accuracy_before": before,
                "accuracy_after": before + 0.5 * math.exp(-0.8 * number) + 0.03,
                "train_loss": 0.7, "held_out": 48,
                "encode_s": 1.9 if number == 1 else 0.0, "train_s": 0.12,
            },
        })
    means = {n: sum(r["metrics"][n] for r in robots) / 4 for n in robots[0]["metrics"]}
    return {"run": "20261122-002221", "round": number, "robots": robots, "metrics": means}


def made_up_answers(draw, knowledge, frames=120):
    matrix = np.zeros((4, 4), int)
    predictions = []
    for index in range(frames):
        truth = index * 4 // frames
        said = truth if draw.random() < knowledge else draw.randrange(4)
        matrix[truth, said] += 1
        predictions.append({
            "file": "r3", "topic": "/camera/image/compressed", "stamp_ns": 1_760 * 10**15 + index,
            "label": LABELS[said], "score": draw.uniform(0.5, 1), "truth": LABELS[truth],
        })
    summary = {
        "frames": frames, "labelled": frames, "accuracy": float(np.trace(matrix) / frames),
        "macro_f1": 0.91, "confusion": {"labels": LABELS, "matrix": matrix.tolist()},
        "model_version": 5, "milliseconds_per_frame": 6.1, "skipped": {},
    }
    return {"summary": summary, "predictions": predictions}
