"""The disk model: what it promises and what it may lose."""

import os

import pytest
from disk import Disk, fates_of, unsafe
from operations import (
    Create,
    Mark,
    Remove,
    Rename,
    Resize,
    SyncAll,
    SyncFile,
    SyncFolder,
    Write,
)

MAKE, FILL = Create(0, "a", 1, "file"), Write(1, 0, b"x" * 1500)


@pytest.fixture
def empty(tmp_path):
    return Disk.of(tmp_path)


def files(tree):
    return {path: tree.nodes[number].content for path, number in tree.entries()}


@pytest.mark.parametrize(
    ("operations", "waiting"),
    [
        ([MAKE, FILL], [0, 1]),
        ([MAKE, FILL, SyncFile(1)], [0]),  # the name is not saved with the bytes
        ([MAKE, FILL, SyncFolder(0)], [1]),
        (
            [MAKE, SyncFile(1), FILL, SyncFolder(0)],
            [2],
        ),  # what comes after a sync is not saved by it
        ([MAKE, FILL, Resize(1, 3), Mark(), SyncAll()], []),
        # A folder's own name is in its parent.
        ([Create(0, "d", 1, "folder"), Create(1, "a", 2, "file"), SyncFolder(1)], [0]),
        # A rename is saved by the folder that it leads into.
        ([Rename(0, "a", 1, "b", 2), SyncFolder(0)], [0]),
        ([Rename(0, "a", 1, "b", 2), SyncFolder(1)], []),
        ([Remove(0, "a"), SyncFile(1)], [0]),
    ],
)
def test_only_the_sync_of_its_own_home_makes_a_change_safe(operations, waiting):
    assert unsafe(operations) == waiting


@pytest.mark.parametrize(
    ("fates", "found"),
    [
        ({}, {"a": b"x" * 1500}),
        ({0: "lost"}, {}),
        ({1: "lost"}, {"a": b""}),
        ({1: "torn"}, {"a": b"x" * 512}),
        ({1: "short"}, {"a": b"x" * 1499}),
        ({1: "zeros"}, {"a": bytes(1500)}),
    ],
)
def test_each_change_meets_a_fate_of_its_own(empty, fates, found):
    assert files(empty.after([MAKE, FILL], fates)) == found
    assert set(fates.values()) <= set(fates_of(FILL))


def test_a_lost_write_before_a_kept_one_leaves_zeros(empty):
    tree = empty.after([MAKE, Write(1, 0, b"first"), Write(1, 5, b"second")], {1: "lost"})
    assert files(tree) == {"a": b"\0\0\0\0\0second"}


def test_a_lost_rename_leaves_the_old_file_and_the_temporary_one(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    disk = Disk.of(tmp_path)
    operations = [Create(0, "a.new", 2, "file"), Write(2, 0, b"new"), Rename(0, "a.new", 0, "a", 2)]
    assert files(disk.after(operations)) == {"a": b"new"}
    assert files(disk.after(operations, {2: "lost"})) == {"a": b"old", "a.new": b"new"}
    assert files(disk.after(operations, {0: "lost"})) == {"a": b"new"}


def test_a_lost_folder_takes_what_was_safe_in_it_with_it(empty):
    operations = [Create(0, "d", 1, "folder"), Create(1, "a", 2, "file"), SyncFolder(1)]
    assert files(empty.after(operations, {0: "lost"})) == {}


def test_a_tree_is_made_real_with_its_links(tmp_path):
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    before = tmp_path / "before"
    (before / "d").mkdir()
    (before / "d" / "a").write_bytes(b"content")
    os.link(before / "d" / "a", before / "b")
    (before / "current").symlink_to("d/a")

    Disk.of(before).tree().put(tmp_path / "after")

    assert Disk.of(tmp_path / "after").tree() == Disk.of(before).tree()
    assert (tmp_path / "after" / "b").stat().st_nlink == 2


def test_trees_differ_by_names_contents_and_links(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"1")
    two = Disk.of(tmp_path).tree()
    (tmp_path / "b").unlink()
    os.link(tmp_path / "a", tmp_path / "b")
    assert Disk.of(tmp_path).tree() != two
