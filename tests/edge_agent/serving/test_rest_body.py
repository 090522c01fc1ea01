"""What a body of REST may be, and what comes back."""

import json

import numpy as np
import pytest

from edge_agent.serving.datatypes import array_of
from edge_agent.serving.request import InferAnswer, Output, RequestError
from edge_agent.serving.rest_body import read_request, write_answer

pytestmark = pytest.mark.base

ONE = {"name": "x", "datatype": "INT8", "shape": [2], "data": [1, 2]}
BINARY = {"name": "x", "datatype": "INT8", "shape": [2], "parameters": {"binary_data_size": 2}}


def read(fields, behind=b"", length=None):
    head = json.dumps(fields).encode() if isinstance(fields, dict) else fields
    return read_request(
        head + behind, str(len(head)).encode() if length is None else length or None
    )


def test_bytes_behind_the_json_belong_to_the_inputs_in_their_order():
    second = {**BINARY, "name": "y", "parameters": {"binary_data_size": 1}}

    request = read({"id": "7", "inputs": [BINARY, ONE, second]}, b"\x01\x02\x03")

    assert request.id == "7"
    assert [bytes(one.raw) if one.raw is not None else one.values for one in request.inputs] == [
        b"\x01\x02", [1, 2], b"\x03",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "behind", "length", "words"),
    [
        (b"{", b"", None, "no JSON"),
        (b"\xff\xfe", b"", None, "no JSON"),
        (b"[" * 100_000, b"", None, "no JSON"),
        (b'{"inputs": [NaN]}', b"", None, "no JSON"),
        (b"[]", b"", None, "no JSON object"),
        (b"{}", b"", None, "'inputs' is missing"),
        ({"inputs": []}, b"", None, "'inputs' is missing"),
        ({"inputs": [1]}, b"", None, "an input is no JSON object"),
        ({"inputs": [{**ONE, "name": 1}]}, b"", None, "'name' is 1"),
        ({"inputs": [{"name": "x"}]}, b"", None, "'shape' is missing"),
        ({"inputs": [{**ONE, "data": None}]}, b"", None, "'data' is missing"),
        ({"inputs": [{**ONE, "data": 3}]}, b"", None, "'data' is missing"),
        ({"inputs": [{**ONE, "parameters": 3}]}, b"", None, "'parameters' is no JSON object"),
        ({"inputs": [{**BINARY, "data": [1]}]}, b"\1\2", None, "give one of them"),
        ({"inputs": [BINARY]}, b"\1", None, "binary_data_size is 2, but 1 bytes are left"),
        ({"inputs": [BINARY]}, b"\1\2\3", None, "1 bytes follow"),
        ({"inputs": [ONE]}, b"", b"x", "Inference-Header-Content-Length"),
        ({"inputs": [ONE]}, b"", b"9999", "Inference-Header-Content-Length"),
        ({"inputs": [ONE]}, b"", b"00000000001", "Inference-Header-Content-Length"),
        ({"inputs": [ONE]}, b"", b"0" * 5000, "Inference-Header-Content-Length"),
        ({"inputs": [ONE], "id": 7}, b"", None, "'id' is 7"),
        ({"inputs": [ONE], "id": "7" * 201}, b"", None, "'id' is"),
        ({"inputs": [ONE], "outputs": 3}, b"", None, "'outputs' is no list"),
        (
            {"inputs": [ONE], "parameters": {"binary_data_output": 1}}, b"", None,
            "expected true or false",
        ),
        (
            {"inputs": [{**ONE, "parameters": {"shared_memory_region": "r"}}]}, b"", None,
            "shared memory is not served",
        ),
        (
            {"inputs": [ONE], "outputs": [{"name": "x", "parameters": {"classification": 2}}]},
            b"", None, "classification is not served",
        ),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(fields, behind, length, words):
    with pytest.raises(RequestError, match=words) as refused:
        read(fields, behind, length)
    assert refused.value.kind == "invalid"


ANSWER = InferAnswer(
    "model",
    "7",
    [
        Output("logits", "FP32", np.array([[0.5, -1]], np.float32)),
        Output("label", "BYTES", array_of(["blö".encode()])),
    ],
)


def test_an_answer_is_json_unless_bytes_are_asked_for():
    body = write_answer(ANSWER, read({"inputs": [ONE]}))

    assert json.loads(body.content) == {
        "model_name": "model",
        "model_version": "7",
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [1, 2], "data": [0.5, -1.0]},
            {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["blö"]},
        ],
    }
    assert dict(body.headers)[b"content-type"] == b"application/json"


@pytest.mark.parametrize(
    ("asked", "sizes"),
    [
        ({"parameters": {"binary_data_output": True}}, [8, 8]),
        ({"outputs": [{"name": "label", "parameters": {"binary_data": True}}]}, [None, 8]),
        (
            {
                "outputs": [{"name": "logits", "parameters": {"binary_data": False}}],
                "parameters": {"binary_data_output": True},
            },
            [None, 8],
        ),
    ],
)
def test_outputs_come_as_bytes_where_they_are_asked_for(asked, sizes):
    body = write_answer(ANSWER, read({"inputs": [ONE], "id": "a", **asked}))
    length = int(dict(body.headers)[b"inference-header-content-length"])
    head = json.loads(body.content[:length])

    assert head["id"] == "a"
    assert [o.get("parameters", {}).get("binary_data_size") for o in head["outputs"]] == sizes
    assert body.content[-8:] == b"\x04\0\0\0" + "blö".encode()
