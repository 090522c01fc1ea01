"""Chromium in an environment of its own, `.venv-browser`, which `make test` makes."""

import json
import subprocess
from pathlib import Path

import pytest

BROWSER = Path(__file__).parents[1] / ".venv-browser"
VISIT = Path(__file__).parent / "cloud_server" / "console" / "visit.py"
PATIENCE_S = 240.0

# For `pytestmark` of a module.
IN_BROWSER = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(
        not list(BROWSER.glob("chromium/usr/lib/chromium*/chromium-headless-shell")),
        reason="make .venv-browser/.installed fetches Chromium; it is not there",
    ),
]


def in_browser(test):
    """Mark one test of a module."""
    for mark in IN_BROWSER:
        test = mark(test)
    return test


def told_by(program, *words, patience_s=PATIENCE_S):
    """Return the JSON object that a program writes which runs beside the browser."""
    command = [BROWSER / "bin" / "python", program, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience_s)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
