import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloud_server.models.export import BundleJob, FileJob, InitJob, run_export
from cloud_server.models.export import __main__ as export_main
from fleet_model.errors import ExportError, SettingsError, StoppedError, StorageError


@pytest.fixture
def job(tmp_path):
    return BundleJob(
        model=tmp_path,
        weights=Path("weights.safetensors"),
        version=1,
        created_at="2026-01-01T00:00:00Z",
        directory=tmp_path / "bundle",
    )


@pytest.fixture
def child_does(tmp_path, monkeypatch):
    """Let a shell script take the place of the child's Python."""

    def install(script):
        shell = tmp_path / "python"
        shell.write_text(f"#!/bin/sh\n{script}\n")
        shell.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(shell))

    return install


@pytest.mark.parametrize(
    ("error", "raised"), [("SettingsError", SettingsError), ("OddWeightsError", ExportError)]
)
def test_an_error_class_that_only_a_plugin_knows_is_an_export_error(job, child_does, error, raised):
    answer = json.dumps({"error": error, "message": "the gate refused it"})
    child_does(f"echo '{answer}'; exit 9")

    with pytest.raises(raised, match=r"^the gate refused it$"):
        run_export(job)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "head.tflite"),
        RuntimeError("x; No space left on device"),
    ],
)
def test_a_full_disk_is_told_as_such_whatever_a_framework_calls_it(job, monkeypatch, capsys, error):
    def write(*_):
        raise error

    monkeypatch.setattr(export_main, "write_bundle_directory", write)

    assert export_main.main([job.model_dump_json()]) == StorageError.exit_code == 12
    assert json.loads(capsys.readouterr().out) == {
        "error": "StorageError",
        "message": f"{job.directory.parent}: No space left on device; make room on its disk, then "
        "run it again",
    }


def test_any_other_failure_of_a_framework_stays_what_it_is(job, monkeypatch):
    monkeypatch.setattr(export_main, "write_bundle_directory", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        export_main.main([job.model_dump_json()])


def test_ctrl_c_in_a_terminal_does_not_reach_the_child(job, child_does):
    child_does("""echo "{\\"metrics\\": {\\"session\\": $(ps -o sid= -p $$)}}" """)

    assert run_export(job).metrics["session"] != os.getsid(0)


def test_a_stop_ends_the_child_and_what_it_has_started(job, child_does, tmp_path):
    child_does(f"sleep 600 & echo $! > {tmp_path}/grandchild; echo 'export: begun' >&2; wait")
    begun = []

    with pytest.raises(StoppedError):
        run_export(job, begun.append, stop=lambda: bool(begun))
    wait_for_end(int((tmp_path / "grandchild").read_text()))


def test_an_error_of_whoever_is_told_of_progress_ends_the_child(job, child_does):
    child_does("echo 'export: begun' >&2; exec sleep 600")

    def broken(line):
        raise BrokenPipeError(line)

    with pytest.raises(BrokenPipeError, match="begun"):
        run_export(job, broken)


@pytest.mark.parametrize("closes", [True, False], ids=["parent gone", "parent there"])
def test_the_child_ends_with_its_parent_even_if_that_was_killed(closes):
    script = (
        "from cloud_server.models.export.parent import end_with_parent; import time;"
        "end_with_parent(); print('watching', flush=True); time.sleep(600 if {} else 0.1)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script.format(closes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout.readline() == b"watching\n"
        if closes:
            child.stdin.close()  # as the kernel does for a parent that was killed
        assert child.wait(240) == int(closes)


def wait_for_end(pid):
    """Wait for a process that was sent SIGKILL: nobody says when the kernel is done with it."""
    deadline = time.monotonic() + 240
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} goes on"
        time.sleep(0.01)


def is_alive(pid):
    """Return whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("kind", ["bundle", "init", "file"])
def test_what_a_framework_writes_aside_is_gone_with_the_export(job, child_does, tmp_path, kind):
    job = {
        "bundle": job,
        "init": InitJob(
            workload={"name": "w", "config": {}}, trainable="head", directory=job.directory
        ),
        "file": FileJob(
            model=tmp_path, weights=job.weights, kind="keras", file=job.directory / "m.keras"
        ),
    }[kind]
    child_does(
        f"""echo x > $TMPDIR/saved; echo $TMPDIR > {tmp_path}/seen; echo '{{"metrics": {{}}}}'"""
    )

    run_export(job)

    scratch = Path((tmp_path / "seen").read_text().strip())
    # So what a kill leaves goes with the folder: at the next start, init, or export of that name.
    assert scratch.parent == tmp_path / "bundle"
    assert not scratch.exists()


def test_a_child_that_is_deep_in_a_framework_ends_at_once_with_a_killed_parent(tmp_path):
    child = (
        "from cloud_server.models.export.parent import end_with_parent; import ctypes, os;"
        "end_with_parent(); print(os.getpid(), flush=True);"
        "ctypes.PyDLL(None).sleep(600)"  # holds the interpreter, as a converter does
    )
    parent = (
        "import subprocess, sys, time;"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE);"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        pid = int(process.stdout.readline())
        process.kill()
    wait_for_end(pid)
