"""The files of teachers, by value."""

import json

import pytest

from edge_agent.examples.taught import (
    OTHER,
    UNREADABLE,
    UNSURE,
    Said,
    counted,
    in_words,
    read_taught,
    read_told,
    tell_teachers,
)
from fleet_model.types import Box

pytestmark = pytest.mark.base

BOX = Box(label="cup", x0=1.5, y0=2.0, x1=3.25, y1=4.0)
SAID = {
    "r1/camera/1-aa": Said(label="star", score=0.9, at="2026-12-01T10:00:00+00:00"),
    "r1/camera/2-bb": Said(boxes=(BOX,), score=0.8),
    "r1/camera/3-cc": Said(refused=UNSURE),
    "r1/camera/\udc80-dd": Said(refused=OTHER, other="truck"),
    "r1/camera/5-ee": Said(refused=UNREADABLE),
}


def write(folder, name, said, at="2026-12-01T10:00:00+00:00", **about):
    who = {"teacher": name, "version": 3, "least": {"star": 0.75}, "at": at, "by": "ann", **about}
    lines = [json.dumps(who).encode() + b"\n", *(one.line(key) for key, one in said.items())]
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.jsonl").write_bytes(b"".join(lines))
    return folder / f"{name}.jsonl"


def test_what_was_said_reads_back(tmp_path):
    told = read_told(write(tmp_path, "big", SAID))
    assert told.said == SAID
    assert (told.who["teacher"], told.who["version"]) == ("big", 3)
    assert read_taught(tmp_path) == {k: said for k, said in SAID.items() if not said.refused}


def test_there_may_be_nothing(tmp_path):
    assert read_told(tmp_path / "none.jsonl") == ({}, {})
    assert read_taught(tmp_path / "none") == {}
    assert tell_teachers(tmp_path / "none") == []


def test_damaged_lines_are_left_out_and_counted_once(tmp_path, caplog):
    file = write(tmp_path, "big", SAID)
    lines = file.read_bytes().split(b"\n")
    lines[2], lines[3] = b'{"key": "x", "boxes": [[1]]}', b"\xff"
    lines[-1] = b'{"key": "r1/camera/9'  # it was not written whole
    file.write_bytes(b"\n".join(lines))
    assert read_told(file).said.keys() == SAID.keys() - {"r1/camera/2-bb", "r1/camera/3-cc"}
    assert caplog.text.count("damaged") == 1
    assert "2 lines are damaged" in caplog.text


def test_without_its_first_line_a_file_says_nothing(tmp_path, caplog):
    file = write(tmp_path, "big", SAID)
    file.write_bytes(b"{" + file.read_bytes())
    assert read_taught(tmp_path) == {}
    assert "first line is damaged" in caplog.text


def test_a_folder_in_its_place_says_nothing(tmp_path, caplog):
    (tmp_path / "big.jsonl").mkdir()
    assert (read_taught(tmp_path), tell_teachers(tmp_path)) == ({}, [])
    assert "Is a directory" in caplog.text


def test_of_two_teachers_the_later_one_counts(tmp_path):
    key = "r1/camera/1-aa"
    write(tmp_path, "a", {key: Said(label="star")}, at="2026-12-02T10:00:00+00:00")
    write(tmp_path, "b", {key: Said(label="circle"), "x": Said(label="cup")})
    assert {k: said.label for k, said in read_taught(tmp_path).items()} == {key: "star", "x": "cup"}
    write(tmp_path, "a", {key: Said(refused=UNSURE)}, at="2026-12-03T10:00:00+00:00")
    assert read_taught(tmp_path)[key].label == "circle"  # not sure is no other label


def test_they_are_counted_for_people(tmp_path):
    write(tmp_path, "big", SAID)
    (told,) = tell_teachers(tmp_path)
    assert told == {
        "teacher": "big", "version": 3, "least": {"star": 0.75}, "by": "ann",
        "at": "2026-12-01T10:00:00+00:00", "asked": 5, "frames": 2, "labels": {"cup": 1},
        "boxes": 1, "unsure": 1, "others": {"truck": 1}, "unreadable": 1,
    }  # fmt: skip
    assert in_words(told) == (
        "2 of 5 frames labelled: 1 cup (1 boxes); 1 not sure; show what this fleet does not learn: "
        "1 truck; 1 cannot be read"
    )
    assert in_words(counted({"a": Said(label="star")})) == "1 of 1 frames labelled: 1 star"
