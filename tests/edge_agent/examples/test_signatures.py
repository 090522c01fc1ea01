import os

import pytest

from edge_agent.examples.signatures import digest_of, signature_of

pytestmark = pytest.mark.base

HOUR_NS = 3600 * 10**9


def later(path):
    """Return a clock that is an hour ahead of the last change of a file."""
    return lambda: path.stat().st_ctime_ns + HOUR_NS


def replaced(path, content):
    aside = path.with_name("aside")
    aside.write_bytes(content)
    aside.replace(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"longer"),
        lambda path: os.utime(path, ns=(0, 0)),
        lambda path: replaced(path, path.read_bytes()),
    ],
    ids=["size", "time", "inode"],
)
def test_a_file_that_changes_has_another_signature(tmp_path, change):
    path = tmp_path / "file"
    path.write_bytes(b"bytes")
    before = signature_of(str(path), later(path))
    assert before == signature_of(str(path), later(path)) is not None
    change(path)
    assert signature_of(str(path), later(path)) != before


def test_a_time_that_was_set_back_is_noticed(tmp_path):
    """As after `cp -p` or `rsync --times` of other pictures of the same size over these."""
    path = tmp_path / "file"
    path.write_bytes(b"first")
    status = path.stat()
    before = signature_of(str(path), later(path))
    while path.stat().st_ctime_ns == status.st_ctime_ns:  # until the file system's clock ticks
        path.write_bytes(b"other")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert signature_of(str(path), later(path)) != before


def test_a_file_that_could_change_within_the_same_tick_has_none_yet(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"bytes")
    now_ns = path.stat().st_ctime_ns
    assert signature_of(str(path), lambda: now_ns + 10**6) is None
    assert digest_of(tmp_path, lambda: now_ns + 10**6) == ""
    assert signature_of(str(tmp_path / "gone")) is None


def test_the_digest_of_a_folder_follows_every_file_in_it(tmp_path):
    label = tmp_path / "data" / "labels" / "1.txt"
    label.parent.mkdir(parents=True)
    label.write_bytes(b"0")
    clock = later(label)
    known = [digest_of(tmp_path / "data", clock)]
    replaced(label, b"1")
    known.append(digest_of(tmp_path / "data", clock))
    (tmp_path / "data" / "2.jpg").write_bytes(b"")
    known.append(digest_of(tmp_path / "data", clock))
    (tmp_path / "data" / "2.jpg").rename(tmp_path / "data" / "3.jpg")
    known.append(digest_of(tmp_path / "data", clock))
    assert len(set(known)) == 4
    assert known[-1] == digest_of(tmp_path / "data", clock) != ""


def test_folders_that_lead_in_a_circle_and_links_that_lead_nowhere_end(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "self").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "data" / "file").write_bytes(b"")
    assert digest_of(tmp_path / "data", later(tmp_path / "data" / "file"))


def test_the_log_beside_a_database_counts(tmp_path):
    bag = tmp_path / "run.db3"
    bag.write_bytes(b"")
    before = digest_of(bag, later(bag))
    (tmp_path / "other.db3").write_bytes(b"")
    assert digest_of(bag, later(bag)) == before
    (tmp_path / "run.db3-wal").write_bytes(b"")
    assert digest_of(bag, later(bag)) != before
