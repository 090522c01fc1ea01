"""The import rules of pyproject.toml catch what they forbid, and no module escapes them."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
CONTRACTS = SETTINGS["contracts"]
PACKAGES = SETTINGS["root_packages"]
LAYERED = {
    contract["containers"][0]: contract for contract in CONTRACTS if "containers" in contract
}


class Offence(NamedTuple):
    contract: str
    file: str
    line: str


OFFENCES = [
    Offence(
        "Robots and cloud meet only in fleet_model",
        "edge_agent/robot/settings.py",
        "import cloud_server.state.settings",
    ),
    Offence(
        "fleet_model reads top to bottom",
        "fleet_model/errors.py",
        "import fleet_model.bundle",
    ),
    Offence(
        "edge_agent reads top to bottom",
        "edge_agent/robot/settings.py",
        "import edge_agent.models.deploy",
    ),
    Offence(
        "cloud_server reads top to bottom",
        "cloud_server/state/settings.py",
        "import cloud_server.robots.register",
    ),
    Offence(
        "site_relay reads top to bottom",
        "site_relay/mirror.py",
        "import site_relay.relay",
    ),
    Offence(
        "Inference and deployment load no training or federation stack",
        "edge_agent/models/deploy.py",
        "import tensorflow",
    ),
    Offence(
        "Only the Flower adapters import Flower",
        "cloud_server/state/checkpoints.py",
        "from flwr.app import ArrayRecord",
    ),
    Offence(
        "Only torch backends, trainers and models import PyTorch",
        "edge_agent/training/trainer.py",
        "import transformers",
    ),
    Offence(
        "The server and its commands load neither PyTorch nor Flyte nor kfp",
        "cloud_server/pipelines/child.py",
        "import cloud_server.pipelines.training",
    ),
    Offence(
        "Only the tasks of the pipeline import Flyte",
        "cloud_server/pipelines/pipeline.py",
        "import flyte",
    ),
    Offence(
        "Only what runs and compiles the Kubeflow pipeline imports kfp",
        "cloud_server/kubeflow/stages.py",
        "import kfp",
    ),
    Offence(
        "Only live topics talk to ROS 2",
        "edge_agent/data/frames/__init__.py",
        "import rclpy",
    ),
]


@pytest.fixture
def copied_tree(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.pyc"))
    return tmp_path


def verdicts(tree: Path) -> dict[str, str]:
    """Lint the tree and return contract name -> KEPT or BROKEN."""
    command = Path(sys.executable).with_name("lint-imports")
    lint = subprocess.run([command, "--no-cache"], cwd=tree, capture_output=True, text=True)
    found = re.findall(r"^(.+?) (KEPT|BROKEN)\b", lint.stdout, re.MULTILINE)
    assert found, f"lint-imports reached no verdict:\n{lint.stdout}{lint.stderr}"
    assert (lint.returncode == 0) == all(verdict == "KEPT" for _, verdict in found)
    return dict(found)


def append(file: Path, line: str) -> None:
    file.write_text(f"{file.read_text()}\n{line}\n")


def test_the_tree_keeps_every_contract(copied_tree: Path) -> None:
    assert verdicts(copied_tree) == {contract["name"]: "KEPT" for contract in CONTRACTS}


def test_every_contract_has_an_offence() -> None:
    assert [offence.contract for offence in OFFENCES] == [c["name"] for c in CONTRACTS]


@pytest.mark.parametrize("offence", OFFENCES, ids=lambda offence: offence.contract)
def test_an_offending_import_breaks_its_contract(offence: Offence, copied_tree: Path) -> None:
    append(copied_tree / offence.file, offence.line)
    assert verdicts(copied_tree)[offence.contract] == "BROKEN"


def test_inference_is_guarded_through_modules_in_between(copied_tree: Path) -> None:
    append(copied_tree / "edge_agent/robot/settings.py", "import torch")
    append(copied_tree / "edge_agent/models/deploy.py", "import edge_agent.robot.settings")
    name = "Inference and deployment load no training or federation stack"
    assert verdicts(copied_tree)[name] == "BROKEN"


def test_a_module_outside_the_layers_breaks_the_contract_of_its_package(copied_tree: Path) -> None:
    for package in PACKAGES:
        (copied_tree / package / "stray.py").touch()
    found = verdicts(copied_tree)
    assert [found[LAYERED[package]["name"]] for package in PACKAGES] == ["BROKEN"] * len(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_layers_name_every_module_file_and_no_other(package: str) -> None:
    files = (path.relative_to(ROOT / package) for path in (ROOT / package).rglob("*.py"))
    modules = {file.parts[0].removesuffix(".py") for file in files} - {"__init__"}
    contract = LAYERED[package]
    layers = {layer.strip() for line in contract["layers"] for layer in re.split(r"[|:]", line)}
    assert contract["exhaustive"]
    assert "exhaustive_ignores" not in contract
    assert layers == modules


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    bare = [folder for folder in folders if not (folder / "__init__.py").is_file()]
    assert not bare, "lint-imports does not see modules in folders without __init__.py"
