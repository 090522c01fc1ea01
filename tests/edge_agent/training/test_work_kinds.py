"""What a robot tells of its examples when it trains: real bags, the real trainer."""

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge_agent.examples.example_store import ExampleStore
from edge_agent.examples.source import SourceSpec
from edge_agent.examples.taught import Said
from edge_agent.training import work_kinds
from edge_agent.training.trainers.litert import LiteRTTrainer
from edge_agent.training.training_job import TrainingJob
from edge_agent.training.work_kinds import work_of
from fleet_model.bundle import Task, TensorSpec, TrainerSpec
from fleet_model.errors import TrainingError
from fleet_model.types import EVALUATE, TRAIN, Checkpoint, TrainConfig, Update
from fleet_model.weights import read_weights

TINY = Path(__file__).parents[2] / "data" / "tiny_bundle"
KNOWN = ["circle", "square", "star"] * 16


@pytest.fixture
def work(tmp_path, bags):
    """Return what a request of a kind is answered with by a robot that recorded such labels."""
    spec = TrainerSpec.model_validate_json((TINY / "trainer.json").read_bytes())

    def answer(labels, kind=TRAIN, spoil=lambda bag: None, given=None, **options):
        bag = bags.drive(tmp_path / f"r{len(list(tmp_path.iterdir()))}", labels)
        spoil(bag)
        options = {"paths": [str(bag)], "topic": "", "label_topic": bags.LABELS, **options}
        job = TrainingJob(
            trainer="litert",
            spec=spec,
            directory=TINY,
            examples=SourceSpec(name="frames", options=options),
            checkpoint=Checkpoint(version=0, weights=read_weights(TINY / "weights.safetensors")),
            config=TrainConfig(epochs=1),
            kind=kind,
            **(given or {}),
        )
        return work_of(kind)(LiteRTTrainer(spec, TINY), job)

    return answer


def test_what_a_teacher_labelled_is_not_told_as_labelled(work, tmp_path, bags):
    def teach(bag):
        rule = {"most": 99, "weight": 0.5, "precision": 0.9}
        labels = "circle", "square", "star"
        found = ExampleStore([bag], "", bags.LABELS, labels, pseudo=rule).examples()
        said = (Said(label="circle").line(e.key) for e in found if e.pseudo)
        (tmp_path / "big.jsonl").write_bytes(b"".join([b'{"teacher": "big"}\n', *said]))

    taught = {"folder": str(tmp_path), "weight": 0.5}
    update = work([*KNOWN, *[""] * 80], spoil=teach, taught=taught)
    assert update.metrics["taught_examples"] > 0
    assert update.label_counts == work(KNOWN).label_counts


class Listing:
    """A trainer that trains on nothing and says what it was given."""

    def fit(self, checkpoint, examples, config):
        self.given = [(e.raw.topic, e.label, len(e.boxes), e.seen) for e in examples]
        given = len(self.given)
        return Update(robot="", base_version=0, weights={}, num_examples=given, num_steps=0)


def test_where_boxes_are_learned_a_frame_that_nobody_has_looked_at_is_left_out(
    tmp_path, picture_bytes, monkeypatch
):
    tensors = {"image": TensorSpec(shape=())}
    task = Task(
        inputs=tensors, targets=tensors, outputs=tensors, measures={"map": "higher"},
        answer="boxes", classes=("cup",),
    )  # fmt: skip
    monkeypatch.setattr(work_kinds, "rebuild", lambda _: SimpleNamespace(task=task))
    lines = ["file,label,x0,y0,x1,y1", "0.jpg,,,,,", "1.jpg,hall,,,,", "2.jpg,cup,1,2,9,8"]
    lines += ["3.jpg,cup,1,2,9,8", "3.jpg,lid,1,2,9,8"]
    for index in range(5):
        (tmp_path / f"{index}.jpg").write_bytes(picture_bytes(index))
    (tmp_path / "labels.csv").write_text("\n".join([*lines, ""]))
    spec = TrainerSpec.model_validate_json((TINY / "trainer.json").read_bytes())
    options = {"paths": [str(tmp_path)], "topic": "", "label_topic": ""}
    job = TrainingJob(
        trainer="listing",
        spec=spec,
        directory=TINY,
        examples=SourceSpec(name="frames", options=options),
        checkpoint=Checkpoint(version=0, weights={}),
        config=TrainConfig(),
    )
    trainer = Listing()
    update = work_of(TRAIN)(trainer, job)
    assert trainer.given == [("0.jpg", None, 0, True), ("2.jpg", "cup", 1, True)]
    assert told(update) == {"left_out_unlabelled": 2, "left_out_unknown_label": 1}
    assert update.label_counts == ()


class Plain:
    """A trainer of the robot's owner, written before there were corrections."""

    def fit(self, checkpoint, examples, config):
        raise AssertionError("it must not be asked")


def test_a_trainer_that_cannot_correct_its_gradients_is_not_asked_to(tmp_path):
    spec = TrainerSpec.model_validate_json((TINY / "trainer.json").read_bytes())
    job = TrainingJob(
        trainer="my_robots:Plain",
        spec=spec,
        directory=TINY,
        examples=SourceSpec(name="frames", options={"paths": [str(tmp_path)], "topic": ""}),
        checkpoint=Checkpoint(version=0, weights={}),
        config=TrainConfig(control_variates=1),
    )
    with pytest.raises(TrainingError, match="my_robots:Plain cannot correct its gradients"):
        work_of(TRAIN)(Plain(), job)


def told(update):
    names = ("left_out_", "labels", "held_out")
    return {n: v for n, v in update.metrics.items() if n.startswith(names)}


def pictures_spoilt(share):
    """Return what breaks that share of the pictures of a bag: their JPEGs begin with zeros."""

    def spoil(bag):
        (file,) = bag.glob("*.mcap")
        content = file.read_bytes()
        parts = content.split(b"\xff\xd8\xff\xe0")
        broken = round(share * (len(parts) - 1))
        marks = [b"\0\0\0\0"] * broken + [b"\xff\xd8\xff\xe0"] * (len(parts) - 1 - broken)
        file.write_bytes(parts[0] + b"".join(m + p for m, p in zip(marks, parts[1:], strict=True)))

    return spoil


def test_misspelt_labels_are_counted_and_told_loudly_without_their_words(work, caplog):
    with caplog.at_level(logging.INFO):
        update = work([*KNOWN, *["Circle"] * 60, *["sqare"] * 50, "", ""])
    assert told(update)["left_out_unknown_label"] == 110
    assert told(update)["left_out_unlabelled"] == 2
    assert told(update)["labels"] == 3
    loud = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert any("110 of 158 labelled examples" in message for message in loud)
    assert "60 labelled 'Circle', which is not learned (did you mean 'circle'?)" in caplog.text
    assert not any("ircle" in name for name in update.metrics)


def test_one_label_only_is_told(work, caplog):
    update = work(["star"] * 48)
    assert told(update)["labels"] == 1
    assert "examples of one label only, which teach no difference (" in caplog.text


def test_three_examples_are_told_to_be_few(work, caplog):
    update = work(["circle", "square", "star"])
    assert told(update)["held_out"] == 1
    assert "fewer than 20 held-out examples, so scores say little (1 held-out" in caplog.text


def test_unlabelled_frames_are_counted(work):
    labels = [label if index % 10 == 0 else "" for index, label in enumerate(KNOWN * 3)]
    assert told(work(labels))["left_out_unlabelled"] == 129


def test_half_of_the_pictures_spoilt_is_counted(work):
    update = work(KNOWN, spoil=pictures_spoilt(0.5))
    assert told(update)["left_out_unreadable"] == 24
    assert update.num_examples < 24


def test_only_spoilt_pictures_are_an_error_with_their_number(work):
    with pytest.raises(TrainingError, match=r"no examples to train on .* left out are 48 unreada"):
        work(KNOWN, spoil=pictures_spoilt(1))


def test_pictures_whose_damage_only_decoding_shows_are_counted_too(work, bags, spoilt_png):
    def spoil(bag):
        shutil.rmtree(bag)
        messages = []
        for index, label in enumerate(KNOWN[:9]):
            stamp = bags.START_NS + index * 10**9
            messages.append((bags.CAMERA, stamp, bags.jpeg(stamp, spoilt_png, "png")))
            messages.append((bags.LABELS, stamp, bags.text(label)))
        bags.write(bag, messages)

    with pytest.raises(TrainingError, match=r"no examples to train on .* left out are 9 unreada"):
        work(KNOWN, spoil=spoil)


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE])
def test_nothing_but_unknown_labels_is_an_error_that_keeps_the_labels_here(work, kind):
    with pytest.raises(TrainingError) as raised:
        work([label.title() for label in KNOWN], kind)
    assert str(raised.value).endswith(
        ": left out are 48 with a label that this fleet does not learn; `edge-agent doctor` on the "
        "robot says which"
    )
    assert "Circle" not in str(raised.value)


def test_an_evaluation_tells_what_was_left_out_as_a_training_does(work, caplog):
    labels = [*KNOWN, *["Circle"] * 60, *["star"] * 12, "", ""]
    trained, measured = work(labels), work(labels, EVALUATE)
    assert told(measured) == told(trained)
    assert told(measured)["left_out_unknown_label"] == 60
    assert told(measured)["held_out"] == measured.num_examples
    loud = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert sum("60 of 120 labelled examples" in message for message in loud) == 2
    assert work(KNOWN, EVALUATE, spoil=pictures_spoilt(1 / 3)).metrics["left_out_unreadable"] > 0


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE])
def test_examples_are_counted_by_the_fleets_own_labels(work, kind):
    update = work([*KNOWN, *["Circle"] * 9, *["star"] * 12], kind)
    near = round(update.metrics.get("left_out_too_near", 0))
    assert len(update.label_counts) == 3  # circle, square, star
    assert sum(update.label_counts) == 60 - near
    assert update.label_counts[2] > update.label_counts[0]


def test_own_tensors_are_trained_on_from_round_to_round_and_never_in_a_reply(
    work, tmp_path_factory
):
    own = tmp_path_factory.mktemp("state") / "personal"
    given = {"personal": ("head/bias",), "own": own}
    everything = work(KNOWN)
    first = work(KNOWN, given=given)
    assert sorted(everything.weights) == ["head/bias", "head/kernel"]
    assert sorted(first.weights) == ["head/kernel"]
    # Of the first round they start from the checkpoint: what is shared is trained alike.
    assert first.weights["head/kernel"].tobytes() == everything.weights["head/kernel"].tobytes()
    (file,) = own.iterdir()
    kept = read_weights(file)["head/bias"]
    start = read_weights(TINY / "weights.safetensors")["head/bias"]
    np.testing.assert_allclose(kept, start + everything.weights["head/bias"], atol=1e-7)

    second = work(KNOWN, given=given)
    assert second.weights["head/kernel"].tobytes() != first.weights["head/kernel"].tobytes()
    (file,) = own.iterdir()
    assert read_weights(file)["head/bias"].tobytes() != kept.tobytes()
    # An evaluation measures what runs here, and changes nothing.
    content = file.read_bytes()
    measured = work(KNOWN, EVALUATE, given=given)
    assert measured.weights == {}
    assert measured.metrics["loss"] != work(KNOWN, EVALUATE).metrics["loss"]
    assert file.read_bytes() == content
