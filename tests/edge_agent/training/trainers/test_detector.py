"""The object detector as robots train and run it: exported, taught, published, asked."""

import shutil

import numpy as np
import pytest

from edge_agent.training.rows import stacked
from edge_agent.training.trainers.keras import KerasTrainer
from edge_agent.training.trainers.litert import LiteRTTrainer
from fleet_model.bundle import TRAINER, WorkloadSpec, parse_trainer, read_bundle, sha256_of
from fleet_model.engine import TFLiteEngine
from fleet_model.errors import TrainingError
from fleet_model.personal.choice import OWN_TENSORS, PersonalChoice
from fleet_model.personal.tensors import GRAPH, OWN, OWN_END, SPEC
from fleet_model.signatures import ANSWER, TRAINER_GRAPH, WEIGHTS
from fleet_model.types import Box, Checkpoint, Example, Frame, TrainConfig
from fleet_model.weights import read_weights, write_weights
from fleet_model.workloads.object_detector.matching import iou

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
SIZE, BATCH, LABELS = 128, 8, ("red", "blue")
SEEN = 0.1  # a score; how sure a model is of the same boxes hangs on the last digit of its start
CONFIG = TrainConfig(epochs=50, batch_size=BATCH, learning_rate=0.02, clip_norm=10.0)


@pytest.fixture(scope="module")
def exported(made_once):
    """Return (specification, directory, checkpoint) of a detector, once for all processes."""
    return export(made_once, "head")


@pytest.fixture(scope="module")
def exported_block(made_once):
    """Return the same of one that trains the trunk's last block, too."""
    return export(made_once, "last-block")


@pytest.fixture(scope="module")
def exported_crops(made_once):
    """Return the same of one whose steps learn from 16 x 16 of 20 x 20 cells."""
    return export(made_once, "head", size=160, crop=128)


def export(made_once, scope, size=SIZE, crop=None):
    from cloud_server.models.export import InitJob, run_export

    def write(directory):
        config = {"labels": list(LABELS), "image_size": size, "crop_size": crop}
        spec = WorkloadSpec(name="object-detector", config=config)
        job = InitJob(workload=spec, trainable=scope, batch_size=BATCH, directory=directory)
        run_export(job)

    directory = made_once(f"trainer-detector-{scope}-{size}-{crop}", write)
    weights = read_weights(directory / "weights.safetensors")
    spec = parse_trainer((directory / "trainer.json").read_bytes())
    return spec, directory, Checkpoint(version=0, weights=weights)


def frames(count, first=0):
    """Yield noise with none to two blocks, each red or blue; every sixth frame has none."""
    for number in range(first, first + count):
        rng = np.random.default_rng(number)
        picture = rng.integers(60, 140, (120, 160, 3)).astype(np.uint8)
        boxes = []
        for _ in range(rng.integers(1, 3) if number % 6 else 0):
            width, height = rng.integers(24, 60, 2)
            x, y = rng.integers(0, 160 - width), rng.integers(0, 120 - height)
            box = np.array([x, y, x + width, y + height], np.float64)
            if any(iou(box[None], np.array([[b.x0, b.y0, b.x1, b.y1]]))[0, 0] > 0 for b in boxes):
                continue
            label = LABELS[rng.integers(2)]
            picture[y : y + height, x : x + width] = (
                (220, 30, 30) if label == "red" else (20, 40, 230)
            )
            boxes.append(Box(label=label, x0=box[0], y0=box[1], x1=box[2], y1=box[3]))
        raw = Frame(
            source="bag",
            topic="/camera",
            stamp_ns=number,
            data=b"",
            format="rgb8",
            decode=lambda picture=picture: picture,
            width=160,
            height=120,
        )
        yield Example(raw=raw, key=f"{number:04d}", boxes=tuple(boxes), held_out=number % 4 == 0)


@pytest.fixture(scope="module")
def learned(exported):
    """Return the update of a robot that has learned the two blocks."""
    spec, directory, checkpoint = exported
    return LiteRTTrainer(spec, directory, num_threads=1).fit(checkpoint, frames(96), CONFIG)


def test_a_robot_learns_boxes_without_tensorflow(learned):
    assert learned.num_examples == 72  # those with nothing in them as well
    assert learned.metrics["held_out"] == 24
    assert learned.metrics["map50_before"] < 0.1
    assert learned.metrics["map50_after"] > 0.8
    assert learned.metrics["map50_95_after"] > 0.25


def test_features_are_kept_in_float16(exported):
    spec, directory, checkpoint = exported
    trainer, one = LiteRTTrainer(spec, directory), next(frames(1, first=1))
    config = TrainConfig(epochs=1, batch_size=BATCH, learning_rate=0.01)
    trainer.fit(checkpoint, [one], config)
    row = trainer._learner.cache.row(one.key, lambda: pytest.fail("it was computed"))
    assert {tensor.dtype for tensor in row.values()} == {np.dtype(np.float16)}


@pytest.mark.parametrize("scope", ["exported", "exported_block", "exported_crops"])
def test_keras_and_litert_send_the_same_update(request, scope):
    spec, directory, checkpoint = request.getfixturevalue(scope)
    config = TrainConfig(epochs=1, batch_size=BATCH, learning_rate=0.02, clip_norm=10.0)
    litert, keras = (
        kind(spec, directory).fit(checkpoint, frames(20), config)
        for kind in (LiteRTTrainer, KerasTrainer)
    )
    assert litert.metrics["train_loss"] == pytest.approx(keras.metrics["train_loss"], rel=1e-4)
    for name, tensor in keras.weights.items():
        length = np.linalg.norm(tensor)
        assert np.linalg.norm(litert.weights[name] - tensor) < 1e-2 * length, name
    for name in ("map50_after", "map50_95_after"):
        assert litert.metrics[name] == pytest.approx(keras.metrics[name], abs=0.02)


def test_a_step_takes_crops_and_an_answer_the_whole_frame(exported_crops):
    spec, directory, checkpoint = exported_crops
    trainer = LiteRTTrainer(spec, directory, num_threads=1)
    taken, given = [], trainer._learner.model.gradient
    trainer._learner.model.gradient = lambda w, features, *rest: (
        taken.append({name: rows.shape[1:3] for name, rows in features.items()})
        or given(w, features, *rest)
    )
    config = TrainConfig(epochs=50, batch_size=BATCH, learning_rate=0.02, clip_norm=10.0)
    learned = trainer.fit(checkpoint, frames(96), config)
    assert learned.num_steps == len(taken) == 450
    assert {size for sizes in taken for size in sizes.values()} == {(16, 16), (8, 8), (4, 4)}
    assert learned.metrics["map50_before"] < 0.1
    assert learned.metrics["map50_after"] > 0.6  # of whole frames
    again = LiteRTTrainer(spec, directory, num_threads=1).fit(checkpoint, frames(96), CONFIG)
    for name, tensor in learned.weights.items():
        np.testing.assert_array_equal(again.weights[name], tensor)


def test_a_trainer_of_other_crops_is_refused(exported_crops):
    spec, directory, _ = exported_crops
    workload = spec.workload.model_copy(
        update={"config": {**spec.workload.config, "crop_size": 160}}
    )
    with pytest.raises(TrainingError, match=r"input features_\w+ has shape .* say .*5, 5"):
        LiteRTTrainer(spec.model_copy(update={"workload": workload}), directory)


def batch(trainer, count, first):
    """Return features and targets of so many frames; the rest of the batch is padding."""
    rows = [
        (trainer._learner.model.features(trainer._learner.workload.encode(one.raw).inputs), one)
        for one in frames(count, first)
    ]
    told = [trainer._learner.workload.target(one).tensors for _, one in rows]
    features = stacked([row for row, _ in rows], BATCH)
    return features, stacked(told, BATCH), (np.arange(BATCH) < count).astype(np.float32)


@pytest.mark.parametrize("state", ["at the start", "learned", "far away", "at all bends"])
def test_the_gradient_of_a_robot_is_that_of_keras(exported, learned, state):
    """Of layers as Keras has them; learned is the state after 450 steps."""
    spec, directory, checkpoint = exported
    robot, keras = LiteRTTrainer(spec, directory), KerasTrainer(spec, directory)
    weights = dict(checkpoint.weights)
    if state in ("learned", "far away"):
        factor = np.float32(1 if state == "learned" else 4)
        weights = {name: w + factor * learned.weights[name] for name, w in weights.items()}
    if state == "at all bends":  # what comes before a ReLU6 is 0, 3 or 6 in every cell
        for name in [n for n in weights if n.startswith(("lateral", "mix"))]:
            weights[name] = np.zeros_like(weights[name])
        for name in ("lateral_4/bias", "mix/bias"):
            weights[name] = np.resize(np.float32([0, 3, 6]), weights[name].shape)
    for count, first in ((BATCH, 0), (BATCH, 200), (3, 50), (1, 6)):
        rows = batch(robot, count, first)  # frame 6 is empty
        (ours, found), (theirs, expected) = (
            one._learner.model.gradient(weights, *rows) for one in (robot, keras)
        )
        assert ours == pytest.approx(theirs, rel=2e-5)
        whole = np.sqrt(sum(np.square(g).sum() for g in expected.values()))
        for name, slope in expected.items():
            gap = np.linalg.norm(found[name] - slope)
            assert gap <= 1e-4 * np.linalg.norm(slope) + 1e-6 * whole, (name, gap)


@pytest.fixture(scope="module")
def bundle(exported, learned, tmp_path_factory):
    """Return the directory of what is published of the trained checkpoint."""
    from cloud_server.models.export import BundleJob, run_export

    _, directory, checkpoint = exported
    folder = tmp_path_factory.mktemp("published")
    trained = {name: w + learned.weights[name] for name, w in checkpoint.weights.items()}
    write_weights(folder / "weights.safetensors", trained)
    job = BundleJob(
        model=directory,
        weights=folder / "weights.safetensors",
        version=1,
        created_at="2026-12-01T00:00:00Z",
        directory=folder / "bundle",
    )
    run_export(job)
    return folder / "bundle"


def test_the_last_stage_reads_boxes_in_float32_at_both_precisions(bundle, exported):
    manifest = read_bundle(bundle)
    assert {stages[-1] for stages in manifest.engines.values()} == {ANSWER}
    assert manifest.engines["int8"][1] == "head_int8.tflite"
    assert (bundle / ANSWER).read_bytes() == (exported[1] / ANSWER).read_bytes()
    assert manifest.metrics["fp32_error"] < 1e-3
    assert manifest.metrics["int8_error"] < 0.2


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_engine_finds_what_was_learned_in_pixels_of_the_frame(bundle, precision):
    engine, right, total = TFLiteEngine(bundle, precision), 0, 0
    rows, truth = [], []
    for example in frames(36, first=1000):
        answer = engine.answer(example.raw)
        rows.append(answer.outputs)
        truth.append(engine.workload.target(example).tensors)
        seen = [p for p in answer.predictions if p.score >= SEEN]
        for box in example.boxes:
            total += 1
            corners = np.array([[box.x0, box.y0, box.x1, box.y1]])
            found = np.array([p.box for p in seen if p.label == box.label]).reshape(-1, 4)
            right += bool((iou(found, corners) > 0.5).any())
    outputs, targets = (
        {name: np.stack([one[name] for one in all_]) for name in all_[0]} for all_ in (rows, truth)
    )
    assert right > 0.6 * total
    assert engine.workload.measure(outputs, targets)["map50"] > 0.8
    assert engine.workload.measure_each(outputs, targets).mean() > 0.8


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_robots_own_tensors_run_behind_the_trunk(bundle, exported, tmp_path, precision):
    _, directory, _ = exported
    own = shutil.copytree(bundle, tmp_path / "bundle")
    shutil.copy(directory / TRAINER, own / SPEC)
    shutil.copy(directory / TRAINER_GRAPH, own / GRAPH)
    bias = read_weights(own / WEIGHTS)["heat/bias"]
    raw, scores = next(frames(1, first=1)).raw, {}
    for less in (0.0, 3.0):
        aside = tmp_path / "own.safetensors"
        write_weights(aside, {"heat/bias": bias - np.float32(less)})
        file = f"{OWN}{sha256_of(aside.read_bytes())}{OWN_END}"
        aside.rename(own / file)
        personal = PersonalChoice(precision=precision, uses=(OWN_TENSORS,), tensors=file)
        scores[less] = TFLiteEngine(own, precision, personal=personal).answer(raw).outputs["scores"]
    shared = TFLiteEngine(own, precision).answer(raw).outputs["scores"]
    assert shared.max() > 0.3
    assert scores[0.0].max() == pytest.approx(shared.max(), abs=0.05)
    odds = scores[0.0].max() / (1 - scores[0.0].max()) * np.exp(-3.0)
    assert scores[3.0].max() == pytest.approx(odds / (1 + odds), abs=1e-3)
