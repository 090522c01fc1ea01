"""Whatever the bytes of a request are, it is answered or refused: there is no other error."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_versions import TINY

from edge_agent.serving.grpc_messages import message
from edge_agent.serving.grpc_service import _parsed, _request
from edge_agent.serving.request import RequestError
from edge_agent.serving.rest_body import read_request, write_answer
from edge_agent.serving.served import served_models
from fleet_model.engine import TFLiteEngine

SMALL = np.zeros((1, 4, 5, 3), np.uint8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["pixels", "encoded", "image", 3]),
        "datatype": st.sampled_from(["UINT8", "BYTES", "FP32", "BF16", None]),
        "shape": st.just([1, 4, 5, 3]) | st.just([1]) | VALUES,
        "data": st.just(SMALL.ravel().tolist()) | st.just(["a"]) | VALUES,
        "parameters": st.fixed_dictionaries(
            {}, optional={"binary_data_size": VALUES, "content_type": st.just("base64")}
        )
        | VALUES,
    },
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "id": VALUES,
        "inputs": st.lists(TENSORS | VALUES, max_size=2) | VALUES,
        "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["label", "x"])}))
        | VALUES,
        "parameters": st.dictionaries(st.just("binary_data_output"), VALUES) | VALUES,
    },
)


@pytest.fixture(scope="module")
def models():
    return served_models(TFLiteEngine(TINY), "model", "fp32")


def kind_of(ask):
    """Return what a request is refused for; "" if it is not."""
    try:
        ask()
    except RequestError as error:
        return error.kind
    return ""


@given(body=BODIES, behind=st.binary(max_size=8), name=st.sampled_from(["pixels", "encoded"]))
def test_any_json_of_rest(models, body, behind, name):
    head = json.dumps(body).encode(errors="replace")

    def ask():
        request = read_request(head + behind, str(len(head)).encode())
        told = write_answer(models.infer(f"model-{name}", "", request, 2), request)
        assert b'"model_version":"1"' in told.content

    assert kind_of(ask) in ("", "invalid")


@given(content=st.binary(max_size=200), length=st.none() | st.binary(max_size=4))
def test_any_bytes_of_rest(content, length):
    assert kind_of(lambda: read_request(content, length)) in ("", "invalid")


@given(
    shape=st.just([1, 4, 5, 3]) | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    raw=st.lists(st.just(SMALL.tobytes()) | st.binary(max_size=70), max_size=2),
    content=st.binary(max_size=60),
    numbers=st.lists(st.integers(0, 2**32 - 1), max_size=4),
)
def test_any_message_of_grpc(models, shape, raw, content, numbers):
    asked = message("ModelInferRequest")(raw_input_contents=raw)
    asked.inputs.add(name="pixels", datatype="UINT8", shape=shape)
    if numbers:
        asked.inputs[0].contents.uint_contents.extend(numbers)
    whole = asked.SerializeToString()

    def ask(sent):
        request = _request(_parsed("ModelInferRequest", sent))
        told = models.infer("model-pixels", "", request, 2)
        assert len(told.outputs) == 4 or request.outputs

    for sent in (whole, content, whole + content):
        assert kind_of(lambda sent=sent: ask(sent)) in ("", "invalid")
    good = shape == [1, 4, 5, 3] and raw == [SMALL.tobytes()] and not numbers
    assert not good or kind_of(lambda: ask(whole)) == ""
