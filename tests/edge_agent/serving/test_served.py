"""The models that clients see, of any workload."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from edge_agent.serving.request import Given, InferRequest, RequestError
from edge_agent.serving.served import served_models
from fleet_model.bundle import Task, TensorSpec
from fleet_model.engine import Answer
from fleet_model.errors import FrameError, SettingsError
from fleet_model.litert.runtime import INTERPRETER
from fleet_model.types import Encoded, Prediction

pytestmark = pytest.mark.base


class Words:
    """Reads a text, answers how long it is; knows nothing of images."""

    raw_dtype = "int64"
    input_ranges = {"tokens": (0, 9)}  # noqa: RUF012

    @property
    def task(self):
        return Task(
            inputs={"tokens": TensorSpec(shape=(2,), dtype=self.raw_dtype)},
            targets={},
            outputs={"length": TensorSpec(shape=(1,))},
            measures={},
            answer="text",
        )

    def from_bytes(self, content):
        if not content:
            raise FrameError("an empty text")
        return content.decode()

    def encode(self, raw):
        return Encoded(inputs={"tokens": np.array([len(raw), 0])})


class Engine:
    """Twice the first token, as LiteRT would answer it."""

    def __init__(self, workload, gives=2.0):
        self.workload, self.manifest = workload, SimpleNamespace(version=4)
        self.runs = "the shared model"
        self._gives, self.runtime = gives, INTERPRETER

    def run(self, inputs):
        return {"length": np.float32([self._gives * inputs["tokens"][0]])}

    def answer(self, raw):
        outputs = self.run(self.workload.encode(raw).inputs)
        return Answer(outputs, [Prediction(text=f"{raw} is long", score=0.5)])


def ask(served, name, *given, outputs=(), version=""):
    request = InferRequest(given, outputs=dict.fromkeys(outputs, True))
    return served.infer(name, version, request, max_batch=4)


def test_a_workload_without_images_is_served_by_its_tensors_and_by_what_it_reads():
    served = served_models(Engine(Words()), "words", "int8")
    tokens = Given("tokens", "INT64", [2, 2], None, [1, 0, 3, 0])
    texts = Given("encoded", "BYTES", [2], None, ["one", "three"])

    assert list(served.models) == ["words", "words-encoded"]
    by_tensor, by_text = ask(served, "words", tokens), ask(served, "words-encoded", texts)

    assert by_tensor.version == by_text.version == "4"
    assert [one.name for one in by_tensor.outputs] == ["length"]
    assert by_tensor.outputs[0].value.tolist() == [[2], [6]]
    assert [one.name for one in by_text.outputs] == ["length", "predictions"]
    assert by_text.outputs[0].value.tolist() == [[6], [10]]
    assert json.loads(by_text.outputs[1].value[1]) == [
        {"label": "", "score": 0.5, "box": None, "text": "three is long"}
    ]
    assert served.metadata("words", "4")["parameters"] == {
        "labels": [], "precision": "int8", "ranges": {"tokens": [0, 9]},
        "runtime": "Interpreter", "runs": "the shared model",
    }  # fmt: skip


def test_clients_are_told_of_sure_boxes_and_tensors_hold_all():
    class Boxes(Engine):
        def answer(self, raw):
            scores = np.float32([len(raw) / 10])
            found = Prediction(label="word", score=float(scores[0]), box=(0, 0, 1, 1))
            return Answer({"length": scores}, [found])

    workload = Words()
    workload.sure_score = 0.5
    served = served_models(Boxes(workload), "words", "fp32")
    texts = Given("encoded", "BYTES", [2], None, ["one", "three"])

    lengths, predictions = ask(served, "words-encoded", texts).outputs

    assert lengths.value == pytest.approx(np.array([[0.3], [0.5]]))
    assert [len(json.loads(one)) for one in predictions.value] == [0, 1]


def test_what_is_not_there_is_said_with_what_is():
    served = served_models(Engine(Words()), "words", "fp32")
    good = Given("tokens", "INT64", [1, 2], None, [1, 0])
    for name, version, outputs, kind, words in (
        ("word", "", (), "unknown", "served are words, words-encoded"),
        ("words", "3", (), "unknown", "runs version 4"),
        ("words", "", ("logits",), "invalid", "gives length"),
    ):
        with pytest.raises(RequestError, match=words) as refused:
            ask(served, name, good, outputs=outputs, version=version)
        assert refused.value.kind == kind


def test_a_damaged_row_is_named_and_out_of_range_is_refused():
    served = served_models(Engine(Words()), "words", "fp32")
    with pytest.raises(RequestError, match="row 1: an empty text") as refused:
        ask(served, "words-encoded", Given("encoded", "BYTES", [2], None, ["a", ""]))
    assert refused.value.kind == "invalid"
    with pytest.raises(RequestError, match="expected 0 to 9"):
        ask(served, "words", Given("tokens", "INT64", [1, 2], None, [10, 0]))


def test_an_answer_that_is_no_number_is_an_error_and_no_null(caplog):
    served = served_models(Engine(Words(), gives=float("nan")), "words", "fp32")

    with pytest.raises(RequestError, match="no finite length") as failed:
        ask(served, "words", Given("tokens", "INT64", [1, 2], None, [1, 0]))
    assert failed.value.kind == "failed"
    assert "gives no finite length" in caplog.text


def test_a_type_that_the_protocol_lacks_is_a_wrong_setting():
    workload = Words()
    workload.raw_dtype = "complex64"
    with pytest.raises(SettingsError, match="complex64"):
        served_models(Engine(workload), "words", "fp32")
