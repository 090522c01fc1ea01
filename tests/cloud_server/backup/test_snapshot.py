"""All files of one moment, while others write; the writers here are as mean as the order allows."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloud_server.backup import snapshot
from cloud_server.backup.snapshot import opened
from fleet_model.errors import StorageError


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(snapshot, "PAUSE_S", 0)


def write(root, **files):
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def content_of(root):
    with opened(root) as found:
        return {one.name: one.stream.read(one.size_bytes) for one in found.files}


def between_the_walks(monkeypatch, root, *changes):
    """Make one change each time when every file is open and none was looked at again."""
    walk, left, walks = snapshot._walk, list(changes), 0

    def changing(folder, name, *rest):
        nonlocal walks
        if not name:
            walks += 1
            if walks % 2 == 0 and left:
                left.pop(0)(root)
        return walk(folder, name, *rest)

    monkeypatch.setattr(snapshot, "_walk", changing)
    return lambda: walks // 2


def test_what_the_next_start_makes_again_is_left_out(tmp_path):
    write(tmp_path, server__toml=b"s", runs__a__run=b"r", kit__ca=b"k", channels__c__history=b"h")
    kept = content_of(tmp_path)
    left_out = (
        ".start.lock", "store/.lock", "store/.bundle-1/a", "checkpoints/.000002.new/weights",
        "flower/state.db", "flower/a/b", "tensorboard/a/events", "totals.json",
        "channels/c/totals.json", "runs/a/round.json", "runs/a/gate/1/round.json",
        "runs-apart/a/replies-a-000001-000001.spool",
    )  # fmt: skip
    for name in left_out:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert content_of(tmp_path) == kept
    assert kept.keys() == {"server/toml", "runs/a/run", "kit/ca", "channels/c/history"}


def test_an_open_file_stays_what_it_was_when_it_is_replaced_or_deleted(tmp_path):
    write(tmp_path, a=b"old", b=b"kept")
    with opened(tmp_path) as found:
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").rename(tmp_path / "a")
        (tmp_path / "b").unlink()
        assert [(one.name, one.stream.read(9)) for one in found.files] == [
            ("a", b"old"), ("b", b"kept"),
        ]  # fmt: skip


def _replace(root):
    write(root, aside=b"new")
    (root / "aside").rename(root / "channel")


def _delete(root):
    (root / "version").unlink()


def _add(root):
    write(root, folder__another=b"2")


def test_files_that_were_not_there_together_are_opened_again(tmp_path, monkeypatch):
    write(tmp_path, channel=b"old", version=b"1", folder__one=b"1")
    tries = between_the_walks(monkeypatch, tmp_path, _replace, _delete, _add)
    assert content_of(tmp_path) == {
        "channel": b"new", "folder/one": b"1", "folder/another": b"2",
    }  # fmt: skip
    assert tries() == 4


def test_a_file_that_goes_before_it_is_opened_is_no_error(tmp_path, monkeypatch):
    write(tmp_path, a=b"1", version=b"1")
    real = Path.open

    def opening(path, *rest, **more):
        if path.name == "version" and path.exists():
            path.unlink()
        return real(path, *rest, **more)

    monkeypatch.setattr(Path, "open", opening)
    assert content_of(tmp_path) == {"a": b"1"}


def test_a_directory_that_changes_all_the_time_is_told(tmp_path, monkeypatch):
    write(tmp_path, channel=b"old")
    between_the_walks(monkeypatch, tmp_path, *[_replace] * snapshot.TRIES)
    with pytest.raises(StorageError, match="its files change faster than they can be opened"):
        content_of(tmp_path)


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"one\ntwo\n", b"one\ntwo\n"),
        (b"one\ntwo", b"one\n"),
        (b"one\n" + b"x" * 5 * snapshot.BLOCK_BYTES, b"one\n"),
        (b"x" * 9, b""),
        (b"", b""),
    ],
    ids=["whole", "torn", "a long torn line", "no whole line", "empty"],
)
def test_a_file_of_lines_ends_with_its_last_whole_line(tmp_path, content, kept):
    (tmp_path / "history.jsonl").write_bytes(content)
    assert content_of(tmp_path) == {"history.jsonl": kept}


def test_links_are_followed_and_what_is_no_file_is_told(tmp_path):
    root, disk = tmp_path / "fleet", tmp_path / "disk"
    write(root, a=b"1")
    write(disk, objects__one=b"2")
    (root / "store").symlink_to(disk)
    (disk / "again").symlink_to(root)
    (root / "gone").symlink_to("nowhere")
    os.mkfifo(root / "pipe")
    with opened(root) as found:
        assert [one.name for one in found.files] == ["a", "store/objects/one"]
        assert found.strange == ["gone", "pipe", "store/again"]


def test_more_files_than_may_be_open_are_told_with_the_limit(tmp_path):
    write(tmp_path, **{f"file{n}": b"1" for n in range(60)})
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from cloud_server.backup.snapshot import opened\n"
        "from fleet_model.errors import StorageError\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
        "try:\n"
        "    with opened(Path(sys.argv[1])): pass\n"
        "except StorageError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "has more files than this user may open (40); raise that limit: ulimit -n" in done.stdout
