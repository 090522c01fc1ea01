"""What a robot tells of its features: real bags, the real trunk; few frames are never told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.examples.source import SourceSpec
from edge_agent.training.sent_sums import MIN_FRAMES, Sent, SentFile, choose
from edge_agent.training.trainers.litert import LiteRTTrainer
from edge_agent.training.training_job import TrainingJob
from edge_agent.training.work_kinds import work_of
from fleet_model.bundle import TrainerSpec
from fleet_model.errors import TrainingError
from fleet_model.sums.packing import GROUP, unpack_sums
from fleet_model.types import SUMS, Checkpoint, TrainConfig
from fleet_model.weights import read_weights

TINY = Path(__file__).parents[2] / "data" / "tiny_bundle"
LABELS, WIDTH = 3, 8
DRIVE = ["circle", "square"] * 80 + ["star"] * 8  # 84 s: circle and square from nine segments


@pytest.fixture
def robot(tmp_path, bags):
    """Return what answers a request for sums of a bag."""
    spec = TrainerSpec.model_validate_json((TINY / "trainer.json").read_bytes())
    made = {}

    def answer(labels, directions=4, later=()):
        paths = []
        for part, start in ((labels, bags.START_NS), (later, bags.START_NS + 10**12)):
            bag = made.setdefault(tuple(part), tmp_path / f"bag{len(made)}")
            if part and not bag.exists():
                bags.drive(bag, part, start_ns=start)
            paths += [str(bag)] if part else []
        options = {"paths": paths, "topic": "", "label_topic": bags.LABELS}
        job = TrainingJob(
            trainer="litert",
            spec=spec,
            directory=TINY,
            examples=SourceSpec(name="frames", options=options),
            checkpoint=Checkpoint(version=0, weights=read_weights(TINY / "weights.safetensors")),
            config=TrainConfig(sums_directions=directions),
            kind=SUMS,
            sent=tmp_path / "sums",
        )
        return work_of(SUMS)(LiteRTTrainer(spec, TINY), job)

    return answer


def sums_in(update):
    return unpack_sums(update.groups[GROUP], LABELS, WIDTH)


def test_only_training_frames_of_labels_with_enough_of_them_are_told(robot, caplog):
    update = robot(DRIVE)
    counts = sums_in(update).counts
    assert counts[2] == 0  # star: 8 frames
    assert update.num_examples == counts.sum() < len(DRIVE)
    assert update.metrics["held_out"] > 0
    assert counts.sum() + update.metrics["held_out"] <= len(DRIVE)
    assert 0 < update.metrics["left_out_too_few"] <= 8
    assert update.label_counts[0] >= counts[0]
    assert f"labels with fewer than {MIN_FRAMES} frames" in caplog.text
    assert update.weights == {}


def test_a_label_with_few_frames_is_not_told_however_far_apart_they_are(robot):
    drive = (["circle", "square"] * 16 + ["star"]) * 7  # star: 7 frames, 16 s apart
    update = robot(drive)
    assert sums_in(update).counts[2] == 0
    assert update.metrics["left_out_too_few"] > 0


def test_a_label_from_one_moment_is_not_told(robot):
    update = robot(["circle"] * 15 + ["square"] * 80)  # circle: 7 seconds
    assert sums_in(update).counts[0] == 0


def test_nothing_is_told_where_no_label_has_enough(robot):
    with pytest.raises(
        TrainingError, match=f"no label has {MIN_FRAMES} training examples from 2 times"
    ):
        robot(["circle"] * 5 + ["square"] * 5)


def test_all_directions_are_the_scatter_of_the_features(robot):
    update = robot(DRIVE, directions=0)
    exact, few = sums_in(update), sums_in(robot(DRIVE, directions=8))
    np.testing.assert_allclose(few.scatter(), exact.scatter(), atol=2e-3 * exact.scatter().max())
    np.testing.assert_allclose(few.means, exact.means, atol=2e-3 * np.abs(exact.means).max())


def test_the_same_data_give_the_same_bits(robot, tmp_path):
    one, other = robot(DRIVE), robot(DRIVE)
    for name, tensor in one.groups[GROUP].items():
        assert tensor.tobytes() == other.groups[GROUP][name].tobytes()
    (file,) = (tmp_path / "sums").glob("*.safetensors")
    assert str(tmp_path).encode() not in file.read_bytes()


def test_a_few_new_frames_wait_and_many_are_told(robot):
    first = robot(DRIVE)
    few = robot(DRIVE, later=["circle"] * 5)
    assert few.groups[GROUP]["means"].tobytes() == first.groups[GROUP]["means"].tobytes()
    assert 0 < few.metrics["left_out_waiting"] <= 5
    many = robot(DRIVE, later=["circle"] * 40)
    assert sums_in(many).counts[0] > sums_in(first).counts[0]
    assert sums_in(many).counts[1] == sums_in(first).counts[1]


def test_a_damaged_memory_is_told_and_nothing_is_sent(robot, tmp_path):
    robot(DRIVE)
    (file,) = (tmp_path / "sums").glob("*.safetensors")
    file.write_bytes(b"damaged")
    with pytest.raises(TrainingError, match=r"sums/.* is damaged.*remove it"):
        robot(DRIVE)


def test_what_cannot_be_remembered_is_not_told(robot, tmp_path):
    (tmp_path / "sums").write_text("a file in the place of the folder")
    with pytest.raises(TrainingError, match=r"cannot be kept \(.*check the disk"):
        robot(DRIVE)


def test_a_server_that_asks_for_too_many_directions_gets_none(robot):
    with pytest.raises(TrainingError, match="65 directions, expected 0 to 64"):
        robot(DRIVE, directions=65)


def names(count, begin=0):
    return [f"f{number}" for number in range(begin, begin + count)]


BEFORE = Sent("a", {"x": frozenset(names(30)), "y": frozenset(names(20, 100))})


def test_the_first_upload_is_of_all():
    assert choose({"x": names(3)}, None, "a").frames == {"x": frozenset(names(3))}


def test_unchanged_data_are_sent_again():
    now = {"x": names(30), "y": names(20, 100)}
    assert choose(now, BEFORE, "a").again
    assert not choose(now, BEFORE, "b").again  # other directions: another upload


def test_of_each_label_new_frames_wait_for_others():
    now = {"x": names(30 + MIN_FRAMES), "y": names(22, 100)}
    made = choose(now, BEFORE, "a")
    assert (len(made.frames["x"]), len(made.frames["y"])) == (30 + MIN_FRAMES, 20)
    assert (made.waiting, made.again) == (2, False)


def test_a_few_frames_that_are_gone_change_nothing_until_many_are():
    few = {"x": names(27), "y": names(20, 100)}
    assert choose(few, BEFORE, "a").again
    many = {"x": names(30 - MIN_FRAMES), "y": names(20, 100)}
    assert len(choose(many, BEFORE, "a").frames["x"]) == 30 - MIN_FRAMES
    other = choose(few, BEFORE, "b")  # it cannot be sent again: that label is left out
    assert set(other.frames) == {"y"}
    assert other.waiting == 27


def test_frames_that_are_exchanged_for_others_are_told_when_they_are_many():
    assert choose({"x": names(30, 3), "y": names(20, 100)}, BEFORE, "a").again
    assert not choose({"x": names(30, 6), "y": names(20, 100)}, BEFORE, "a").again


def test_a_label_that_is_gone_as_a_whole_is_no_longer_told():
    assert set(choose({"x": names(30)}, BEFORE, "a").frames) == {"x"}


def test_only_the_newest_trunks_are_remembered(tmp_path):
    tensors = {"counts": np.ones(2, np.float32)}
    for trunk in "abcdef":
        SentFile(tmp_path / "sums", trunk).save(replace(BEFORE, tensors=tensors))
    assert len(list((tmp_path / "sums").iterdir())) == 4
    assert SentFile(tmp_path / "sums", "f").load().frames == BEFORE.frames
    assert SentFile(tmp_path / "sums", "a").load() is None
