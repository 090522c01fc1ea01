"""CompiledModel answers as the Interpreter does, or the Interpreter answers."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from fleet_model.engine import TFLiteEngine, open_engine
from fleet_model.errors import BundleError
from fleet_model.litert.compiled import CompiledStage
from fleet_model.litert.runtime import INTERPRETER, Runtime, RuntimeChoice, write_choice
from fleet_model.litert.stage import Stage

compiled_model = pytest.importorskip("ai_edge_litert.compiled_model")
pytestmark = pytest.mark.base

TINY = Path(__file__).parents[2] / "data" / "tiny_bundle"
COMPILED = Runtime("compiled")


def image(seed=0):
    return np.random.default_rng(seed).random((32, 32, 3), np.float32) * 255


@pytest.fixture
def bundle(tmp_path):
    for file in TINY.iterdir():
        (tmp_path / file.name).symlink_to(file)
    return tmp_path


def choose(bundle, **about):
    fields = {"asked": "auto", "accelerator": "cpu", "precision": "fp32", "chosen": COMPILED}
    write_choice(bundle, RuntimeChoice(**{**fields, "litert": engines_version(), **about}))


def engines_version():
    from importlib.metadata import version

    return version("ai-edge-litert")


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_both_answer_the_same_one_input_after_the_other(precision):
    ours, theirs = (TFLiteEngine(TINY, precision, runtime=one) for one in (INTERPRETER, COMPILED))
    for seed in range(3):
        expected, found = (one.run({"image": image(seed)})["logits"] for one in (ours, theirs))
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert found.dtype == np.float32


@pytest.mark.parametrize("kind", [Stage, CompiledStage])
@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((64, 64, 3), r"trunk\.tflite: inputs has shape \(64, 64, 3\), expected \(32, 32, 3\)"),
        ((32, 32), r"inputs has shape \(32, 32\)"),
        ((16, 64, 3), r"inputs has shape \(16, 64, 3\)"),  # as many elements
    ],
)
def test_an_input_of_another_shape_is_refused_not_taken_as_it_lies_in_memory(kind, shape, words):
    stage = kind(TINY / "trunk.tflite")
    with pytest.raises(BundleError, match=words):
        stage({"inputs": np.zeros(shape, np.float32)})


@pytest.mark.parametrize("kind", [Stage, CompiledStage])
def test_an_input_of_another_kind_is_refused_and_whole_numbers_become_floats(kind):
    stage = kind(TINY / "trunk.tflite")
    with pytest.raises(BundleError, match="inputs has type complex64, expected float32"):
        stage({"inputs": image().astype(np.complex64)})
    whole = image().astype(np.int32)
    answer, expected = stage({"inputs": whole}), stage({"inputs": whole.astype(np.float32)})
    np.testing.assert_array_equal(answer["outputs"], expected["outputs"])


@pytest.mark.parametrize("kind", [Stage, CompiledStage])
def test_a_missing_input_is_not_the_one_before(kind):
    stage = kind(TINY / "trunk.tflite")
    stage({"inputs": image()})
    with pytest.raises(KeyError):
        stage({"input": image()})


def broken(monkeypatch, error, written=b""):
    def from_file(*_, **__):
        os.write(2, written)
        raise error

    monkeypatch.setattr(compiled_model.CompiledModel, "from_file", from_file)


def test_a_gpu_that_is_not_there_is_said_in_one_line_without_what_drivers_write(monkeypatch, capfd):
    native = b"INFO: [a.cc:1] x\nE0000 00:00:1.2  7 b.cc:7] Failed\n    at f() (c.cpp:3)\nmine\n"
    broken(monkeypatch, RuntimeError("ERROR: [a.h:1]"), native + b"INTERNAL: No adapters found\n")
    with pytest.raises(BundleError) as refused:
        CompiledStage(TINY / "head.tflite", accelerator="gpu")
    assert str(refused.value) == (
        "cannot run head.tflite: it finds no GPU, which needs a driver for Vulkan or OpenCL"
    )
    told = capfd.readouterr().err
    assert "mine" in told
    assert not {"INFO", "E0000", "at f()"} & set(told.replace("\n", " ").split(" "))


@pytest.mark.parametrize("error", [RuntimeError("no"), ValueError("no"), AttributeError("no")])
def test_an_engine_that_does_not_open_leaves_the_interpreter(bundle, monkeypatch, caplog, error):
    choose(bundle)
    broken(monkeypatch, error)
    with caplog.at_level(logging.WARNING):
        assert open_engine(bundle).runtime == INTERPRETER
    assert caplog.messages == [
        "CompiledModel on the CPU cannot run trunk.tflite: no: the Interpreter answers"
    ]


def test_an_answer_that_fails_is_given_by_the_interpreter(caplog):
    engine = TFLiteEngine(TINY, runtime=COMPILED)
    expected = engine.run({"image": image()})["logits"]

    def lost(_):
        raise RuntimeError("device lost")

    engine._model = lost
    np.testing.assert_allclose(engine.run({"image": image()})["logits"], expected, atol=1e-5)
    assert engine.runtime == INTERPRETER
    assert "CompiledModel on the CPU fails (device lost): the Interpreter goes on" in caplog.text
    assert engine.run({"image": image()})["logits"].shape == (3,)


def test_what_was_measured_for_a_bundle_runs_it(bundle):
    assert open_engine(bundle).runtime == INTERPRETER
    choose(bundle)
    assert open_engine(bundle).runtime == COMPILED


@pytest.mark.parametrize("other", [{"litert": "1.0"}, {"precision": "int8"}])
def test_what_was_measured_with_another_litert_or_precision_says_nothing(bundle, other):
    choose(bundle, **other)
    assert open_engine(bundle).runtime == INTERPRETER


def test_a_damaged_choice_is_none(bundle, caplog):
    (bundle / ".runtime.json").write_text('{"asked": "auto"')
    assert open_engine(bundle).runtime == INTERPRETER
    assert ".runtime.json cannot be read (ValidationError): the Interpreter runs" in caplog.text
