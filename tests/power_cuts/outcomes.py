"""Run all scenarios of one module in one process, once for all tests of a worker."""

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from run_scenarios import NOT_PERMITTED, SCENARIOS

HERE = Path(__file__).parent


def require_right(script: str, name: str, *options: str) -> None:
    """Fail with what a script says of a scenario unless it found every state right."""
    found = _outcomes(script, SCENARIOS[name].partition(":")[0], *options)
    told = found.get(name)
    if told == "":
        pytest.skip("POWER CUTS ARE NOT TESTED: this machine does not permit ptrace")
    assert told is not None, found["stderr"]
    assert told.startswith(f"{name}: right"), f"{script} {' '.join(options)}: {told}"


@cache
def _outcomes(script: str, module: str, *options: str) -> dict[str, str]:
    """Return what was said of each scenario of a module."""
    names = [name for name, place in SCENARIOS.items() if place.startswith(f"{module}:")]
    command = [sys.executable, HERE / script, *options, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == NOT_PERMITTED:
        return dict.fromkeys(names, "")
    told = [text.strip() for text in done.stdout.split("\n\n")]
    return {text.partition(":")[0]: text for text in told} | {"stderr": done.stderr[-3000:]}
