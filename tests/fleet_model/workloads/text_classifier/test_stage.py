"""An engine of texts is an .onnx file: what pads a text is not computed, PyTorch is not there."""

import subprocess
import sys

import numpy as np
import pytest
from text_bundles import LABELS, LENGTH, without, write_text_bundle

from fleet_model.engine import TFLiteEngine, open_engine
from fleet_model.errors import BundleError
from fleet_model.litert.runtime import ONNX_RUNTIME, Runtime
from fleet_model.workloads.text_classifier.stage import TextStage


@pytest.fixture
def bundle(tmp_path):
    return write_text_bundle(tmp_path / "bundle")


@pytest.mark.parametrize(
    "text", ["good", "a great film and a fine robot , not bad", "the bad door"]
)
def test_what_pads_a_text_is_not_computed(bundle, text):
    engine = open_engine(bundle)
    engine.warm_up()
    answer = engine.answer(text)
    best = answer.predictions[0].label
    assert best == ("bad" if text == "the bad door" else "good")
    assert answer.outputs["logits"].max() < 20, "padding was computed"
    assert engine.runtime == ONNX_RUNTIME


def test_every_text_has_the_shape_of_the_task(bundle):
    stage = TextStage(bundle / "model.onnx", 1, LENGTH)
    assert stage.inputs == {
        "inputs_attention_mask": (LENGTH,), "inputs_input_ids": (LENGTH,)
    }  # fmt: skip
    assert stage.outputs == {"outputs": (len(LABELS),)}
    row = np.ones(LENGTH - 1, np.int32)
    with pytest.raises(BundleError, match=r"model\.onnx: inputs_.* has shape \(11,\), expected"):
        stage({"inputs_attention_mask": row, "inputs_input_ids": row})


def test_no_other_runtime_is_taken(bundle):
    with pytest.raises(BundleError, match=r"model\.onnx runs by ONNX Runtime alone"):
        TFLiteEngine(bundle, runtime=Runtime("compiled"))


def test_a_changed_tokenizer_is_refused(bundle):
    file = bundle / "tokenizer.json"
    file.write_text(file.read_text().replace("robot", "robox"))
    with pytest.raises(BundleError, match=r"tokenizer\.json: sha256 is"):
        TFLiteEngine(bundle)


def test_a_manifest_whose_workload_names_a_file_that_it_lacks_is_refused(bundle):
    without(bundle / "manifest.json", workload_files=["vocab.txt"])
    with pytest.raises(BundleError, match=r"workload names vocab\.txt, not in files"):
        TFLiteEngine(bundle)


@pytest.mark.parametrize(
    ("package", "extra"), [("onnxruntime", "onnxruntime"), ("tokenizers", "text")]
)
def test_what_is_not_installed_is_told_with_its_extra(bundle, monkeypatch, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BundleError, match=rf"not installed here: pip install 'fleetlearn\[{extra}"):
        TFLiteEngine(bundle)


def test_an_answer_loads_no_framework(bundle):
    program = (
        "import sys; from pathlib import Path; from fleet_model.engine import open_engine\n"
        "print(open_engine(Path(sys.argv[1])).answer('a good film').predictions[0].label)\n"
        "sys.exit(', '.join({'torch', 'transformers', 'tensorflow'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, bundle], capture_output=True, text=True, check=True
    )
    assert done.stdout == "good\n"
