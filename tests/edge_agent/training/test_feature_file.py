import numpy as np
import pytest

from edge_agent.training.feature_file import FeatureFile

pytestmark = pytest.mark.base

PLENTY = 10**9


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.rows"


def row_of(number):
    random = np.random.default_rng(number)
    return {
        "features": random.normal(size=(2, 3)).astype(np.float32),
        "mask": np.array(number % 2 == 0),
        "empty": np.empty((0, 4), np.int64),
        "half": random.normal(size=5).astype(np.float16),
    }


def same(first, second):
    return first.keys() == second.keys() and all(
        first[n].dtype == second[n].dtype
        and first[n].shape == second[n].shape
        and first[n].tobytes() == second[n].tobytes()
        for n in first
    )


def filled(path, numbers):
    file = FeatureFile(path, "me")
    for number in numbers:
        assert file.append(f"key/\udcff{number}", row_of(number), PLENTY)
    return file


def found(path, owner="me"):
    file = FeatureFile(path, owner)
    rows = {key: file.read(key) for key in list(file.keys())}
    assert all(same(row, row_of(int(key[5:]))) for key, row in rows.items() if row)
    return [int(key[5:]) for key, row in rows.items() if row]


def test_rows_come_back_bit_for_bit_and_may_be_written_to(path):
    filled(path, range(5))
    assert found(path) == [0, 1, 2, 3, 4]
    row = FeatureFile(path, "me").read("key/\udcff3")
    row["features"] += 1
    assert FeatureFile(path, "me").read("unknown") is None


def test_a_file_that_is_cut_anywhere_keeps_the_rows_before_and_takes_new_ones(path):
    filled(path, range(3))
    whole = path.read_bytes()
    ends = [len(whole) - size for size in range(0, len(whole), 11)]
    counts = set()
    for end in ends:
        path.write_bytes(whole[:end])
        before = found(path)
        assert before == list(range(len(before)))
        counts.add(len(before))
        filled(path, [7])
        assert found(path) == [*before, 7]
    assert counts == {0, 1, 2, 3}


def test_a_flipped_bit_costs_its_row_or_the_rest_but_never_gives_wrong_numbers(path):
    filled(path, range(3))
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        left = found(path)  # which compares the numbers
        assert len(left) < 3
        filled(path, [7])
        assert 7 in found(path)


def test_a_row_with_wrong_numbers_is_replaced_by_one_that_is_appended(path):
    filled(path, range(2))
    content = bytearray(path.read_bytes())
    at = content.index(row_of(0)["features"].tobytes())
    content[at] ^= 1
    path.write_bytes(content)
    file = FeatureFile(path, "me")
    assert file.read("key/\udcff0") is None
    assert "key/\udcff0" not in file
    file.append("key/\udcff0", row_of(0), PLENTY)
    assert sorted(found(path)) == [0, 1]


def test_a_torn_end_behind_the_only_row_and_wrong_numbers_in_it_cost_no_later_row(path):
    filled(path, [0])
    content = bytearray(path.read_bytes())
    content[content.index(row_of(0)["features"].tobytes())] ^= 1
    path.write_bytes(content + b"row\n")
    file = FeatureFile(path, "me")
    assert file.read("key/\udcff0") is None
    file.append("key/\udcff0", row_of(0), PLENTY)
    assert found(path) == [0]


def test_rows_behind_the_head_of_another_owner_are_none_of_its(path):
    filled(path, range(3))
    content = path.read_bytes()
    FeatureFile(path, "another").append("key/\udcff1", row_of(1), PLENTY)
    head = path.read_bytes()[:40]  # a power cut has kept the new head and the old rows
    path.write_bytes(head + content[40:])
    assert found(path, "another") == []


def test_rows_of_another_owner_are_not_found_and_make_room(path):
    filled(path, range(3))
    size = path.stat().st_size
    assert found(path, "another") == []
    FeatureFile(path, "another").append("key/\udcff1", row_of(1), PLENTY)
    assert path.stat().st_size < size
    assert (found(path), found(path, "another")) == ([], [1])


def test_an_empty_file_of_another_owner_becomes_ones_own(path):
    path.write_bytes(b"")
    filled(path, [1])
    assert found(path) == [1]
    path.write_bytes(path.read_bytes()[:40])  # only the head
    FeatureFile(path, "another").append("key/\udcff2", row_of(2), PLENTY)
    assert found(path, "another") == [2]


def test_one_more_row_writes_its_own_bytes_only(path):
    filled(path, range(100))
    before = path.read_bytes()
    filled(path, [100])
    assert path.read_bytes().startswith(before)
    assert path.stat().st_size - len(before) < 2 * len(before) / 100


def test_it_never_grows_beyond_the_limit(path):
    file = filled(path, range(3))
    size = file.size_bytes
    assert not file.append("more", row_of(3), size)
    assert path.stat().st_size == size
    assert file.append("more", row_of(3), 2 * size)


def test_compaction_keeps_what_is_wanted_and_goes_on(path):
    file = filled(path, range(10))
    size = file.size_bytes
    wanted = {"key/\udcff2", "key/\udcff7", "not there"}
    assert file.dead_bytes(wanted) > size / 2
    file.compact(wanted)
    assert file.size_bytes == path.stat().st_size < size / 2
    assert file.dead_bytes(wanted) == 0
    assert same(file.read("key/\udcff7"), row_of(7))
    file.append("key/\udcff11", row_of(11), PLENTY)
    assert found(path) == [2, 7, 11]


def test_a_dtype_that_has_no_name_is_not_kept(path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    file = FeatureFile(path, "me")
    assert not file.append("a", {"x": np.zeros(3, ml_dtypes.bfloat16)}, PLENTY)
    assert not file.append("b", {"x": np.array([{}], object)}, PLENTY)
    assert file.append("c", {"x": np.zeros(3, np.float32)}, PLENTY)


def test_a_full_disk_leaves_whole_rows(path, monkeypatch):
    file = filled(path, range(2))

    class Full:
        def __init__(self, stream):
            self._stream = stream

        def write(self, view):
            if len(view) > 20:
                return self._stream.write(view[:20])
            raise OSError(28, "No space left on device")

        def __getattr__(self, name):
            return getattr(self._stream, name)

    monkeypatch.setattr(file, "_stream", Full(file._stream))
    with pytest.raises(OSError, match="No space"):
        file.append("more", {"x": np.zeros(3)}, PLENTY)
    assert path.stat().st_size == file.size_bytes
    assert found(path) == [0, 1]
