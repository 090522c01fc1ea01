import os
import stat
import threading
from pathlib import Path

import pytest

from fleet_model.command_line.output_file import (
    output_file,
    require_folder,
    require_output,
    write_output,
)
from fleet_model.errors import SettingsError, StorageError

pytestmark = pytest.mark.base


# Devices of their own: broken code that runs as root would replace the machine's.
def test_a_device_is_written_to_and_stays_a_device():
    reads, writes = os.openpty()
    device = Path(os.ttyname(writes))
    require_output(device, "--csv")
    write_output(device, b"1,2")
    assert os.read(reads, 3) == b"1,2"
    assert device.is_char_device()
    os.close(reads)
    os.close(writes)


def test_a_full_device_is_one_error_that_names_it(tmp_path):
    full = tmp_path / "full"
    try:
        os.mknod(full, stat.S_IFCHR | 0o600, os.makedev(1, 7))
        full.open("wb").close()
    except PermissionError:
        if os.access("/dev", os.W_OK):
            pytest.skip("this user may replace /dev/full, and make no device like it")
        full = Path("/dev/full")
    with pytest.raises(StorageError, match=r"full: cannot be written \(No space left"):
        write_output(full, b"1")
    assert full.is_char_device()


def test_a_pipe_is_written_through(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=write_output, args=(tmp_path / "pipe", b"12"))
    writer.start()
    assert (tmp_path / "pipe").read_bytes() == b"12"
    writer.join()
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_stays_and_what_it_names_gets_the_content_and_keeps_its_rights(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.csv").write_bytes(b"old")
    (tmp_path / "real" / "a.csv").chmod(0o640)
    (tmp_path / "link").symlink_to("real/a.csv")
    write_output(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a.csv").read_bytes() == b"new"
    assert (tmp_path / "real" / "a.csv").stat().st_mode & 0o777 == 0o640


def test_a_link_to_what_is_not_there_yet_makes_it(tmp_path):
    (tmp_path / "link").symlink_to("later.csv")
    require_output(tmp_path / "link", "--csv")
    write_output(tmp_path / "link", b"new")
    assert (tmp_path / "later.csv").read_bytes() == b"new"


def fill_the_disk(path):
    with output_file(path) as out:
        out.write(b"half")
        raise OSError(28, "No space left on device")


def test_an_error_in_the_middle_leaves_the_older_file(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(StorageError, match="cannot be written"):
        fill_the_disk(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_minus_is_stdout(capfdbinary):
    write_output(Path("-"), b"1,2\n")
    assert capfdbinary.readouterr().out == b"1,2\n"
    assert not Path("-").exists()


def test_a_folder_in_its_place_is_refused_before_the_work(tmp_path):
    with pytest.raises(SettingsError, match=r"^--csv .*: is a folder; name a file"):
        require_output(tmp_path, "--csv")


def test_a_suffix_that_names_no_format_is_refused_before_the_work(tmp_path):
    with pytest.raises(SettingsError, match=r"m\.pdf: the name must end with \.png or \.jpg"):
        require_output(tmp_path / "m.pdf", "--confusion", (".png", ".jpg"))
    require_output(tmp_path / "m.PNG", "--confusion", (".png", ".jpg"))


def test_a_place_where_nothing_can_be_written_is_found_before_the_work(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"^--csv .*file is a file, expected a folder"):
        require_output(tmp_path / "file" / "a.csv", "--csv")
    with pytest.raises(StorageError, match=r"^--csv /proc/a: nothing can be written in /proc \("):
        require_output(Path("/proc/a"), "--csv")


def test_a_folder_is_made_only_where_a_folder_was_named_and_nothing_is_left(tmp_path):
    with pytest.raises(SettingsError, match=r"^--csv .*: there is no folder .*deep; make it first"):
        require_output(tmp_path / "new" / "deep" / "a.csv", "--csv")
    require_folder(tmp_path / "new" / "deep", "--annotate")
    assert list(tmp_path.iterdir()) == []
