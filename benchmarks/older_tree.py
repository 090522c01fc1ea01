"""The commit that this tree is compared with, checked out beside it."""

import subprocess
import sys
from pathlib import Path

from benchmarks.environments import ROOT
from benchmarks.services import base_environment

COMMIT = "87262d4"
SOURCES = ("fleet_model", "edge_agent", "cloud_server", "benchmarks")


def checkout(into: Path) -> Path:
    """Put the older commit's sources in a folder; raises RuntimeError without the history."""
    into.mkdir(parents=True)
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", COMMIT, *SOURCES], capture_output=True, check=False
    )
    if archive.returncode:
        raise RuntimeError(
            f"git archive {COMMIT}: {archive.stderr.decode()[-500:]}; this benchmark needs a clone "
            "of the repository with its history: git fetch --unshallow"
        )
    subprocess.run(["tar", "-x", "-C", into], input=archive.stdout, check=True)
    return into


def run(tree: Path, command: list[object], python: Path | str = sys.executable) -> str:
    """Run a script with a tree's modules; return what it prints."""
    done = subprocess.run(
        [str(python), "-P", *map(str, command)],
        env={**base_environment(), "PYTHONPATH": str(tree)},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return done.stdout
