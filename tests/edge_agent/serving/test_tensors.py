"""What a client may give: nothing is cast, cut, filled up or guessed."""

import struct

import numpy as np
import pytest

from edge_agent.serving.datatypes import array_of, packed
from edge_agent.serving.request import Given, RequestError
from edge_agent.serving.tensors import Port, checked

pytestmark = pytest.mark.base

IMAGE = Port("image", "FP32", (-1, 2, 3), low=0.0, high=255.0)
SIX = [0.0, 1.0, 2.5, 3.0, 4.0, 255.0]


def check(port, shape, values=(), raw=None, datatype=None, base64=False):
    given = Given(port.name, datatype or port.datatype, shape, raw, values, base64)
    return checked([port], [given], max_batch=4)[port.name]


@pytest.mark.parametrize("values", [SIX, [[SIX[:3], SIX[3:]]]])
def test_lists_may_be_flat_or_nested(values):
    tensor = check(IMAGE, [1, 2, 3], values)

    assert (tensor.dtype, tensor.shape) == (np.float32, (1, 2, 3))
    assert tensor.ravel().tolist() == SIX


@pytest.mark.parametrize("datatype", ["BOOL", "UINT8", "INT16", "UINT64", "INT64", "FP16", "FP64"])
def test_bytes_and_lists_are_the_same_tensor(datatype):
    port = Port("x", datatype, (-1, 2))
    values = [True, False] if datatype == "BOOL" else [1, 0]
    from_list = check(port, [1, 2], values)

    assert np.array_equal(check(port, [1, 2], raw=packed(from_list, datatype)), from_list)
    assert packed(from_list, datatype) == from_list.tobytes()


WRONG = {
    "name": (Given("picture", "FP32", [1, 2, 3], None, SIX), "no input 'picture'"),
    "datatype": (Given("image", "FP64", [1, 2, 3], None, SIX), "expected FP32"),
    "integers for floats": (Given("image", "INT32", [1, 2, 3], None, [1] * 6), "expected FP32"),
    "unknown datatype": (Given("image", "BF16", [1, 2, 3], b"0" * 12), "expected FP32"),
    "rank": (Given("image", "FP32", [2, 3], None, SIX), "expected [-1, 2, 3]"),
    "shape": (Given("image", "FP32", [1, 3, 2], None, SIX), "expected [-1, 2, 3]"),
    "minus one": (Given("image", "FP32", [-1, 2, 3], None, SIX), "whole numbers above 0"),
    "zero rows": (Given("image", "FP32", [0, 2, 3], None, []), "whole numbers above 0"),
    "a shape of floats": (Given("image", "FP32", [1.0, 2, 3], None, SIX), "whole numbers"),
    "a shape of truth": (Given("image", "FP32", [True, 2, 3], None, SIX), "whole numbers"),
    "a shape beyond memory": (Given("image", "FP32", [2**62, 2, 3], None, SIX), "whole numbers"),
    "too many rows": (Given("image", "FP32", [5, 2, 3], None, SIX * 5), "serve.max_batch = 4"),
    "too few": (Given("image", "FP32", [1, 2, 3], None, SIX[:5]), "has 5 elements"),
    "too many": (Given("image", "FP32", [1, 2, 3], None, [*SIX, 0.0]), "has 7 elements"),
    "nested otherwise": (Given("image", "FP32", [1, 2, 3], None, [[SIX]]), "axis 1"),
    "ragged": (Given("image", "FP32", [1, 2, 3], None, [[SIX[:2], SIX[2:]]]), "axis 2"),
    "null": (Given("image", "FP32", [1, 2, 3], None, [*SIX[:5], None]), "has a null"),
    "text": (Given("image", "FP32", [1, 2, 3], None, [*SIX[:5], "1"]), "has a str"),
    "truth": (Given("image", "FP32", [1, 2, 3], None, [*SIX[:5], True]), "has a bool"),
    "infinite": (Given("image", "FP32", [1, 2, 3], None, [*SIX[:5], float("inf")]), "not finite"),
    "beyond FP32": (Given("image", "FP32", [1, 2, 3], None, [*SIX[:5], 1e39]), "cannot hold"),
    "beyond any": (Given("image", "FP32", [1, 2, 3], None, [*SIX[:5], 10**400]), "cannot hold"),
    "below": (Given("image", "FP32", [1, 2, 3], None, [*SIX[:5], -0.1]), "expected 0 to 255"),
    "above": (Given("image", "FP32", [1, 2, 3], None, [*SIX[:5], 255.1]), "expected 0 to 255"),
    "bytes short": (Given("image", "FP32", [1, 2, 3], bytes(23)), "has 23 bytes"),
    "bytes behind": (Given("image", "FP32", [1, 2, 3], bytes(25)), "has 25 bytes"),
    "NaN": (Given("image", "FP32", [1, 2, 3], struct.pack("<6f", *SIX[:5], np.nan)), "not finite"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_input_is_refused_by_its_name(case):
    given, words = WRONG[case]

    with pytest.raises(RequestError) as refused:
        checked([IMAGE], [given], max_batch=4)
    assert refused.value.kind == "invalid"
    assert words in str(refused.value)
    assert given.name in str(refused.value)


def test_one_input_that_is_missing_twice_there_or_of_another_batch_is_refused():
    a, b = Port("a", "INT8", (-1,)), Port("b", "INT8", (-1,))
    one, two = Given("a", "INT8", [1], None, [1]), Given("b", "INT8", [2], None, [1, 2])
    for given, words in (
        ([one], "'b' is missing"),
        ([one, one], "twice"),
        ([one, two], "a 1, b 2"),
    ):
        with pytest.raises(RequestError, match=words):
            checked([a, b], given, max_batch=4)


@pytest.mark.parametrize(
    ("datatype", "value", "words"),
    [
        ("UINT8", 0.9, "has a float, expected int"),
        ("UINT8", 256, "outside 0 to 255"),
        ("INT8", -129, "outside -128 to 127"),
        ("INT64", 2**63, "outside"),
        ("INT32", True, "has a bool"),
        ("BOOL", 1, "has a int, expected bool"),
    ],
)
def test_whole_numbers_are_not_rounded_and_do_not_wrap(datatype, value, words):
    with pytest.raises(RequestError, match=words):
        check(Port("x", datatype, (-1,)), [1], [value])


def test_a_byte_that_is_no_truth_value_is_refused():
    with pytest.raises(RequestError, match="neither 0 nor 1"):
        check(Port("x", "BOOL", (-1,)), [2], raw=b"\x01\x02")


def test_elements_of_bytes_come_as_texts_as_base64_or_with_their_lengths():
    port = Port("encoded", "BYTES", (-1,))
    elements = [b"a\xff", b""]
    tensor = array_of(elements)

    assert check(port, [2], raw=packed(tensor, "BYTES")).tolist() == elements
    assert check(port, [2], ["Yf8=", ""], base64=True).tolist() == elements
    assert check(port, [1], ["ü"]).tolist() == ["ü".encode()]
    for raw in (b"\x01", b"\x05\x00\x00\x00abc", b"\x00\x00\x00\x00\x00"):
        with pytest.raises(RequestError, match="encoded"):
            check(port, [1], raw=raw)
    with pytest.raises(RequestError, match="base64"):
        check(port, [1], ["no!"], base64=True)
    with pytest.raises(RequestError, match="list of strings"):
        check(port, [1], [1])
    with pytest.raises(RequestError, match="has 2 elements, its shape needs 1"):
        check(port, [1], ["a", "b"])
