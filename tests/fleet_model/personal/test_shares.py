"""Own label shares at prediction, by value and in an engine."""

import logging
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fleet_model.bundle import TensorSpec
from fleet_model.engine import TFLiteEngine, open_engine
from fleet_model.errors import BundleError
from fleet_model.personal.choice import OWN_SHARES, SHARED, PersonalChoice, write_personal
from fleet_model.personal.shares import share_shift, takes_shares
from fleet_model.workloads.image_classifier import ImageClassifier

pytestmark = pytest.mark.base
TINY = Path(__file__).parents[2] / "data" / "tiny_bundle"
PICTURE = {"image": np.full((32, 32, 3), 96, np.float32)}


@pytest.fixture
def bundle(tmp_path):
    return shutil.copytree(TINY, tmp_path / "bundle")


def own(counts, precision="fp32"):
    return PersonalChoice(precision=precision, uses=(OWN_SHARES,), counts=counts)


def test_shares_go_by_the_name_of_a_label_not_by_its_place():
    """Three cups, one fork, no plate: 3.5, 1.5 and .5 of 5.5; a knife is not known."""
    counts = {"knife": 9.0, "fork": 1.0, "cup": 3.0}
    expected = {"cup": 3.5, "fork": 1.5, "plate": 0.5}
    for labels in (("cup", "fork", "plate"), ("plate", "cup", "fork")):
        shift = share_shift(ImageClassifier(labels), counts)
        assert shift["logits"].dtype == np.float32
        wanted = [math.log(expected[label] / 5.5) for label in labels]
        np.testing.assert_allclose(shift["logits"], wanted, rtol=1e-6)


def test_a_workload_whose_logits_are_not_known_takes_no_shares():
    real = ImageClassifier(("cup", "fork"))
    assert takes_shares(real)
    assert not takes_shares(SimpleNamespace(task=real.task))  # no class bias
    two = {**real.task.outputs, "more": TensorSpec(shape=(2,))}
    other = SimpleNamespace(task=real.task.model_copy(update={"outputs": two}), class_bias="b")
    assert not takes_shares(other)
    with pytest.raises(BundleError, match="no class bias"):
        share_shift(other, {"cup": 1.0})


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_engine_adds_what_is_kept_beside_its_bundle(bundle, precision):
    counts = {"circle": 30.0, "square": 5.0}
    alone = open_engine(bundle, precision)
    assert (alone.runs, alone.personal) == (SHARED, None)

    write_personal(bundle, own(counts, precision))
    engine = open_engine(bundle, precision)

    assert engine.runs == "the model with own label shares"
    shares = np.log(np.float64([30.5, 5.5, 0.5]) / 36.5)
    shift = engine.run(PICTURE)["logits"] - alone.run(PICTURE)["logits"]
    np.testing.assert_allclose(shift, shares, atol=1e-5)


def test_a_choice_for_the_shared_model_changes_no_bit(bundle):
    before = TFLiteEngine(bundle).run(PICTURE)["logits"]
    write_personal(bundle, PersonalChoice(precision="fp32", why="it is not better"))
    engine = open_engine(bundle)
    assert engine.run(PICTURE)["logits"].tobytes() == before.tobytes()
    assert engine.runs == SHARED


def test_shares_that_cannot_be_added_are_told_and_the_shared_model_answers(
    bundle, monkeypatch, caplog
):
    monkeypatch.delattr(ImageClassifier, "class_bias")
    write_personal(bundle, own({"circle": 1.0}))
    with caplog.at_level(logging.WARNING):
        engine = open_engine(bundle)
    assert engine.runs == SHARED
    assert "the shared model answers" in caplog.text
