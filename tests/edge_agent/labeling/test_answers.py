import json
import logging

import numpy as np
import pytest

from edge_agent.data.manifest import MANIFEST, DataSetManifest, ManifestRow, write_manifest
from edge_agent.examples.example_store import ExampleStore
from edge_agent.examples.source import ANSWERED, source_of
from edge_agent.examples.taught import Said
from edge_agent.labeling.answer import (
    LABEL,
    LOG,
    SKIP,
    UNSURE,
    Answer,
    in_words,
    read_answers,
    told,
)
from edge_agent.labeling.answers import Answers
from edge_agent.labeling.frames import KeptFrames
from fleet_model.errors import SettingsError, StorageError
from fleet_model.types import Box

pytestmark = pytest.mark.base
CUP = Box(label="cup", x0=1.5, y0=2.0, x1=20.0, y1=18.25)
PEN = Box(label="pen", x0=20.0, y0=2.0, x1=30.0, y1=4.0)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state" / "labels"


@pytest.fixture
def bag(bags, tmp_path):
    """A bag of five frames that have no label."""
    return bags.drive(tmp_path / "r1", [""] * 5)


@pytest.fixture
def candidates(robot, bag, tmp_path):
    return list(KeptFrames(robot(bag), tmp_path / "index", boxes=False).listed())


@pytest.fixture
def answers(folder, clock):
    opened = Answers(folder, "ann", clock)
    yield opened
    opened.close()


def of(candidate, kind=LABEL, **values):
    return Answer(frame=candidate.name, kind=kind, width=32, height=24, **values)


def give(answers, candidate, kind=LABEL, **values):
    return answers.give(candidate.frame, of(candidate, kind, **values))


def test_a_raw_frame_that_a_teacher_has_labelled_is_not_measured_with(
    answers, robot, bags, folder, tmp_path
):
    stamps = [bags.START_NS + number * 10**9 for number in range(5)]
    pictures = [np.full((24, 96), 40 * number, np.uint8) for number in range(5)]
    bag = bags.write(
        tmp_path / "r1",
        [("/camera", s, bags.raw(s, p)) for s, p in zip(stamps, pictures, strict=True)],
    )
    settings, rule = robot(bag), {"most": 9, "weight": 0.5, "precision": 0.9}
    frames = list(ExampleStore([bag], "", "", ["star"], pseudo=rule).examples())
    for candidate in KeptFrames(settings, tmp_path / "index", boxes=False).listed():
        give(answers, candidate, label="star")
    plain = [e for e in source_of(settings, read_only=True).open().examples() if e.label]
    assert len(plain) == 5
    assert not {e.key for e in plain} & {e.key for e in frames}  # they are PNG now
    assert sum(e.held_out for e in plain) == 1
    (folder / "teachers").mkdir()
    said = b"".join(Said(label="star").line(e.key) for e in frames)
    (folder / "teachers" / "big.jsonl").write_bytes(b'{"teacher": "big"}\n' + said)
    found = source_of(settings, read_only=True).open().examples()
    assert [e.held_out for e in found if e.label] == [False] * 5


def rows(folder):
    manifest = folder / "frames" / MANIFEST
    return [(r.label, r.boxes) for r in DataSetManifest(manifest)] if manifest.exists() else []


def test_labels_and_boxes_come_out_of_the_example_store(answers, candidates, robot, bag, bags):
    give(answers, candidates[1], label="star")
    give(answers, candidates[3], boxes=(CUP, PEN))
    source = source_of(robot(bag, label_topic=bags.LABELS)).open()
    learned = {e.raw.stamp_ns - bags.START_NS: e for e in source.examples() if e.label}
    assert {stamp: e.label for stamp, e in learned.items()} == {
        5 * 10**8: "star",
        15 * 10**8: "cup",
    }
    assert learned[15 * 10**8].boxes == (CUP, PEN)
    assert learned[5 * 10**8].boxes == ()
    assert learned[5 * 10**8].raw.decode().shape == (24, 32, 3)
    assert learned[5 * 10**8].key.startswith(
        f"r1/camera/image/compressed/{bags.START_NS + 5 * 10**8}-"
    )


def test_a_classifier_learns_the_labels_of_a_bag_without_a_label_topic(
    answers, candidates, robot, bag, bags
):
    for candidate, label in zip(candidates, ("star", "circle") * 2, strict=False):
        give(answers, candidate, label=label)
    source = source_of(robot(bag, label_topic=bags.LABELS)).open(["circle", "star"])
    assert sorted(e.label for e in source.examples()) == ["circle", "circle", "star", "star"]


def test_a_frame_without_anything_is_an_example_without_boxes(answers, candidates, folder):
    give(answers, candidates[0])
    give(answers, candidates[1], label="star")
    give(answers, candidates[2], boxes=(CUP,))
    store = ExampleStore([], "", "", ["cup"], answered=folder / "frames", boxes=True)
    assert [(e.label, e.boxes, e.seen) for e in store.examples()] == [
        (None, (), True),
        ("cup", (CUP,), True),
    ]
    assert store.left_out == {"in which nobody has said what is there": 1}
    every = ExampleStore([], "", "", [], answered=folder / "frames").examples()
    assert [(e.label, e.seen) for e in every] == [(None, True), ("star", False), ("cup", True)]


def test_a_class_that_a_person_chose_does_not_stand_in_for_boxes(
    answers, robot, tmp_path, picture_bytes
):
    (tmp_path / "set").mkdir()
    for number in range(2):
        (tmp_path / "set" / f"{number}.jpg").write_bytes(picture_bytes(number))
    given = [
        ManifestRow(file=f"{n}.jpg", topic="/c", stamp_ns=n, source="r1", boxes=(CUP,))
        for n in range(2)
    ]
    write_manifest(tmp_path / "set" / MANIFEST, given)
    settings = robot(tmp_path / "set")
    everything = KeptFrames(settings, tmp_path / "index", boxes=True, everything=True)
    first, second = everything.listed()
    give(answers, first, label="star")
    give(answers, second)
    source = source_of(settings).open(["cup"], boxes=True)
    assert sorted((e.raw.stamp_ns, e.boxes) for e in source.examples()) == [(0, (CUP,)), (1, ())]


def test_a_persons_label_counts_more_than_that_of_the_recording(answers, robot, bags, tmp_path):
    bag = bags.drive(tmp_path / "other", ["circle"] * 3)
    settings = robot(bag, label_topic=bags.LABELS)
    everything = KeptFrames(settings, tmp_path / "index", boxes=False, everything=True)
    give(answers, list(everything.listed())[2], label="star")
    source = source_of(settings).open(["circle", "star"])
    assert sorted(e.label for e in source.examples()) == ["circle", "circle", "star"]
    assert source.left_out == {"counted as a person labelled it": 1}


def test_a_raw_frame_is_kept_without_loss_and_replaces_its_own_recording(
    answers, robot, bags, tmp_path
):
    import numpy as np

    pixels = np.arange(24 * 96, dtype=np.uint8).reshape(24, 96)
    image = bags.raw(bags.START_NS, pixels)
    bag = bags.write(tmp_path / "raw", [("/camera/image_raw", bags.START_NS, image)])
    settings = robot(bag)
    (candidate,) = KeptFrames(settings, tmp_path / "index", boxes=True).listed()
    give(answers, candidate, boxes=(CUP,))
    (example,) = source_of(settings.model_copy()).open().examples()
    assert example.boxes == (CUP,)
    assert example.raw.decode().reshape(24, 96).tolist() == pixels.tolist()


def test_the_log_says_who_and_when(answers, candidates, folder):
    give(answers, candidates[0], label="star", version=0, agreement=0.0)
    give(answers, candidates[1], UNSURE)
    give(answers, candidates[2], SKIP)
    answers.undo()
    first, second, *others = map(json.loads, (folder / LOG).read_bytes().splitlines())
    assert (first["by"], first["at"]) == ("ann", "2026-12-01T10:00:00+00:00")
    assert (first["label"], first["version"], first["agreement"]) == ("star", 0, 0.0)
    assert first["frame"] == list(candidates[0].name)
    assert "file" not in second
    assert [one["kind"] for one in others] == [SKIP, "undo"]
    assert [one.kind for one in read_answers(folder)] == [LABEL, UNSURE]
    assert read_answers(folder)[0] == answers.given[0]


def test_undo_takes_back_row_and_picture(answers, candidates, folder):
    give(answers, candidates[0], label="star")
    give(answers, candidates[1], label="circle")
    assert answers.undo().label == "circle"
    assert rows(folder) == [("star", ())]
    assert len(list((folder / "frames").glob("*.jpg"))) == 1
    assert answers.undo().label == "star"
    assert answers.undo() is None
    assert list((folder / "frames").iterdir()) == []


def test_an_answer_replaces_the_one_before_and_undo_brings_it_back(answers, candidates, folder):
    give(answers, candidates[0], label="star")
    give(answers, candidates[0], label="circle")
    assert rows(folder) == [("circle", ())]
    give(answers, candidates[0], UNSURE)
    assert rows(folder) == []
    answers.undo()
    assert rows(folder) == [("circle", ())]
    answers.undo()
    assert rows(folder) == [("star", ())]
    assert len(list((folder / "frames").glob("*.jpg"))) == 1


def test_the_next_process_makes_again_what_a_kill_has_left_out(answers, candidates, folder, clock):
    give(answers, candidates[0], label="star")
    give(answers, candidates[1], label="circle")
    answers.close()
    (folder / "frames" / MANIFEST).unlink()
    (folder / "frames" / "stray.jpg").write_bytes(b"a picture without an answer")
    with (folder / LOG).open("ab") as stream:
        stream.write(b'{"frame": ["r1", "/camera", 5], "kind": "label", "label": "st')
    assert len(read_answers(folder)) == 2
    again = Answers(folder, "bob", clock)
    assert rows(folder) == [("star", ()), ("circle", ())]
    assert not (folder / "frames" / "stray.jpg").exists()
    give(again, candidates[2], label="star")
    again.close()
    assert [one.by for one in read_answers(folder)] == ["ann", "ann", "bob"]


def test_a_line_counts_once_its_end_is_there(answers, candidates, folder, caplog):
    give(answers, candidates[0], label="star")
    whole = (folder / LOG).read_bytes()
    for end in (whole[:-1], whole[:40]):
        (folder / LOG).write_bytes(whole + end)
        assert len(read_answers(folder)) == 1
    assert not caplog.records


def test_a_damaged_line_is_told_and_the_others_count(answers, candidates, folder, caplog):
    give(answers, candidates[0], label="star")
    with (folder / LOG).open("ab") as stream:
        stream.write(b"\x00\x00\n[1]\n")
    give(answers, candidates[1], label="circle")
    with caplog.at_level(logging.WARNING):
        assert [one.label for one in read_answers(folder)] == ["star", "circle"]
    assert "answers.jsonl line 2 is damaged" in caplog.text


def test_two_processes_do_not_write(answers, folder):
    with pytest.raises(SettingsError, match="another `edge-agent label` is open"):
        Answers(folder, "bob")


def test_an_answer_that_cannot_be_written_is_not_given(answers, candidates, folder):
    give(answers, candidates[0], label="star")
    (folder / LOG).rename(folder / "away")
    (folder / LOG).mkdir()
    with pytest.raises(StorageError, match="Is a directory; make room there"):
        give(answers, candidates[1], label="circle")
    assert len(answers.given) == 1
    assert rows(folder) == [("star", ())]


def test_answers_are_counted_once_a_frame(answers, candidates):
    give(answers, candidates[0], SKIP)
    give(answers, candidates[0], label="star")
    give(answers, candidates[1], boxes=(CUP, PEN))
    give(answers, candidates[2], UNSURE)
    counted = told(answers.given)
    assert counted["labels"] == {"star": 1, "cup": 1}
    assert (counted["frames"], counted["boxes"], counted["unsure"], counted["skipped"]) == (
        2,
        2,
        1,
        0,
    )
    assert counted["last"] == "2026-12-01T10:00:03+00:00"
    words = "2 frames labelled by a person: 1 star, 1 cup (2 boxes); 1 not sure, 0 skipped"
    assert in_words(counted) == words


def test_the_place_of_the_data_set_is_the_one_that_training_reads(folder, tmp_path):
    assert tmp_path / "state" / ANSWERED == folder / "frames"
