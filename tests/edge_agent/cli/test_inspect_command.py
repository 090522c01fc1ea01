"""What `edge-agent inspect` counts of labels, by value."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from edge_agent.cli import app
from edge_agent.data.pictures.encode import encode_jpeg
from edge_agent.robot.settings import ExampleSettings, agent_toml
from fleet_model.errors import FrameError, SettingsError

PICTURE = encode_jpeg(np.zeros((24, 32, 3), np.uint8))
WORDS = ["star", "star", "circle", "", "star"]


def typed(*words):
    return CliRunner().invoke(app, ["inspect", *map(str, words)])


def out(*words):
    done = typed(*words)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


@pytest.fixture
def bag(bags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return bags.drive(tmp_path / "r1", WORDS)


def second_topic(bags, folder, words, other):
    """Write a bag with one label topic more."""
    messages = []
    for index, (word, more) in enumerate(zip(words, other, strict=True)):
        stamp = bags.START_NS + index * 10**9
        messages.append((bags.CAMERA, stamp, bags.jpeg(stamp, PICTURE)))
        messages.append((bags.LABELS, stamp, bags.text(word)))
        messages.append(("/terrain", stamp, bags.text(more)))
    bags.write(folder, messages)


def test_labels_of_the_only_label_topic_are_counted_the_most_first(bag, bags):
    line = f"labels of {bags.LABELS}, 5 frames: star 3, circle 1, 1 without a label\n"
    assert out(bag).endswith(line)
    assert json.loads(out(bag, "--json"))["labels"] == {
        "from": bags.LABELS, "frames": 5, "unlabelled": 1,
        "by_label": {"star": 3, "circle": 1}, "boxes": {},
    }  # fmt: skip


def test_of_two_label_topics_that_of_agent_toml_or_of_the_option_is_counted(bags, tmp_path):
    folder = tmp_path / "r1"
    second_topic(bags, folder, ["star"] * 3, ["gravel", "brick", "brick"])

    asked = f"labels may be in {bags.LABELS}, /terrain: name one with --label-topic\n"
    assert out(folder).endswith(asked)
    told = json.loads(out(folder, "--json"))
    assert (told["labels"], told["labels_not_counted"] + "\n") == (None, asked)

    by_topic = "labels of /terrain, 3 frames: brick 2, gravel 1, 0 without a label\n"
    assert out(folder, "--labels", "/terrain").endswith(by_topic)
    examples = ExampleSettings(paths=(folder,), label_topic="/terrain")
    (tmp_path / "agent.toml").write_text(agent_toml("s:1", "stable", examples, train=True))
    assert out(folder, "--dir", tmp_path).endswith(by_topic)


def test_a_label_topic_that_is_not_there_is_named_with_those_that_are(bag, bags):
    done = typed(bag, "--label-topic", "/typo", "--json")

    assert isinstance(done.exception, FrameError)
    assert f"no label topic /typo; it has {bags.LABELS} (4 messages)" in str(done.exception)


def test_a_bag_without_labels_is_inspected_as_before(bags, tmp_path):
    stamp = bags.START_NS
    bags.write(tmp_path / "r1", [(bags.CAMERA, stamp, bags.jpeg(stamp, PICTURE))])

    assert "labels" not in out(tmp_path / "r1")
    told = json.loads(out(tmp_path / "r1", "--json"))
    assert (told["labels"], told["labels_not_counted"]) == (None, "")
    (tmp_path / "agent.toml").write_text(agent_toml("s:1", "stable", ExampleSettings(), train=True))
    named = f"no label topic {bags.LABELS}, as agent.toml names it\n"
    assert out(tmp_path / "r1", "--dir", tmp_path).endswith(named)


def test_a_data_set_has_labels_in_place_of_topics(image_folder, tmp_path):
    image_folder("pictures", {"star": 2, "circle": 1})

    assert out(tmp_path / "pictures") == "labels, 3 frames: star 2, circle 1, 0 without a label\n"
    assert json.loads(out(tmp_path / "pictures", "--json"))["topics"] == []
    done = typed(tmp_path / "pictures", "--contact-sheet", tmp_path / "a.png")
    assert isinstance(done.exception, SettingsError)
    assert "only of bags and videos" in str(done.exception)


def test_boxes_are_counted_beside_the_label_that_their_frame_gets(image_folder, tmp_path):
    image_folder("set/images", {"": 1})
    (picture,) = (tmp_path / "set" / "images").rglob("*.*")
    labels = tmp_path / "set" / "labels"
    labels.mkdir()
    (labels / f"{picture.stem}.txt").write_text("0 .5 .5 .2 .2\n1 .5 .5 .6 .6\n0 .2 .2 .1 .1\n")
    (tmp_path / "set" / "data.yaml").write_text("names: [brick, gravel]\n")

    assert out(tmp_path / "set").splitlines() == [
        "labels, 1 frames: gravel 1, 0 without a label",
        "boxes: brick 2, gravel 1; a frame with several has the label of its largest",
    ]


def test_of_very_many_labels_the_most_frequent_are_told(bags, tmp_path):
    bags.drive(tmp_path / "r1", [f"l{n}" for n in range(60)] + ["star"] * 2)

    told = out(tmp_path / "r1").splitlines()[-1]
    assert ": star 2, l0 1, " in told
    assert told.endswith(" and 11 more labels, 0 without a label")
    assert len(json.loads(out(tmp_path / "r1", "--json"))["labels"]["by_label"]) == 61


def test_a_folder_around_bags_is_told_with_their_names(bags, tmp_path):
    bags.drive(tmp_path / "hall" / "r1", WORDS)

    done = typed(tmp_path / "hall")

    assert isinstance(done.exception, FrameError)
    assert str(done.exception) == "hall: holds bags but is none; name one of them: r1"
