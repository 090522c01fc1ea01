"""What a teacher has said, on disk: a kill, another calibration, a second process, forgetting."""

import pytest

from edge_agent.examples.taught import Said, read_learned, read_taught
from edge_agent.examples.unlabelled import Unlabelled
from edge_agent.labeling.teacher.record import Record, name_for, require_name
from fleet_model.errors import SettingsError, StorageError

pytestmark = pytest.mark.base

WHO = {"teacher": "big", "version": 3, "least": {"star": 0.123456789012345678}}
SAID = {"a": Said(label="star", score=0.9), "b": Said(refused="unsure")}


@pytest.fixture
def record(tmp_path):
    opened = []

    def open_one():
        for one in opened:
            one.close()
        opened.append(Record(tmp_path / "labels" / "teachers"))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def folder(tmp_path):
    return tmp_path / "labels" / "teachers"


def test_the_same_teacher_goes_on_after_a_kill(record, tmp_path):
    first = record()
    first.begin({**WHO, "at": "monday", "by": "ann"})
    first.add(SAID)
    file = folder(tmp_path) / "big.jsonl"
    file.write_bytes(file.read_bytes()[:-5])  # the last line was not whole yet
    again = record()
    again.begin({**WHO, "at": "tuesday", "by": "bob"})
    assert again.said == {"a": SAID["a"]}
    again.add({"c": Said(label="star", score=0.8)})
    assert read_taught(folder(tmp_path)).keys() == {"a", "c"}
    assert b"monday" in file.read_bytes()


def test_one_more_frame_that_is_held_out_is_no_other_calibration(record):
    first = record()
    first.begin({**WHO, "held_out": 40})
    first.add(SAID)
    first.begin({**WHO, "held_out": 41})
    assert first.said == SAID


@pytest.mark.parametrize("other", [{"least": {"star": 0.2}}, {"version": 4}, {"sha256": "x"}])
def test_another_calibration_takes_the_place_once_it_is_complete(record, tmp_path, other):
    first = record()
    first.begin(WHO)
    first.add(SAID)
    first.begin({**WHO, **other})
    assert first.said == {}
    first.add({"c": Said(label="star")})
    again = record()  # after a kill
    again.begin({**WHO, **other})
    assert again.said == {"c": Said(label="star")}
    assert read_taught(folder(tmp_path)).keys() == {"a"}
    assert again.names() == ["big"]
    again.finish()
    assert read_taught(folder(tmp_path)).keys() == {"c"}
    again.begin({**WHO, **other})
    assert again.said == {"c": Said(label="star")}


def test_who_goes_back_to_what_counts_leaves_what_is_not_complete(record, tmp_path):
    one = record()
    one.begin(WHO)
    one.add(SAID)
    for _ in range(2):
        one.begin({**WHO, "version": 4})
        assert one.said == {}
        one.add({"c": Said(label="star")})
        one.begin(WHO)
        assert one.said == SAID
    one.finish()
    assert read_taught(folder(tmp_path)).keys() == {"a"}


def test_the_frames_that_models_learned_from_are_known_for_good(record, tmp_path):
    one = record()
    one.begin(WHO)
    one.add({"r1/a/1-aa": Said(label="star"), "r1/\n\udc80/2-bb": Said(label="star"), **SAID})
    one.begin({**WHO, "version": 4})
    one.add({"r1/c/3-cc": Said(label="star")})
    one.finish()
    (folder(tmp_path) / ".learned").open("ab").write(b'"r1/cut')  # a power cut
    one.forget("big")
    assert read_learned(folder(tmp_path)) == {"r1/a/1", "r1/\n\udc80/2", "r1/c/3", ""}
    content = (folder(tmp_path) / ".learned").read_bytes()
    one.begin(WHO)
    one.add({"r1/a/1-aa": Said(label="star")})
    one.forget("big")
    assert (folder(tmp_path) / ".learned").read_bytes() == content  # each once
    assert Unlabelled(None, {"folder": str(folder(tmp_path))}).is_taught("r1/c/3-dd")


def test_one_teacher_is_forgotten_and_others_stay(record, tmp_path):
    one = record()
    for name in ("big", "huge"):
        one.begin({**WHO, "teacher": name})
        one.add({name: SAID["a"], "b": SAID["b"]})
    assert one.forget("big") == {"teacher": "big", "frames": 1}
    assert read_taught(folder(tmp_path)).keys() == {"huge"}
    with pytest.raises(SettingsError, match=r"no teacher 'big' .*; these have: huge"):
        one.forget("big")
    one.forget("huge")
    with pytest.raises(SettingsError, match="none has"):
        one.forget("../huge")


def test_a_damaged_file_can_be_forgotten_and_begun_anew(record, tmp_path):
    one = record()
    one.begin(WHO)
    file = folder(tmp_path) / "big.jsonl"
    for _ in range(2):
        file.write_bytes(b"\xff\n\xff\n")
        one.begin(WHO)
        one.add(SAID)
        assert read_taught(folder(tmp_path)).keys() == {"a"}
        file.write_bytes(b"")
    assert one.forget("big")["frames"] == 0


def test_one_process_at_a_time(record, tmp_path):
    record()
    with pytest.raises(SettingsError, match="another `edge-agent label --teacher` is open"):
        Record(folder(tmp_path))


def test_a_file_in_place_of_the_folder_is_one_error(tmp_path):
    folder(tmp_path).parent.mkdir()
    folder(tmp_path).touch()
    with pytest.raises(StorageError, match="Not a directory; make room there"):
        Record(folder(tmp_path))


def test_names_are_those_of_files():
    assert require_name("yolox_s.onnx") == "yolox_s.onnx"
    for wrong in ("", ".big", "a/b", "-x", "a b", "x" * 101):
        with pytest.raises(SettingsError, match="--as"):
            require_name(wrong)
    assert name_for("my model?.onnx") == "my-model-.onnx"
    assert name_for("...") == "teacher"
    for odd in ("-", "ü", "x" * 300, ".a."):
        require_name(name_for(odd))
