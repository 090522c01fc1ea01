"""Names that settings files, apps and scripts of users hold: they stay."""

import subprocess
import sys
from pathlib import Path

import pytest

from fleet_model.loading import load_plugin

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

APP = Path(__file__).parents[2] / "deploy" / "superlink" / "pyproject.toml"


@pytest.mark.parametrize(
    ("module", "command"), [("edge_agent.cli", "enroll"), ("cloud_server.cli", "init")]
)
def test_a_command_runs_as_a_module(module: str, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
    )
    assert command in done.stdout


@pytest.mark.parametrize("component", ["serverapp", "clientapp"])
def test_the_apps_of_a_superlink_of_its_own_are_where_deploy_names_them(component: str) -> None:
    name = tomllib.loads(APP.read_text())["tool"]["flwr"]["app"]["components"][component]

    expected = {
        "serverapp": "cloud_server.server_app:app",
        "clientapp": "edge_agent.client_app:app",
    }
    assert name == expected[component]
    assert load_plugin({}, name) is not None
