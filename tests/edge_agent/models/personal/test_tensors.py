"""Tensors that a robot keeps: from round to round, over any end, and in the engine of a version."""

import json
import logging
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloud_server.state.model_store import DirectoryStore
from edge_agent.models.deploy import Models
from edge_agent.models.personal.tensors import drop_own, keep_own, key_of, put_beside, with_own
from fleet_model.bundle import MANIFEST, TrainerSpec, entry_of
from fleet_model.engine import TFLiteEngine, open_engine
from fleet_model.errors import BundleError, TrainingError
from fleet_model.personal import tensors
from fleet_model.personal.choice import OWN_SHARES, OWN_TENSORS, PersonalChoice, write_personal
from fleet_model.signatures import WEIGHTS
from fleet_model.types import Checkpoint, Frame, Update
from fleet_model.weights import read_weights, write_weights

TINY = Path(__file__).parents[3] / "data" / "tiny_bundle"
SPEC = TrainerSpec.model_validate_json((TINY / "trainer.json").read_bytes())
SHARED = read_weights(TINY / WEIGHTS)
START = Checkpoint(version=4, weights=SHARED)
KERNEL, BIAS = "head/kernel", "head/bias"
PIXELS = np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.uint8)
PICTURE = {"image": PIXELS.astype(np.float32)}
FRAME = Frame(source="s", topic="t", stamp_ns=0, data=b"", format="rgb8", decode=lambda: PIXELS)


def update(by=1.0):
    weights = {name: np.full_like(w, by) for name, w in SHARED.items()}
    return Update(robot="", base_version=4, weights=weights, num_examples=1, num_steps=1)


def test_what_is_the_robots_own_is_kept_and_only_the_rest_is_sent(tmp_path):
    sent = keep_own(tmp_path, SPEC, (BIAS,), START, update(0.5))

    assert list(sent.weights) == [KERNEL]
    assert sent.base_version == 4
    newer = Checkpoint(version=5, weights={n: w + 3 for n, w in SHARED.items()})
    start = with_own(tmp_path, SPEC, (BIAS,), newer)
    assert start.version == 5
    np.testing.assert_array_equal(start.weights[BIAS], SHARED[BIAS] + np.float32(0.5))
    np.testing.assert_array_equal(start.weights[KERNEL], SHARED[KERNEL] + 3)
    again = keep_own(tmp_path, SPEC, (BIAS,), start, update(0.25))
    assert list(again.weights) == [KERNEL]
    kept = with_own(tmp_path, SPEC, (BIAS,), newer).weights[BIAS]
    np.testing.assert_allclose(kept, SHARED[BIAS] + 0.75, atol=1e-6)


def test_a_robot_without_any_starts_from_the_checkpoint(tmp_path):
    assert with_own(tmp_path / "none", SPEC, (BIAS,), START) is START
    with pytest.raises(TrainingError, match="robots keep tail/bias, which is not trained here"):
        with_own(tmp_path, SPEC, ("tail/bias",), START)


def test_the_key_is_of_the_trunk_not_of_the_labels(tmp_path):
    fields = SPEC.model_dump(mode="json")
    fields["workload"]["config"]["labels"] = ["a", "b", "c", "d"]
    fields["files"]["trainer.tflite"]["sha256"] = "ab" * 32
    assert key_of(TrainerSpec.model_validate(fields)) == key_of(SPEC)
    fields["files"]["trunk.tflite"]["sha256"] = "cd" * 32
    other = TrainerSpec.model_validate(fields)
    assert key_of(other) != key_of(SPEC)


def test_what_does_not_fit_is_dropped_with_a_word(tmp_path, caplog):
    keep_own(tmp_path, SPEC, (BIAS, KERNEL), START, update())
    longer = {**SHARED, BIAS: np.zeros(4, np.float32)}  # a label was added
    with caplog.at_level(logging.WARNING):
        start = with_own(tmp_path, SPEC, (BIAS, KERNEL), replace(START, weights=longer))
    assert start.weights[BIAS].shape == (4,)
    np.testing.assert_array_equal(start.weights[KERNEL], SHARED[KERNEL] + 1)
    assert "own head/bias is dropped" in caplog.text

    fields = SPEC.model_dump(mode="json")
    fields["files"]["trunk.tflite"]["sha256"] = "cd" * 32
    with caplog.at_level(logging.WARNING):
        other = with_own(tmp_path, TrainerSpec.model_validate(fields), (KERNEL,), START)
    assert other is START
    assert (
        "own tensors are dropped: the trunk, or what adapters add to, is another one now"
        in caplog.text
    )
    assert not list(tmp_path.iterdir())


def test_a_server_that_shares_everything_again_ends_it(tmp_path, caplog):
    keep_own(tmp_path, SPEC, (BIAS,), START, update())
    with caplog.at_level(logging.WARNING):
        drop_own(tmp_path, "the server shares all tensors now")
    assert "the server shares all tensors now" in caplog.text
    assert with_own(tmp_path, SPEC, (BIAS,), START) is START
    drop_own(tmp_path / "none", "nothing is said")


KILLED = """
import sys
from pathlib import Path
import numpy as np
sys.path[:0] = [{tests!r}]
from test_tensors import BIAS, KERNEL, SHARED, SPEC, START, keep_own
from fleet_model.types import Update
for number in range(1, 1_000_000):
    weights = {{name: np.full_like(w, number) for name, w in SHARED.items()}}
    update = Update(robot="", base_version=4, weights=weights, num_examples=1, num_steps=1)
    keep_own(Path({folder!r}), SPEC, (BIAS, KERNEL), START, update)
    print(number, flush=True)
"""


def test_a_kill_at_any_moment_leaves_the_tensors_of_one_whole_round(tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    for pause_s in (0.0, 0.003, 0.007):
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as child:
            for _ in range(3):
                said = int(child.stdout.readline())
            time.sleep(pause_s)
            child.send_signal(signal.SIGKILL)
            child.wait()
        start = with_own(tmp_path, SPEC, (BIAS, KERNEL), START)
        rounds = {
            float(np.round(v, 3)) for n in SHARED for v in np.ravel(start.weights[n] - SHARED[n])
        }
        assert len(rounds) == 1
        assert rounds.pop() >= said
        assert len(list(tmp_path.iterdir())) == 1  # what was written aside is gone


@pytest.fixture
def robot(tmp_path):
    """Return (models, store, folder of the version, its name, manifest): version 1 is installed."""
    made = shutil.copytree(TINY, tmp_path / "made")
    manifest = json.loads((made / MANIFEST).read_text())
    manifest["files"][WEIGHTS] = entry_of((made / WEIGHTS).read_bytes()).model_dump()
    (made / MANIFEST).write_text(json.dumps(manifest))
    store = DirectoryStore(tmp_path / "store")
    store.publish(made, "stable", TINY)
    models = Models(tmp_path / "models")
    offer = store.latest("stable")
    name = models.stage(store, offer, "fp32")
    models.stage(store, offer, "int8")
    models.activate(name)
    return models, store, name, offer.manifest, tmp_path / "personal"


def own(robot, change):
    """Let the robot have own tensors, and put them beside its version."""
    models, store, name, manifest, folder = robot
    made = update(0.0)
    start = replace(START, weights={**SHARED, **change})
    keep_own(folder, SPEC, tuple(change), start, made)
    file, why = put_beside(models, store, name, manifest, folder)
    assert why == ""
    return models.folder(name), file


def choice(file, precision="fp32", *more):
    return PersonalChoice(precision=precision, uses=(*more, OWN_TENSORS), tensors=file)


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("int8", 0.15)])
def test_the_engine_runs_the_trunk_with_the_robots_tensors_over_the_shared_ones(
    robot, precision, tolerance
):
    bundle, file = own(robot, {BIAS: SHARED[BIAS]})  # equal ones: it is the shared model
    shared = TFLiteEngine(bundle, precision).run(PICTURE)["logits"]
    write_personal(bundle, choice(file, precision))
    engine = open_engine(bundle, precision)
    assert engine.runs == "the model with own tensors"
    np.testing.assert_allclose(engine.run(PICTURE)["logits"], shared, atol=tolerance)

    swapped = {
        KERNEL: np.ascontiguousarray(SHARED[KERNEL][:, ::-1]),
        BIAS: SHARED[BIAS][::-1].copy(),
    }
    bundle, file = own(robot, swapped)
    write_personal(bundle, choice(file, precision))
    engine = open_engine(bundle, precision)
    answer = engine.run(PICTURE)
    assert answer.keys() == {"logits"}
    np.testing.assert_allclose(answer["logits"], shared[::-1], atol=tolerance)
    seen = [one.answer(FRAME).features for one in (engine, TFLiteEngine(bundle, precision))]
    assert [one.keys() for one in seen] == [{"features"}] * 2
    np.testing.assert_array_equal(*(one["features"] for one in seen))


class Stiff:
    """An interpreter whose graph has its batch of 4 in a constant, too."""

    def __init__(self, interpreter, of_one):
        self._interpreter, self._of_one = interpreter, of_one

    def get_signature_list(self):
        return self._interpreter.get_signature_list()

    def get_signature_runner(self, name):
        runner, of_one = self._interpreter.get_signature_runner(name), self._of_one

        class Runner:
            def get_input_details(self):
                return runner.get_input_details()

            def __call__(self, **given):
                return (runner if len(given["features"]) == 4 else of_one(runner))(**given)

        return Runner()


def failing(runner):
    """Let LiteRT itself fail, so that it must recover."""
    return lambda features, **others: runner(features=features[:, :7], **others)


def other_answers(runner):
    return lambda **given: {name: rows + 1 for name, rows in runner(**given).items()}


def other_shapes(runner):
    return lambda **given: {name: rows[:, :2] for name, rows in runner(**given).items()}


@pytest.mark.parametrize("of_one", [None, failing, other_answers, other_shapes])
def test_the_graph_is_given_one_row_if_it_answers_that_as_it_does_a_batch(
    robot, monkeypatch, of_one
):
    bundle, file = own(robot, {BIAS: SHARED[BIAS] + 1})
    shared = TFLiteEngine(bundle).run(PICTURE)["logits"]
    rows, opened = [], tensors.open_interpreter

    def answered(self, values, number, answered=tensors.OwnTensorsModel._answered):
        rows.append(number)
        return answered(self, values, number)

    monkeypatch.setattr(tensors.OwnTensorsModel, "_answered", answered)
    if of_one:
        monkeypatch.setattr(
            tensors, "open_interpreter", lambda *given: Stiff(opened(*given), of_one)
        )
    answer = TFLiteEngine(bundle, personal=choice(file)).run(PICTURE)["logits"]
    np.testing.assert_allclose(answer, shared + 1, atol=1e-4)
    assert rows == ([1, 4] if of_one is failing else [1, 4, 4] if of_one else [1, 4, 1])


def test_own_shares_are_added_to_what_own_tensors_answer(robot):
    bundle, file = own(robot, {BIAS: SHARED[BIAS] + 1})
    write_personal(bundle, choice(file))
    alone = open_engine(bundle).run(PICTURE)["logits"]
    both = choice(file, "fp32", OWN_SHARES).model_copy(update={"counts": {"circle": 9.0}})
    write_personal(bundle, both)
    engine = open_engine(bundle)
    shares = np.log(np.array([9.5, 0.5, 0.5]) / 10.5)
    np.testing.assert_allclose(engine.run(PICTURE)["logits"] - alone, shares, atol=1e-5)
    assert engine.runs == "the model with own label shares and own tensors"


def test_a_damaged_or_foreign_file_is_told_and_the_shared_model_answers(robot, caplog):
    bundle, file = own(robot, {BIAS: SHARED[BIAS] + 1})
    before = TFLiteEngine(bundle).run(PICTURE)["logits"]
    write_personal(bundle, choice(file))
    write_weights(bundle / file, {BIAS: np.zeros(7, np.float32)})
    with pytest.raises(BundleError, match=r"head/bias has shape \(7,\), version 1 \(3,\)"):
        TFLiteEngine(bundle, personal=choice(file))
    (bundle / file).write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        engine = open_engine(bundle)
    assert engine.run(PICTURE)["logits"].tobytes() == before.tobytes()
    assert "the shared model answers, without this robot's own part" in caplog.text
    assert str(bundle.parent) not in caplog.text


def test_why_own_tensors_cannot_run_is_said(robot, tmp_path):
    models, store, name, manifest, folder = robot
    assert put_beside(models, store, name, manifest, folder) == ("", "")  # there are none
    keep_own(folder, SPEC, (BIAS,), START, update())
    files = {n: e for n, e in manifest.files.items() if n != WEIGHTS}
    older = manifest.model_copy(update={"files": files})
    _, why = put_beside(models, store, name, older, folder)
    assert why == "the version was published without its weights, by an older server"
    (file,) = folder.iterdir()
    file.rename(folder / f"{'0' * 32}.safetensors")
    _, why = put_beside(models, store, name, manifest, folder)
    assert why == "own tensors are of another trunk, or of other adapters"
