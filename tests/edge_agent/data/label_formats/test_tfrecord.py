import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.label_formats.tfds.tf_example import Features, read_example
from edge_agent.data.label_formats.tfds.tfrecord import read_record, record_positions, write_record
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

pytestmark = pytest.mark.base

# Written by TensorFlow 2.21: tf.io.TFRecordWriter, one record b"abc".
BY_TENSORFLOW = bytes.fromhex("0300000000000000 b099490e 616263 6e57f121")


@pytest.fixture
def write(tmp_path):
    def write_records(records):
        with (tmp_path / "r").open("wb") as stream:
            for record in records:
                write_record(stream, record)
        return tmp_path / "r"

    return write_records


def read_all(path, damage):
    found = []
    for position in record_positions(path, "r", damage):
        try:
            found.append(read_record(path, position, "r"))
        except FrameError as error:
            damage.add(error.reason, str(error))
    return found


def test_records_read_back(write):
    records = [b"", b"a", bytes(100_000), b"end"]
    damage = DamageLog()
    assert read_all(write(records), damage) == records
    assert not damage


def test_the_bytes_are_those_of_tensorflow(write):
    assert write([b"abc"]).read_bytes() == BY_TENSORFLOW


@given(
    st.lists(st.binary(min_size=20, max_size=60), min_size=3, max_size=8, unique=True),
    st.data(),
)
def test_one_damaged_byte_costs_one_record_and_is_named(tmp_path_factory, records, data):
    path = tmp_path_factory.mktemp("r") / "r"
    with path.open("wb") as stream:
        for record in records:
            write_record(stream, record)
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    damage = DamageLog()
    found = read_all(path, damage)
    lost, start = 0, 0
    for record in records:
        end = start + 16 + len(record)
        lost = record if start <= at < end else lost
        start = end
    if content[:2] != b"\x1f\x8b":
        assert found == [record for record in records if record != lost]
        assert sum(each.count for each in damage.all()) == 1


@given(st.binary(max_size=200).filter(lambda content: content[:2] != b"\x1f\x8b"))  # gzip: below
def test_any_bytes_end_in_records_or_damage(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("r") / "r"
    path.write_bytes(content)
    damage = DamageLog()
    assert read_all(path, damage) == []
    assert bool(damage) == bool(content)


def test_a_cut_file_gives_what_is_whole(write):
    path = write([b"one", b"two", b"three"])
    path.write_bytes(path.read_bytes()[:-1])
    damage = DamageLog()
    assert read_all(path, damage) == [b"one", b"two"]
    assert damage.sentence() == "1 x cut file, first r in the record at byte 38"


def test_a_packed_file_is_refused_with_a_reason(tmp_path):
    (tmp_path / "r").write_bytes(b"\x1f\x8b\x08" + bytes(50))
    with pytest.raises(FrameError, match="packed with gzip"):
        list(record_positions(tmp_path / "r", "r", DamageLog()))


integers = st.lists(st.integers(-(2**63), 2**63 - 1))


@given(st.lists(st.binary()), st.lists(st.floats(width=32, allow_nan=False)), integers)
def test_an_example_reads_back(blobs, numbers, counts):
    features = Features()
    features.add_bytes("a", blobs)
    features.add_floats("b/c", numbers)
    features.add_integers("d", counts)
    found = read_example(features.record())
    assert [list(values) for values in found.values()] == [blobs, numbers, counts]
    assert list(found) == ["a", "b/c", "d"]


@given(st.binary(max_size=60))
def test_any_bytes_are_an_example_or_a_frame_error(content):
    try:
        read_example(content)
        reason = "bad record"
    except FrameError as error:
        reason = error.reason
    assert reason == "bad record"


def test_lists_that_are_not_packed_are_read_too():
    ones = bytes.fromhex("0801 08ffffffffffffffffff01".replace(" ", ""))
    halves = bytes.fromhex("0d0000003f0d0000003f")
    entries = b""
    for name, kind, values in ((b"i", 3, ones), (b"f", 2, halves)):
        feature = bytes([kind << 3 | 2, len(values)]) + values
        entry = b"\x0a\x01" + name + b"\x12" + bytes([len(feature)]) + feature
        entries += b"\x0a" + bytes([len(entry)]) + entry
    assert read_example(b"\x0a" + bytes([len(entries)]) + entries) == {"i": [1, -1], "f": [0.5] * 2}
