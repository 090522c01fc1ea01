"""What a plug-in's author gets: the wheel declares its types, and mypy checks code against them."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("fleet_model", "edge_agent", "cloud_server")
PLUGIN = """
from cloud_server.state.settings import load_settings
from edge_agent.robot.backoff import Backoff
from fleet_model.types import TrainConfig


def epochs(config: TrainConfig) -> int:
    return config.epochs


def pause(backoff: Backoff) -> float:
    return backoff.next_s()


settings = load_settings
"""
MISTAKE = '\nepochs("three")\n'

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as a release does."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(out), ROOT]
    subprocess.run(command, check=True, cwd=out)
    (file,) = out.glob("fleetlearn-*.whl")
    return file


@pytest.fixture(scope="module")
def foreign(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment that has the wheel, and the dependencies of this one."""
    root = tmp_path_factory.mktemp("foreign")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root)], check=True)
    (site,) = root.glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return root / "bin" / "python"


def check(python: Path, code: str, folder: Path) -> str:
    """Return what mypy prints of a module that is not ours."""
    module = folder / "their_plugin.py"
    module.write_text(code)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder / "cache")]
    command += ["--python-executable", str(python), str(module)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True).stdout


def test_the_wheel_says_for_each_package_that_it_is_typed(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)


def test_mypy_accepts_a_plugin_and_finds_its_mistake(foreign: Path, tmp_path: Path) -> None:
    assert check(foreign, PLUGIN, tmp_path).startswith("Success")

    found = check(foreign, PLUGIN + MISTAKE, tmp_path)

    assert 'Argument 1 to "epochs" has incompatible type "str"' in found
    assert "Found 1 error" in found
