"""pyproject.toml bounds what it asks for; constraints.txt holds names and versions only."""

import platform
import re
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [
    Requirement(text)
    for text in [*PROJECT["dependencies"], *(text for extra in EXTRAS.values() for text in extra)]
]
OTHERS = [requirement for requirement in DECLARED if requirement.name != PROJECT["name"]]
CONSTRAINTS = [
    line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"
]

pytestmark = pytest.mark.base


def test_every_dependency_has_a_lower_bound() -> None:
    lower = {">=", "==", "~="}
    assert not [str(r) for r in OTHERS if not lower & {bound.operator for bound in r.specifier}]


def test_an_extra_names_only_extras_that_exist() -> None:
    own = [requirement for requirement in DECLARED if requirement not in OTHERS]
    assert all(requirement.extras <= EXTRAS.keys() for requirement in own)


def test_the_base_holds_no_training_or_federation_stack() -> None:
    base = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert not base & {"flwr", "keras", "tensorflow", "tensorflow-cpu", "torch"}


def test_the_robot_that_trains_needs_flower_alone() -> None:
    assert [Requirement(text).name for text in EXTRAS["agent"]] == ["flwr"]


def test_a_constraint_is_a_name_with_a_version_and_nothing_else() -> None:
    shape = re.compile(r"[a-z0-9-]+==[\w.]+( ; [^/@#]+)?")
    assert CONSTRAINTS
    assert not [line for line in CONSTRAINTS if not shape.fullmatch(line)]


def test_every_dependency_has_a_constraint_within_its_bounds() -> None:
    locked: dict[str, list[str]] = {}
    for line in CONSTRAINTS:
        name, version = line.split(" ;")[0].split("==")
        locked.setdefault(name, []).append(version)
    for requirement in OTHERS:
        if not requirement.name.startswith("ros-kilted-"):
            versions = locked.get(requirement.name, [])
            assert versions, f"{requirement.name} has no constraint: run `make constraints`"
            assert all(requirement.specifier.contains(version) for version in versions)


def test_every_installed_package_allows_this_python() -> None:
    # uv does not look at upper bounds of Requires-Python; pip does and would refuse the constraint.
    refusing = [
        f"{distribution.name} {distribution.version}"
        for distribution in distributions()
        if platform.python_version()
        not in SpecifierSet(distribution.metadata["Requires-Python"] or "")
    ]
    assert not refusing
