"""Files of a Debian package, unpacked below build/ without root."""

import shutil
import subprocess
from pathlib import Path

from benchmarks.measure import say

WORK = Path(__file__).resolve().parents[1] / "build" / "debian"


def unpacked(package: str, folder: Path) -> Path:
    """Return where a folder of a package is: as installed, else below build/, fetched once.

    Args:
        package: its name.
        folder: an absolute path, as the package installs it.

    Raises:
        SystemExit: it is not installed, and apt-get cannot fetch it.
    """
    root = WORK / package
    below = root / folder.relative_to("/")
    found = next((place for place in (folder, below) if place.exists()), None)
    if found:
        return found
    say(f"fetching the Debian package {package}, once")
    aside = root.with_suffix(".part")
    shutil.rmtree(aside, ignore_errors=True)  # of a run that was cut off
    aside.mkdir(parents=True)
    download = ["apt-get", "download", "--quiet=2", package]
    if subprocess.run(download, cwd=aside, check=False).returncode:
        subprocess.run(["apt-get", "update", "--quiet=2"], check=False)
        if subprocess.run(download, cwd=aside, check=False).returncode:
            raise SystemExit(
                f"benchmarks: apt-get download {package} failed; install that package, or put its "
                f"files into {below}"
            )
    (file,) = aside.glob("*.deb")
    subprocess.run(["dpkg", "-x", file, aside], check=True)
    file.unlink()
    aside.rename(root)
    return below
