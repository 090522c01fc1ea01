import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from fleet_model.durable import (
    appending,
    link_or_copy,
    make_directory,
    point_durably,
    pointed,
    remove_asides,
    remove_durably,
    write_durably,
    writing,
)

pytestmark = pytest.mark.base


def child(*arguments, script):
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])


def kill_when_it_says_so(process):
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_process_killed_in_the_middle_of_a_file_leaves_the_old_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    kill_when_it_says_so(
        child(
            path,
            script="""
            import sys, time
            from pathlib import Path
            from fleet_model.durable import writing
            with writing(Path(sys.argv[1])) as stream:
                stream.write(b"half of the new")
                stream.flush()
                print("half", flush=True)
                time.sleep(60)
            """,
        )
    )

    assert path.read_bytes() == b"old"
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_process_killed_at_any_moment_leaves_a_whole_file_and_link(tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    contents = {name * 300_000 for name in ("a", "b")}

    for _ in range(5):
        kill_when_it_says_so(
            child(
                path,
                link,
                script="""
                import itertools, sys
                from pathlib import Path
                from fleet_model.durable import point_durably, write_durably
                for name in itertools.cycle("ab"):
                    write_durably(Path(sys.argv[1]), name * 300_000)
                    point_durably(Path(sys.argv[2]), name)
                    print(flush=True)
                """,
            )
        )

        assert path.read_text() in contents
        assert str(link.readlink()) in ("a", "b")


def test_what_killed_processes_left_aside_is_removed_and_what_live_ones_write_stays(tmp_path):
    ended = child(script="")
    ended.communicate()
    (tmp_path / f".status.json.{ended.pid}.new").write_bytes(b"half of it")
    (tmp_path / f".stable.{ended.pid}.new").symlink_to("nowhere")
    own = tmp_path / f".status.json.{os.getpid()}.new"
    stays = {own, tmp_path / ".left.new", tmp_path / f"note.{ended.pid}.new", tmp_path / "status"}
    for file in stays:
        file.touch()
    remove_asides(tmp_path)
    assert set(tmp_path.iterdir()) == stays
    remove_asides(tmp_path / "no folder")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    with pytest.raises(TypeError), writing(path) as stream:
        stream.writelines([b"half", None])

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_secret_is_never_readable_by_others_even_over_a_leftover(tmp_path):
    leftover = tmp_path / f".key.{os.getpid()}.new"
    leftover.touch(mode=0o644)
    modes = []

    with writing(tmp_path / "key", mode=0o600) as stream:
        modes.append(stat.S_IMODE(os.fstat(stream.fileno()).st_mode))

    assert [*modes, stat.S_IMODE((tmp_path / "key").stat().st_mode)] == [0o600, 0o600]


def test_folders_are_made_and_text_is_written_as_utf_8(tmp_path):
    write_durably(tmp_path / "a" / "b" / "file", "ü")

    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"\xc3\xbc"


def test_a_link_is_moved_to_another_target(tmp_path):
    point_durably(tmp_path / "current", "versions/000001")
    point_durably(tmp_path / "current", "versions/000002")

    assert str((tmp_path / "current").readlink()) == "versions/000002"


@pytest.mark.parametrize("before", [b"", b"first"])
def test_what_is_appended_stays_or_is_cut_off_again(tmp_path, before):
    path = tmp_path / "file"
    if before:
        path.write_bytes(before)

    def fill_the_disk():
        with appending(path) as stream:
            stream.write(b"half")
            stream.flush()
            stream.write(b" of it is in a buffer")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fill_the_disk()
    assert path.read_bytes() == before

    with appending(path) as stream:
        stream.write(b"second")
    assert path.read_bytes() == before + b"second"


def test_a_removed_file_is_told_when_it_was_not_there(tmp_path):
    (tmp_path / "file").touch()
    remove_durably(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        remove_durably(tmp_path / "file")


def test_a_directory_may_be_there_or_lack_its_parents(tmp_path):
    for _ in range(2):
        make_directory(tmp_path / "a" / "b")
        make_directory(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()


def refuse(code):
    def refused(*_):
        raise OSError(code, os.strerror(code))

    return refused


def test_a_file_system_without_links_gets_copies_and_a_file_that_names_the_target(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    monkeypatch.setattr(Path, "symlink_to", refuse(errno.ENOSYS))
    source, link = tmp_path / "1" / "file", tmp_path / "current"
    write_durably(source, b"content")

    link_or_copy(source, tmp_path / "copy")
    for target in ("2", "1"):
        point_durably(link, target)

    assert (tmp_path / "copy").read_bytes() == b"content"
    assert not (tmp_path / "copy").samefile(source)
    assert link.read_text() == "1"
    assert (pointed(link) / "file").read_bytes() == b"content"


def test_a_link_that_fails_for_another_reason_is_not_copied(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"content")
    monkeypatch.setattr(os, "link", refuse(errno.EROFS))

    with pytest.raises(OSError, match="Read-only"):
        link_or_copy(tmp_path / "file", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
