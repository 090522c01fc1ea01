"""The modules beside the tests are programs, too: they import each other by their names."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE))
IMPORTS = """
import os, shutil, sqlite3, subprocess, sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from faults import KINDS, disturb_everywhere, disturbed
from operations import *
from power_cuts import Scenario, WrongStateError, cut_everywhere
from recorder import mark, record
from run_scenarios import NOT_PERMITTED
from tracer import NotPermittedError, TracingError
root = Path(sys.argv[1])
"""


@pytest.fixture
def run(tmp_path):
    """Return what runs a script in a process of its own, which ptrace needs, and its output."""

    def run(*scripts):
        root = tmp_path / "root"
        root.mkdir()
        script = "\n".join(map(textwrap.dedent, scripts))
        body = textwrap.indent(script, "    ")
        guarded = f"try:\n{body}\nexcept NotPermittedError as error:\n    sys.exit(NOT_PERMITTED)\n"
        command = [sys.executable, "-c", IMPORTS + guarded, root, HERE]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        if done.returncode == 77:
            pytest.skip("POWER CUTS ARE NOT TESTED: this machine does not permit ptrace")
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run
