"""The dependencies resolve for the machines that robots and servers have, from wheels alone."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = ROOT / ".venv-tools/bin/uv"  # the Makefile puts it there
ALL_EXTRAS = ["demo", "dev"]  # they bring in agent, keras, server and test
TRAINING_STACK = {"keras", "tensorflow", "tensorflow-cpu", "torch"}
JETSON_OR_PI = "aarch64-manylinux_2_28"
WORKSTATION = "x86_64-manylinux_2_28"
CONSTRAINTS = (ROOT / "constraints.txt").read_text().splitlines()

pytestmark = pytest.mark.slow


def wheels_for(
    platform: str, python: str, *extras: str, options: Sequence[str] = ()
) -> dict[str, str]:
    """Resolve pyproject.toml from wheels alone and return name -> version."""
    command = [UV, "pip", "compile", "pyproject.toml", "--quiet", "--no-header", "--no-annotate"]
    command += ["--only-binary", ":all:", "--no-python-downloads"]
    command += ["--python-platform", platform, "--python-version", python]
    command += [argument for extra in extras for argument in ("--extra", extra)]
    resolved = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert resolved.returncode == 0, resolved.stderr
    return dict(re.findall(r"^([\w.-]+)==(\S+)", resolved.stdout, re.MULTILINE))


@pytest.mark.parametrize("python", ["3.10", "3.12"])
def test_the_base_has_aarch64_wheels_for_the_pythons_of_humble_and_jazzy(python: str) -> None:
    versions = wheels_for(JETSON_OR_PI, python)
    assert not versions.keys() & {*TRAINING_STACK, "flwr"}


def test_on_python_3_10_the_base_takes_numpy_1_and_opencv_4() -> None:
    versions = wheels_for(JETSON_OR_PI, "3.10")
    assert versions["numpy"].startswith("1.26.")
    assert versions["opencv-python-headless"].startswith("4.")


def test_the_agent_has_aarch64_wheels_without_a_training_stack() -> None:
    versions = wheels_for(JETSON_OR_PI, "3.11", "agent")
    assert versions["flwr"].startswith("1.42.")
    assert not versions.keys() & TRAINING_STACK


def test_a_robot_is_not_sent_the_uv_program() -> None:
    assert "uv" not in wheels_for(JETSON_OR_PI, "3.11", "agent")


def test_keras_takes_the_tensorflow_that_each_architecture_has() -> None:
    assert "tensorflow" in wheels_for(JETSON_OR_PI, "3.11", "keras")
    assert "tensorflow-cpu" in wheels_for(WORKSTATION, "3.11", "keras")


@pytest.mark.parametrize("platform", [JETSON_OR_PI, WORKSTATION])
@pytest.mark.parametrize(
    ("python", "extras"), [("3.10", ["test"]), ("3.11", ALL_EXTRAS), ("3.12", ALL_EXTRAS)]
)
def test_the_constraints_hold_every_package(platform: str, python: str, extras: list[str]) -> None:
    locked = {tuple(line.split(" ;")[0].split("==")) for line in CONSTRAINTS}
    options = ["--constraint", "constraints.txt"]
    if extras == ALL_EXTRAS:  # pure Python without a wheel; tensorflow-datasets, a test tool, asks
        options += ["--no-binary", "promise"]
    versions = wheels_for(platform, python, *extras, options=options)
    assert not versions.items() - locked, "run `make constraints`"


def test_the_ros_wheels_resolve_beside_the_demo() -> None:
    from_source = ["--no-binary", "empy"]  # pure Python, published without a wheel
    versions = wheels_for(WORKSTATION, "3.11", "demo", "ros-dev", options=from_source)
    assert "ros-kilted-rclpy" in versions
