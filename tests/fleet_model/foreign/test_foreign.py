"""Files of other tools, run as they are: what they take, what they give, what is no such file."""

import importlib.util

import numpy as np
import pytest
from foreign_models import (
    SIDE,
    picture,
    write_flex,
    write_postprocess,
    write_transformer,
    write_yolox,
)

from fleet_model.errors import BundleError
from fleet_model.foreign import Port, open_file, require_runtime, runtime_of
from fleet_model.litert.runtime import INTERPRETER, ONNX_RUNTIME

ZEROS = np.zeros((1, 3, SIDE, SIDE), np.float32)
tensorflow = pytest.mark.tensorflow
slow = pytest.mark.slow


def test_an_onnx_file_tells_its_tensors_and_answers(tmp_path):
    file = open_file(write_transformer(tmp_path / "rf.onnx"))
    assert file.inputs == {"input": Port((1, 3, SIDE, SIDE), "float32")}
    assert list(file.outputs) == ["dets", "labels"]
    answer = file({"input": ZEROS})
    assert answer["dets"].shape == (1, 16, 4)
    assert answer["labels"].dtype == np.float32


def test_sizes_that_a_file_leaves_open_are_those_of_what_it_is_given(tmp_path):
    path = write_yolox(tmp_path / "open.onnx", sides=("height", "width"))
    assert open_file(path).inputs["images"].shape == (1, 3, -1, -1)
    file = open_file(path, shapes={"images": (1, 3, SIDE, SIDE)})
    assert file.inputs["images"].shape == (1, 3, SIDE, SIDE)
    assert file({"images": ZEROS})["output"].shape == (1, 336, 7)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"images": ZEROS[:, :, :64]}, "run it"),
        ({"images": ZEROS.astype(np.float64)}, "run it"),
        ({}, "run it"),
    ],
)
def test_what_does_not_fit_is_one_error(tmp_path, given, words):
    file = open_file(write_yolox(tmp_path / "yolox.onnx"))
    with pytest.raises(BundleError, match=words) as error:
        file(given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["m.onnx", "m.tflite"])
@pytest.mark.parametrize("content", [b"", b"no model", b"TFL3" * 100, bytes(1000)])
def test_what_is_no_model_is_one_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}: (LiteRT|ONNX Runtime) cannot run it") as error:
        open_file(tmp_path / name)
    assert str(tmp_path) not in str(error.value)


def test_weights_in_another_file_are_not_looked_for_elsewhere(tmp_path):
    path = write_yolox(tmp_path / "parts.onnx", external=True)
    alone = tmp_path / "robot"
    alone.mkdir()
    (alone / "parts.onnx").write_bytes(path.read_bytes())
    with pytest.raises(BundleError, match="its weights lie in another file"):
        open_file(alone / "parts.onnx")


def test_a_suffix_says_what_runs_a_file():
    assert runtime_of("a.tflite") == INTERPRETER
    assert runtime_of("a.onnx") == ONNX_RUNTIME
    with pytest.raises(BundleError, match=r"m\.pt: expected a file \.tflite or \.onnx"):
        runtime_of("m.pt")


def test_without_onnx_runtime_the_word_is_what_to_install(monkeypatch, tmp_path):
    path = write_yolox(tmp_path / "yolox.onnx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for refused in (lambda: require_runtime(["yolox.onnx"]), lambda: open_file(path)):
        with pytest.raises(BundleError, match=r"pip install 'fleetlearn\[onnxruntime\]'"):
            refused()
    require_runtime(["head.tflite"])


@slow
@tensorflow
def test_a_tflite_file_has_the_names_of_its_signature(tmp_path):
    file = open_file(write_postprocess(tmp_path / "ssd.tflite"))
    assert file.inputs == {"images": Port((1, SIDE, SIDE, 3), "uint8")}
    assert set(file.outputs) == {"output_0", "output_1", "output_2", "output_3"}
    answer = file({"images": picture(("red", 2, 1))[None]})
    assert answer["output_1"][0, 0] > 0.99
    assert answer["output_2"][0, 0] == 1
    assert answer["output_3"][0, 0] == pytest.approx([0.25, 0.5, 0.5, 0.75])
    with pytest.raises(BundleError, match="input images"):
        file({"images": picture()})


@slow
@tensorflow
def test_operators_of_tensorflow_are_named(tmp_path):
    with pytest.raises(BundleError, match=r"operators of TensorFlow \(Flex\)"):
        open_file(write_flex(tmp_path / "flex.tflite"))
