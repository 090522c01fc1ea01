import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fleet_model.errors import CheckpointError, UpdateError
from fleet_model.weights import (
    add,
    difference,
    l2_norm,
    read_weights,
    require_same_tensors,
    size_bytes,
    write_weights,
)

pytestmark = pytest.mark.base

EXPECTED = {"head/kernel": np.zeros((8, 2), np.float32), "head/bias": np.zeros(2, np.float32)}
small = st.integers(-1000, 1000).map(float)
tensors = array_shapes(max_dims=3, max_side=4).flatmap(
    lambda shape: st.tuples(*(arrays(np.float32, shape, elements=small) for _ in range(2)))
)


def test_the_same_names_shapes_and_dtypes_pass():
    require_same_tensors(EXPECTED, {name: w + 1 for name, w in EXPECTED.items()}, sender="x")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("head/bias", None, r"robot r2: lacks head/bias of shape \(2,\)"),
        ("head/kernel", np.zeros((8, 3), np.float32), r"shape \(8, 3\), expected \(8, 2\)"),
        ("head/kernel", np.full((8, 2), np.nan, np.float32), "head/kernel holds NaN or infinity"),
        ("head/kernel", np.full((8, 2), np.inf, np.float32), "head/kernel holds NaN or infinity"),
        ("head/kernel", np.zeros((8, 2)), "head/kernel is float64, expected float32"),
        ("head/kernel", np.zeros((8, 2), "U1"), "head/kernel is <U1, expected float32"),
        ("head/kernel", np.zeros((8, 2), np.complex64), "is complex64, expected float32"),
        ("trunk/kernel", np.zeros(1, np.float32), "has the unknown tensor trunk/kernel"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(name, tensor, message):
    actual = {**EXPECTED, name: tensor}
    if tensor is None:
        del actual[name]

    with pytest.raises(UpdateError, match=message):
        require_same_tensors(EXPECTED, actual, sender="robot r2")


def test_the_caller_chooses_the_class_of_the_error():
    with pytest.raises(CheckpointError, match="lacks head/kernel"):
        require_same_tensors(EXPECTED, {}, sender="file", error=CheckpointError)


@given(tensors)
def test_adding_the_difference_gives_the_trained_tensors_back(pair):
    before, after = ({"w": tensor} for tensor in pair)

    np.testing.assert_array_equal(add(before, difference(after, before))["w"], after["w"])


def test_the_norm_is_of_all_tensors_as_one_vector():
    assert l2_norm({"a": np.array([[3.0]]), "b": np.array([4.0])}) == 5.0
    assert l2_norm({}) == 0.0


def test_bytes_are_those_of_all_tensors():
    assert size_bytes(EXPECTED) == 4 * (8 * 2 + 2)


@given(
    st.dictionaries(
        st.text("abc/_0", min_size=1, max_size=8),
        array_shapes(min_dims=0, max_side=3).flatmap(lambda s: arrays(np.float32, s)),
        max_size=4,
    )
)
def test_written_tensors_are_read_back_bit_for_bit(tmp_path_factory, weights):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"

    write_weights(path, weights)
    read = read_weights(path)

    assert read.keys() == weights.keys()
    for name, tensor in weights.items():
        assert read[name].tobytes() == tensor.tobytes()
        assert read[name].shape == tensor.shape


def test_a_transposed_tensor_is_written_in_its_own_order(tmp_path):
    tensor = np.arange(6, dtype=np.float32).reshape(2, 3).T

    write_weights(tmp_path / "w.safetensors", {"w": tensor})

    np.testing.assert_array_equal(read_weights(tmp_path / "w.safetensors")["w"], tensor)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"w\.safetensors: no such file"):
        read_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 20, 100])
def test_a_file_that_is_cut_is_a_checkpoint_error(tmp_path, keep):
    path = tmp_path / "w.safetensors"
    write_weights(path, EXPECTED)
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        read_weights(path)


@given(content=st.binary(max_size=64))
def test_no_file_of_random_bytes_raises_anything_else(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    path.write_bytes(content)

    with pytest.raises(CheckpointError):
        read_weights(path)


def test_the_file_is_what_the_safetensors_library_writes(tmp_path):
    weights = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a/\u00e9": np.zeros((0, 3), np.float32),
        "scalar": np.asarray(3, np.float32),
    }

    write_weights(tmp_path / "w.safetensors", weights)

    assert (tmp_path / "w.safetensors").read_bytes() == safetensors.numpy.save(weights)


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "u8", "i4", "u2", "i1", "u1", "?", "c8"])
def test_every_kind_of_number_is_read_as_the_library_reads_it(tmp_path, dtype):
    path, tensor = tmp_path / "w.safetensors", np.arange(6).astype(dtype).reshape(3, 2)

    write_weights(path, {"w": tensor, "x": np.zeros(3, np.float32)})
    read, theirs = read_weights(path), safetensors.numpy.load_file(path)

    assert read["w"].dtype == theirs["w"].dtype == tensor.dtype
    np.testing.assert_array_equal(read["w"], tensor)
    np.testing.assert_array_equal(theirs["w"], tensor)


def test_a_file_with_free_text_is_read(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file({"w": np.ones(2, np.float32)}, path, {"made by": "somebody"})

    assert list(read_weights(path)) == ["w"]


def test_a_tensor_that_the_format_cannot_hold_is_named(tmp_path):
    with pytest.raises(ValueError, match="w is <U1, which a safetensors file cannot hold"):
        write_weights(tmp_path / "w.safetensors", {"w": np.array(["a"])})
    assert list(tmp_path.iterdir()) == []


def test_tensors_are_views_of_the_mapped_file_and_cannot_be_changed(tmp_path):
    write_weights(tmp_path / "w.safetensors", EXPECTED)

    for tensor in read_weights(tmp_path / "w.safetensors").values():
        assert not tensor.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            tensor += 1


TABLES = [
    {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},  # too short
    {"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},  # a gap
    {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},  # bytes left over
    {n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in "wx"},  # overlapping
    {"w": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
    {"w": {"dtype": "F32", "shape": [0, 2**70], "data_offsets": [0, 0]}},
    {"w": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}},
    {"w": {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]}},
    {"w": {"shape": "2"}},
    {"w": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}},
    [],
]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_does_not_fit_its_bytes_is_refused(tmp_path, table):
    path, text = tmp_path / "w.safetensors", json.dumps(table).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))

    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        read_weights(path)


@given(content=st.data())
def test_a_damaged_file_is_refused_or_has_the_tensors_that_the_library_finds(
    tmp_path_factory, content
):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    write_weights(path, EXPECTED)
    damaged = bytearray(path.read_bytes())
    table_end = 8 + int.from_bytes(damaged[:8], "little")
    at = content.draw(st.integers(0, table_end - 1))
    damaged[at] ^= 1 << content.draw(st.integers(0, 7))
    path.write_bytes(damaged)

    try:
        read = read_weights(path)
    except CheckpointError:
        return
    theirs = safetensors.numpy.load_file(path)
    assert read.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert read[name].tobytes() == tensor.tobytes()
