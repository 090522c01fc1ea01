"""Throw-away virtual environments under build/bench-envs: what each arm really needs, no more.

They are kept, and made anew when pyproject.toml, constraints.txt or the list below has changed; of
our own packages the present code is put in whenever it has changed. All arms get the versions of
constraints.txt, but KServe, which asks for older ones: it has LiteRT and NumPy alone from there.
Files are copied, not linked: environments that share files on disk would also
share their pages in memory, and each arm would look smaller than on a robot of its own.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import say

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "build" / "bench-envs"
TENSORFLOW = "tensorflow-cpu" if sys.platform == "linux" else "tensorflow"
STOCK = ("flwr>=1.41,<1.43", TENSORFLOW, "keras", "opencv-python-headless", "rosbags")
BAGS = (".", "rosbags", "mcap>=1.6", "mcap-ros2-support>=0.6")
KSERVE = ("kserve>=0.21", "ai-edge-litert", "numpy")
DIGITS = ("scikit-learn>=1.5",)  # for its pictures
SCENES = ("pybullet>=3.2.7", "numpy", "opencv-python-headless", "scikit-image")
TEXTS = ("flwr>=1.41,<1.43", "torch>=2.9", "transformers>=5", "peft>=0.15")
REQUIREMENTS = {
    "agent": (".[agent]",), "keras": (".[keras]",), "stock": STOCK, "bags": BAGS, "kserve": KSERVE,
    "digits": DIGITS, "scenes": SCENES, "texts": (".[torch]",),
    "texts-server": (".[torch-server]", "peft>=0.15"), "texts-stock": TEXTS,
}  # fmt: skip
PEERS = (STOCK, KSERVE, DIGITS, SCENES, TEXTS)  # nothing of ours is in there
SOURCES = ("fleet_model", "edge_agent", "cloud_server")


@dataclass(frozen=True, slots=True)
class Environment:
    """One finished environment."""

    root: Path

    @property
    def bin(self) -> Path:
        """Where its commands are."""
        return self.root / "bin"

    def size_mb(self) -> float:
        """Return the bytes of site-packages and bin, in MB (1e6).

        Without compiled bytecode: it grows with use, and whether an installer makes it differs.
        """
        places = [self.bin, *(self.root / "lib").glob("python*/site-packages")]
        files = [path for server_dir in places for path in server_dir.rglob("*")]
        return sum(path.lstat().st_size for path in files if counts(path)) / 1e6

    def uv_mb(self) -> float:
        """Return the size of the uv program that flwr brings, in MB; 0 where it was left out."""
        programs = (self.bin / "uv", self.bin / "uvx")
        return sum(path.stat().st_size for path in programs if path.exists()) / 1e6


def counts(path: Path) -> bool:
    """Return whether a file is part of an environment's size."""
    return path.suffix != ".pyc" and not path.is_symlink() and path.is_file()


def environment(name: str) -> Environment:
    """Return the environment of an arm, made or renewed if necessary."""
    made = Environment(PLACE / name)
    requirements = REQUIREMENTS[name]
    inputs = (ROOT / "pyproject.toml", ROOT / "constraints.txt")
    wanted = digest(inputs, " ".join(requirements))
    if not _is(made.root / ".requirements", wanted):
        say(f"making the environment {made.root.relative_to(ROOT)}, once")
        shutil.rmtree(made.root, ignore_errors=True)
        _create(made.root)
        _install_torch(made)
        _install(made, *requirements, "--constraint", _constraints(made, requirements))
        (made.root / ".requirements").write_text(wanted)
        (made.root / ".sources").write_text(sources_digest())
    if requirements not in PEERS and not _is(made.root / ".sources", sources_digest()):
        _install(made, "--no-deps", "--force-reinstall", ".")
        (made.root / ".sources").write_text(sources_digest())
    return made


def sources_digest() -> str:
    """Return a digest of our packages' code."""
    files = [path for name in SOURCES for path in (ROOT / name).rglob("*.py")]
    return digest(sorted(files))


def digest(files: Iterable[Path], *texts: str) -> str:
    """Return a digest of names, contents and texts."""
    total = hashlib.sha256()
    for path in files:
        total.update(path.name.encode() + path.read_bytes())
    for text in texts:
        total.update(text.encode())
    return total.hexdigest()


def find_uv() -> str | None:
    """Return the uv program: on PATH, beside this interpreter, or where the Makefile puts it."""
    tools = ROOT / ".venv-tools" / "bin"
    places = (None, str(Path(sys.executable).parent), str(tools))
    return next(
        (found for server_dir in places if (found := shutil.which("uv", path=server_dir))), None
    )


def _constraints(made: Environment, requirements: tuple[str, ...]) -> str:
    """Return a file with the versions that the arms have in common."""
    if requirements != KSERVE:
        return "constraints.txt"
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    file = made.root / "constraints.txt"
    file.write_text("\n".join(one for one in lines if one.split("==")[0] in requirements))
    return str(file)


def _create(root: Path) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    _run(sys.executable, "-m", "venv", "--without-pip", str(root))


def _install(made: Environment, *what: str) -> None:
    """Install as a user would: our project by its own settings, stock Flower without them.

    pyproject.toml tells uv to leave out the uv program that flwr asks for; pip knows no such
    setting and installs it. Compiled at once, or the first start of each arm would be slower.
    """
    python, uv = str(made.bin / "python"), find_uv()
    if uv is None:
        _run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *what)
        return
    settings = ("--no-config",) if REQUIREMENTS[made.root.name] in PEERS else ()
    copied = ("--link-mode", "copy", "--compile-bytecode", "--quiet")
    _run(uv, "pip", "install", *settings, *copied, "--python", python, *what)


def _install_torch(made: Environment) -> None:
    """Install PyTorch where it is needed, first and by pip, which knows of builds for CPUs."""
    if not made.root.name.startswith("texts"):
        return
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    (pinned,) = (line.partition(" ")[0] for line in lines if line.startswith("torch=="))
    pip = (sys.executable, "-m", "pip", "--python", str(made.bin / "python"))
    _run(*pip, "install", "--quiet", "--disable-pip-version-check", pinned)


def _run(*command: str) -> None:
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)


def _is(file: Path, content: str) -> bool:
    return file.exists() and file.read_text() == content
