"""A sample of the fuzz run; a million inputs take about two minutes by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.base, pytest.mark.slow]

SCRIPT = Path(__file__).parent / "fuzz_messages.py"


def run(*arguments):
    paths = os.pathsep.join(filter(None, sys.path))  # the project need not be installed
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": paths},
    )


def test_damaged_messages_are_pictures_or_errors_with_a_reason():
    result = run("--inputs", "6000", "--seed", "7")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["inputs"] == 6000 == sum(report["outcomes"].values())
    assert report["outcomes"]["decoded"] > 600
    for outcome in ("frame: bad message", "frame: short data", "pixels: damaged png"):
        assert report["outcomes"][outcome] > 20


def test_undamaged_messages_decode():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import fuzz_messages
    finally:
        sys.path.remove(str(SCRIPT.parent))
    outcomes = {fuzz_messages.read(message) for message in fuzz_messages.real_messages()}
    assert outcomes == {"decoded", "decode: not a color picture"}
