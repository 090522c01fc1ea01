"""How the programs begin, by real processes: what Ctrl-C and a locale without UTF-8 do to them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Sends SIGINT to its own process at one of the imports behind the beginning of a program.
AT_IMPORT = """
import os, signal, sys
class Imports:
    seen = 0
    def find_spec(self, name, path=None, target=None):
        begun = name.endswith(".cli") and "fleet_model.command_line.program" in sys.modules
        self.seen += begun or self.seen > 0
        if self.seen == int(os.environ["AT"]):
            os.write(2, b"interrupted\\n")
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Imports())
"""


def run(words, environment, before=None):
    command = [sys.executable, "-m", *words]
    return subprocess.run(
        command, capture_output=True, env=os.environ | environment, preexec_fn=before
    )


@pytest.mark.parametrize(
    ("program", "at"),
    # The first one, some while typer is loaded, one of the command's own, within run_app.
    [("edge_agent", n) for n in (1, 30, 200)] + [("cloud_server", n) for n in (1, 250)],
)
def test_an_interrupt_while_the_program_is_loaded_ends_it_silently(tmp_path, program, at):
    (tmp_path / "sitecustomize.py").write_text(AT_IMPORT)
    words = {
        "edge_agent": ("edge_agent", "inspect", "nothing"),
        "cloud_server": ("cloud_server", "init", tmp_path / "fleet", "--labels", "a,b"),
    }[program]
    done = run(words, {"AT": str(at), "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"interrupted\n")


def test_an_interrupt_that_the_caller_ignores_stays_ignored(tmp_path):
    """As in a script that starts the program in the background."""
    import signal

    (tmp_path / "sitecustomize.py").write_text(AT_IMPORT)
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    done = run(("edge_agent", "--version"), {"AT": "1", "PYTHONPATH": str(tmp_path)}, before=ignore)
    assert done.returncode == 0
    assert done.stdout.startswith(b"fleetlearn ")


C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_labels_are_text_in_a_locale_without_utf_8(tmp_path):
    done = run(("cloud_server", "init", tmp_path / "fleet", "--labels", "bär,,öl"), C)
    assert done.stderr.decode() == "cloud-server: --labels bär,,öl: name 2 is empty\n"
    assert done.returncode == 2
    (tmp_path / "set" / "bär").mkdir(parents=True)
    (tmp_path / "set" / "bär" / "ö.png").write_bytes(b"no picture")
    done = run(("edge_agent", "extract", tmp_path / "set", "--out", tmp_path / "out"), C)
    assert done.returncode == 13
    assert "set/bär/ö.png".encode() in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("cloud_server", "init", "fleet", "--labels", b"b\xe4r,b"),
        ("cloud_server", "init", "fleet", b'--set=labels=["b\xe4r", "b"]'),
        ("cloud_server", "labels", "add", "fleet", b"b\xe4r"),
        ("edge_agent", "enroll", "kit", "--topic", b"/b\xe4r"),
    ],
)
def test_bytes_that_are_no_text_are_refused_before_the_work(tmp_path, words):
    done = run(words, {})
    assert done.returncode == 2
    assert b"xe4" in done.stderr or b"udce4" in done.stderr
    assert done.stderr.endswith(b": is no text in UTF-8; type it in UTF-8\n")
    assert done.stderr.count(b"\n") == 1


def test_a_file_may_have_any_name(tmp_path):
    name = os.fsencode(tmp_path) + b"/b\xe4r"
    Path(os.fsdecode(name)).mkdir()
    done = run(("edge_agent", "inspect", name), {})
    assert done.returncode == 5
    assert b"is no text" not in done.stderr
