"""A root directory where the real dpkg installs, without rights and without systemd."""

import os
from pathlib import Path

# Dependencies are packages of a whole system; only root may give files to others.
DPKG_OPTIONS = ("--force-not-root,depends,bad-path", "--force-script-chrootless")
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
FOLDERS = ("var/lib/dpkg/updates", "var/lib/dpkg/info", "var/cache", "run/systemd/system",
           "etc/default", "var/lib/edge-agent", "var/lib/cloud-server")  # fmt: skip


def make_root(root: Path) -> None:
    """Make what a package finds on a machine that runs systemd."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()


def write_program(path: Path, text: str) -> None:
    """Write a script that stands in for a program of the system."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def clean_environment(programs: Path) -> dict[str, str]:
    """Return an environment where those programs come first, and Python is the system's."""
    kept = {name: value for name, value in os.environ.items() if "PYTHON" not in name}
    return {**kept, "PATH": f"{programs}:{SYSTEM_PATH}", "OMP_NUM_THREADS": "1"}
