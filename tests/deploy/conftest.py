"""What judges the files of deploy: tools in an environment of their own, and the real commands."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def tool():
    """Return a function that runs a program of .venv-deploy; it returns the finished process."""
    programs = ROOT / ".venv-deploy" / "bin"
    assert programs.exists(), "these checks need .venv-deploy: `make test` makes it"

    def run(name, *arguments, **more):
        command = [programs / name, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, **more)

    return run


@pytest.fixture(scope="session")
def require_command():
    """Return a function that fails unless a command line is one; nothing is run."""
    from cloud_server.cli import app as cloud_server
    from edge_agent.cli import app as edge_agent

    programs = {"cloud-server": cloud_server, "edge-agent": edge_agent}

    def require(program, *arguments):
        command = typer.main.get_command(programs[program])
        context = command.make_context(program, list(arguments))
        name, command, rest = command.resolve_command(context, list(arguments))
        command.make_context(name, rest, parent=context)

    return require


@pytest.fixture
def script_environment():
    """Return the environment in which scripts find this project's commands."""
    return {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
