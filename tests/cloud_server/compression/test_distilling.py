import math
import sys
from pathlib import Path

import numpy as np
import pytest

from cloud_server.compression.distilling import Answers, answers, distill, kl_loss, lesson
from cloud_server.compression.exporting import TextFile, export, quantize
from cloud_server.compression.folders import read_encoder
from cloud_server.compression.layers import narrow, take_layers
from cloud_server.compression.pruning import prune_encoder
from cloud_server.compression.teaching import UNLABELLED, Teaching
from fleet_model.errors import ExportError, SettingsError, TrainingError
from fleet_model.weights import read_weights

sys.path.append(str(Path(__file__).parents[2]))
from tiny_encoders import texts, write_encoder

pytestmark = pytest.mark.torch
KNOWN, LENGTH = ("bad", "good"), 16
TEXTS, LABELS = zip(*texts(96), strict=True)
HOW = Teaching(epochs=8, batch_size=16, learning_rate=3e-3)


@pytest.fixture(scope="module")
def base(made_once):
    return made_once("encoder-to-compress", write_encoder)


@pytest.fixture(scope="module")
def teacher(made_once, base):
    def make(folder):
        folder.mkdir()
        learn(base, folder, None, Teaching(epochs=16, batch_size=16, learning_rate=3e-3))

    return made_once("teacher-to-compress", make)


def learn(student, into, taught, how, labels=LABELS, tell=lambda line: None):
    into.mkdir(exist_ok=True)
    what = lesson(student, TEXTS, labels, KNOWN, LENGTH)
    distill(student, what, taught, KNOWN, how, into, into.with_suffix(".state"), tell)
    return into


def right(model):
    what = lesson(model, TEXTS, LABELS, KNOWN, LENGTH)
    return float((answers(model, what, KNOWN).logits.argmax(1) == what.classes).mean())


def smaller(base, path):
    (path / "one").mkdir(), (path / "narrow").mkdir()
    take_layers(base, [0], path / "one")
    narrow(path / "one", 0.5, path / "narrow")
    return path / "narrow"


def test_the_divergence_by_hand():
    import torch

    teacher, student = (
        torch.tensor([[2.0, 0.0], [0.0, 0.0]]),
        torch.tensor([[0.0, 0.0], [0.0, 4.0]]),
    )
    p = 1 / (1 + math.exp(-1))  # softened by 2
    first = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
    q = 1 / (1 + math.exp(2))
    second = 0.5 * math.log(0.5 / q) + 0.5 * math.log(0.5 / (1 - q))
    assert float(kl_loss(student, teacher, 2.0)) == pytest.approx(
        4 * (first + second) / 2, rel=1e-6
    )
    assert float(kl_loss(teacher, teacher, 3.0)) == pytest.approx(0, abs=1e-7)


def test_a_student_learns_from_answers_alone(tmp_path, teacher):
    assert right(teacher) == 1.0
    student = smaller(teacher, tmp_path)
    taught = answers(teacher, lesson(teacher, TEXTS, LABELS, KNOWN, LENGTH), KNOWN)
    nobody = [""] * len(TEXTS)
    made = learn(student, tmp_path / "made", taught, HOW, nobody)
    assert right(made) > 0.95
    assert read_encoder(made).config["n_layers"] == 1
    assert read_encoder(made).config["id2label"] == {"0": "bad", "1": "good"}


def test_labels_count_for_the_texts_that_have_one(tmp_path, teacher):
    """Half of the texts have a label, and a teacher that knows nothing says nothing."""
    labels = [label if number % 4 < 2 else "" for number, label in enumerate(LABELS)]
    nothing = Answers(np.zeros((96, 2), np.float32), np.zeros((96, 16), np.float32))
    how = Teaching(epochs=8, batch_size=16, learning_rate=3e-3, hard=1.0, temperature=1.0)
    student = smaller(teacher, tmp_path)
    assert right(learn(student, tmp_path / "made", nothing, how, labels)) > 0.9
    what = lesson(student, TEXTS, labels, KNOWN, LENGTH)
    assert np.count_nonzero(what.classes == UNLABELLED) == 48


def test_features_draw_the_vectors_to_the_teachers(tmp_path, teacher):
    what = lesson(teacher, TEXTS, LABELS, KNOWN, LENGTH)
    taught, student, far = answers(teacher, what, KNOWN), smaller(teacher, tmp_path), []
    for features in (0.0, 10.0):
        how = Teaching(epochs=8, batch_size=16, learning_rate=3e-3, features=features)
        made = learn(student, tmp_path / f"made{features}", taught, how)
        far.append(float(((answers(made, what, KNOWN).features - taught.features) ** 2).mean()))
    assert far[1] < 0.6 * far[0]


def test_zeros_of_a_pruned_student_stay(tmp_path, teacher):
    (tmp_path / "pruned").mkdir()
    prune_encoder(teacher, 0.3, tmp_path / "pruned")
    made = learn(tmp_path / "pruned", tmp_path / "made", None, HOW)
    before, after = (read_weights(p / "model.safetensors") for p in (tmp_path / "pruned", made))
    for name, tensor in before.items():
        if tensor.ndim > 1 and "embeddings" not in name:
            assert not after[name][tensor == 0].any()
            assert (after[name] != tensor).any()


def test_killed_after_an_epoch_it_ends_with_the_same_bits(tmp_path, base):
    how = Teaching(epochs=3, batch_size=16, learning_rate=1e-3, seed=5)
    whole = learn(base, tmp_path / "whole", None, how)
    told = []

    def killed(line):
        told.append(line)
        if line.startswith("epoch 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(base, tmp_path / "again", None, how, tell=killed)
    resumed = []
    again = learn(base, tmp_path / "again", None, how, tell=resumed.append)
    assert resumed[0] == "resumed after step 12 of 18"
    assert (again / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert not (tmp_path / "again.state").exists()


def test_files_answer_as_torch_does_and_int8_is_smaller(tmp_path, teacher):
    file, small = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    written = export(teacher, KNOWN, LENGTH, TEXTS[:8], file)
    assert written.error < 1e-5
    assert written.size_bytes == file.stat().st_size
    tensors = read_weights(teacher / "model.safetensors")
    assert written.parameters == sum(tensor.size for tensor in tensors.values())
    ask = TextFile(file, teacher, KNOWN, LENGTH)
    expected = answers(teacher, lesson(teacher, TEXTS, LABELS, KNOWN, LENGTH), KNOWN).logits
    found = np.stack([ask(text) for text in TEXTS])
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    with pytest.raises(ExportError, match="nothing is won"):  # of a few kilobytes, mostly names
        quantize(file, teacher, KNOWN, LENGTH, TEXTS[:8], small)


def test_int8_is_a_quarter_with_its_table_of_words(tmp_path):
    model = write_encoder(
        tmp_path / "m", labels=2, vocab_size=3000, dim=64, hidden_dim=256, n_layers=1
    )
    export(model, KNOWN, LENGTH, TEXTS[:8], tmp_path / "fp32.onnx")
    made = quantize(tmp_path / "fp32.onnx", model, KNOWN, LENGTH, TEXTS[:8], tmp_path / "int8.onnx")
    assert made.size_bytes == (tmp_path / "int8.onnx").stat().st_size
    assert made.size_bytes < 0.35 * (tmp_path / "fp32.onnx").stat().st_size
    assert 0 < made.error < 0.5


def test_what_teaches_nothing_is_refused(tmp_path, base):
    with pytest.raises(SettingsError, match="need a teacher"):
        learn(base, tmp_path / "a", None, HOW, [""] * 96)
    short = Answers(np.zeros((3, 2), np.float32), np.zeros((3, 16), np.float32))
    with pytest.raises(SettingsError, match="has answered 3 texts, there are 96"):
        learn(base, tmp_path / "b", short, HOW)
    with pytest.raises(SettingsError, match="the label 'ugly'"):
        lesson(base, ["a film"], ["ugly"], KNOWN, LENGTH)
    with pytest.raises(SettingsError, match="temperature 0"):
        Teaching(temperature=0)
    with pytest.raises(TrainingError, match="smaller learning rate"):
        learn(base, tmp_path / "c", None, Teaching(epochs=5, batch_size=16, learning_rate=1e30))
