"""`backup` and `restore` as they are typed; what they do is tested in tests/cloud_server/backup."""

import json
import re
import subprocess
import sys

import pytest

from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import load_settings
from fleet_model.durable import write_durably

PROGRAM = [sys.executable, "-m", "cloud_server.cli"]


def test_a_backup_says_what_it_holds_and_how_it_is_used(cloud_server, server_dir, tmp_path):
    (server_dir.root / "gone").symlink_to("nowhere")
    code, out, err = cloud_server("backup", server_dir.root, tmp_path / "my fleet.tar")
    assert (code, out) == (0, "")
    assert "WARNING: gone is left out: it is neither a file nor a folder" in err
    assert re.search(r"my fleet.tar: 30 files, 0.1 MB, version 1; it holds the private keys", err)
    assert f"to use it: cloud-server restore '{tmp_path}/my fleet.tar' NEW_DIR" in err


def test_a_restore_says_what_is_to_be_done_with_real_names(cloud_server, server_dir, tmp_path):
    cloud_server("backup", server_dir.root, tmp_path / "fleet.tar")
    code, out, err = cloud_server("restore", tmp_path / "fleet.tar", tmp_path / "new")
    assert (code, out) == (0, "")
    port = load_settings(server_dir.settings).network.port
    for words in (
        f"ready: {tmp_path}/new, as {server_dir.root} was at 20",
        "versions go on with 2000, by which robots get their model again; 2 to 1999 are never",
        f"cloud-server doctor {tmp_path}/new; then cloud-server start {tmp_path}/new",
        f"robots come by themselves where localhost:{port} leads to this machine",
        f"cloud-server renew-certificate {tmp_path}/new, cloud-server repair {tmp_path}/new",
    ):
        assert words in err
    code, _, err = cloud_server("restore", tmp_path / "fleet.tar", tmp_path / "new")
    assert (code, "exists and is not empty" in err) == (2, True)


def test_for_programs_both_print_json(cloud_server, server_dir, tmp_path):
    file = tmp_path / "fleet.tar"
    code, out, err = cloud_server("backup", server_dir.root, file, "--json")
    assert (code, err) == (0, "")
    made = json.loads(out)
    assert made["versions"] == {"": 1}
    assert (made["files"], made["left_out"], made["format"]) == (30, [], 1)
    code, out, err = cloud_server("restore", file, tmp_path / "new", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["numbers"] == {"": {"newest": 1, "from": 2000}}
    assert (told["created_at"], told["warnings"]) == (made["created_at"], [])


def test_through_a_pipe_to_another_machine(server_dir, tmp_path):
    with subprocess.Popen(
        [*PROGRAM, "backup", server_dir.root, "-"], stdout=subprocess.PIPE
    ) as one:
        done = subprocess.run(
            [*PROGRAM, "restore", "-", tmp_path / "new"],
            stdin=one.stdout, capture_output=True, text=True,
        )  # fmt: skip
    assert (one.returncode, done.returncode) == (0, 0), done.stderr
    assert done.stdout == ""
    assert Checkpoints(ServerDirectory(tmp_path / "new").checkpoints).newest() == 2000


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("backup", "DIR", "-", "--json"), "--json prints to stdout, where - writes the backup"),
        (("restore", "nothing.tar", "new"), "nothing.tar: there is no such file"),
        (("backup", "nowhere", "fleet.tar"), "nowhere: not a server directory"),
    ],
)
def test_what_cannot_be_is_one_line(cloud_server, server_dir, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    given = [server_dir.root if word == "DIR" else word for word in words]
    code, out, err = cloud_server(*given)
    assert (code, out) == (2, "")
    assert told in err
    assert not (tmp_path / "new").exists()


def test_no_backup_is_written_to_a_terminal(cloud_server, server_dir, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    code, out, err = cloud_server("backup", server_dir.root, "-")
    assert (code, out) == (2, "")
    assert "a terminal: name a file, or a pipe" in err


def test_killed_at_its_rename_a_backup_leaves_the_old_file_and_the_next_one_is_whole(
    server_dir, tmp_path
):
    file = tmp_path / "fleet.tar"
    write_durably(file, b"of yesterday")
    code = (
        "import os, sys; from pathlib import Path\n"
        "Path.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        "from cloud_server.cli import main; main()\n"
    )
    command = [sys.executable, "-c", code, "backup", str(server_dir.root), str(file)]
    assert subprocess.run(command, capture_output=True).returncode == -9
    assert file.read_bytes() == b"of yesterday"
    (left,) = (one for one in tmp_path.iterdir() if one.name.startswith(".fleet.tar."))
    assert left.stat().st_mode & 0o777 == 0o600
    assert left.stat().st_size > 20_000
