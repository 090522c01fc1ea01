"""Build this workspace with colcon against ROS 2 from wheels, for development and tests.

usage: python ros2_ws/build_from_wheels.py [FOLDER_WITH_MORE_PACKAGES ...]

Needs the extra `ros-dev` in the environment of the Python that runs it, cmake and a C++ compiler.
On a robot build with the distribution's own ROS instead: `colcon build`. Nothing is built again
while sources and environment are the same.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from importlib.metadata import distributions
from pathlib import Path

WORKSPACE = Path(__file__).resolve().parent
BUILD = WORKSPACE.parent / "build" / "ros2_ws"
PREFIX = Path(sys.prefix)
# What is not there by name -> Debian's package for it.
TOOLS = {"cmake": "cmake", "make": "make", "c++": "g++"}
# The CMake files in the wheels name the folders of the machine that made them.
_BAKED = re.compile(
    r"/opt/python/cp3\d+-cp3\d+/(lib/python3\.\d+/site-packages/numpy/_core/)?include(/python3\.\d+)?"
)


def main(more: Sequence[str]) -> int:
    """Build what has changed; return the exit code."""
    if problem := _require_tools() or _require_wheels():
        return _fail(problem)
    packages = [WORKSPACE / "src", *(Path(folder).resolve() for folder in more)]
    state, done = f"{_environment_state(packages)} {_sources_state(packages)}", BUILD / "built"
    before = done.read_text() if done.is_file() else ""
    if before == state:
        return 0
    if before.partition(" ")[0] != state.partition(" ")[0]:
        shutil.rmtree(BUILD, ignore_errors=True)
        _point_to_this_environment()
    _forget_python_packages(packages)
    BUILD.mkdir(parents=True, exist_ok=True)
    print(f"building {WORKSPACE.name} with colcon", flush=True)
    log = BUILD / "colcon.log"
    with log.open("wb") as stream:
        built = subprocess.run(
            _colcon(packages), cwd=BUILD, env=_environment(), stdout=stream, stderr=stream
        )
    if built.returncode:
        print(log.read_text(errors="replace"), file=sys.stderr)
        return _fail("colcon has failed; its words are above")
    done.write_text(state)
    return 0


def _fail(problem: str) -> int:
    print(f"{Path(__file__).name}: {problem}", file=sys.stderr)
    return 1


def _colcon(packages: Sequence[Path]) -> list[str]:
    # No package is tested here: their C++ linters are not among the wheels.
    cmake = [
        "-DBUILD_TESTING=OFF",
        f"-DPython3_EXECUTABLE={sys.executable}",
        "-DCMAKE_CXX_FLAGS=-O0",
        "-DCMAKE_C_FLAGS=-O0",
    ]
    return [
        sys.executable,
        "-m",
        "colcon",
        "--log-base",
        "log",
        "build",
        "--base-paths",
        *map(str, packages),
        "--cmake-args",
        *cmake,
    ]


def _environment() -> dict[str, str]:
    prefixes = {name: str(PREFIX) for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH")}
    path = os.pathsep.join([str(PREFIX / "bin"), os.environ["PATH"]])
    return {**os.environ, **prefixes, "PATH": path}


def _require_tools() -> str:
    """Return what is missing and cannot be had, "" if nothing is."""
    missing = sorted({TOOLS[name] for name in TOOLS if not shutil.which(name)})
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {', '.join(missing)}", flush=True)
        for step in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
            subprocess.run(["apt-get", "--quiet=2", *step], check=False)
        missing = [
            package
            for package in missing
            if not any(shutil.which(name) for name, its in TOOLS.items() if its == package)
        ]
    return f"needs {', '.join(missing)}: install it with your system's packages" if missing else ""


def _require_wheels() -> str:
    names = {distribution.metadata["Name"].lower() for distribution in distributions()}
    if {"colcon-ros", "ros-kilted-rclpy"} <= names:
        return ""
    return f"{sys.executable} has no ROS 2: run `make test-ros`, or install the extra ros-dev"


def _environment_state(packages: Sequence[Path]) -> str:
    digest = hashlib.sha256(repr((sys.executable, _colcon(packages))).encode())
    for name in sorted(f"{d.metadata['Name']}=={d.version}" for d in distributions()):
        digest.update(name.encode())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()


def _sources_state(packages: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in _sources(packages):
        digest.update(f"{file}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _forget_python_packages(packages: Sequence[Path]) -> None:
    """Remove what setuptools has installed: a module that was deleted would stay."""
    for setup in (file for folder in packages for file in folder.rglob("setup.py")):
        for base in ("build", "install"):
            shutil.rmtree(BUILD / base / setup.parent.name, ignore_errors=True)


def _sources(packages: Sequence[Path]) -> Iterator[Path]:
    for folder in packages:
        files = (file for file in folder.rglob("*") if file.is_file())
        yield from sorted(file for file in files if "__pycache__" not in file.parts)


def _point_to_this_environment() -> None:
    """Let the CMake files of the wheels name the headers of this Python and this NumPy."""
    import numpy

    python = sysconfig.get_path("include")
    for file in PREFIX.glob("share/*/cmake/*.cmake"):
        text = file.read_text(errors="surrogateescape")
        mended = _BAKED.sub(lambda found: numpy.get_include() if found[1] else python, text)
        if mended != text:
            # A new file: uv links what it installs to its cache, which other environments share.
            aside = file.with_suffix(".mended")
            aside.write_text(mended, errors="surrogateescape")
            aside.replace(file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
