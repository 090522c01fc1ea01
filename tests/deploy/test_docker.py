"""deploy/docker, judged by hadolint and by Docker Compose, and held against the product by value.

No image was built and no container was run here: there is no daemon.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cloud_server.state.settings import NetworkSettings
from cloud_server.web.guard import HEALTH

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "docker" / "Dockerfile"
COMPOSE = FILE.with_name("compose.yaml")
SERVICES = yaml.safe_load(COMPOSE.read_text())["services"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = FILE.read_text().replace("\\\n", "").splitlines()
PROGRAMS = {"agent": "edge-agent", "server": "cloud-server"}
UNITS = ROOT / "deploy" / "systemd"


def stage(name):
    """Return (instruction, value) of one image's own lines."""
    begin = next(n for n, line in enumerate(LINES) if line.endswith(f" AS {name}"))
    found = []
    for line in LINES[begin + 1 :]:
        instruction, _, value = line.partition(" ")
        if instruction == "FROM":
            break
        found.append((instruction, value))
    return found


def copied():
    """Return what COPY takes from the build's folder."""
    lines = [shlex.split(line)[1:-1] for line in LINES if re.match("COPY (?!--from)", line)]
    return [name for names in lines for name in names]


@pytest.mark.slow
def test_hadolint_finds_nothing_to_say(tool):
    done = tool("hadolint", FILE)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow
def test_compose_takes_the_file(tool):
    done = tool("docker-compose", "-f", COMPOSE, "--profile", "*", "config", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["services"].keys() == PROGRAMS.keys()


@pytest.mark.slow
def test_these_checks_see_an_image_without_a_version_and_an_unknown_key(tool, tmp_path):
    unpinned = re.sub(r"python:\S+", "python", FILE.read_text())
    misspelt = COMPOSE.read_text().replace("pids_limit", "pid_limit")
    (tmp_path / "Dockerfile").write_text(unpinned)
    (tmp_path / "compose.yaml").write_text(misspelt)

    linted = tool("hadolint", tmp_path / "Dockerfile")
    config = tool("docker-compose", "-f", tmp_path / "compose.yaml", "--profile", "*", "config")

    assert "DL3006" in linted.stdout
    assert "pid_limit" in config.stderr


def test_every_image_begins_with_a_version_and_no_registry_is_named():
    outside = {image for image in re.findall(r"^FROM (\S+)", FILE.read_text(), re.MULTILINE)
               if not re.search(rf" AS {image}$", FILE.read_text(), re.MULTILINE)}  # fmt: skip
    assert len(outside) == 1
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", outside.pop())


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_image_runs_its_program_without_rights_in_the_folder_of_the_unit(name, require_command):
    lines = dict(stage(name))
    unit = (UNITS / f"{PROGRAMS[name]}.service").read_text()
    (folder,) = re.findall(r"^WorkingDirectory=(.*)$", unit, re.MULTILINE)
    (command,) = re.findall(r"^ExecStart=\S+/bin/(.*)$", unit, re.MULTILINE)

    program, arguments = json.loads(lines["ENTRYPOINT"]), json.loads(lines["CMD"])
    assert [*program, *arguments] == shlex.split(command)
    require_command(*program, *arguments)
    user, group = lines["USER"].split(":")
    assert user == group
    assert int(user) > 0
    assert f"--uid {user} --home-dir {folder} " in lines["RUN"]
    assert lines["VOLUME"] == lines["WORKDIR"] == folder


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_container_is_closed_and_as_large_as_its_unit(name):
    service = SERVICES[name]

    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    writable = [v for v in service["volumes"] if not v.endswith(":ro")]
    assert [volume.partition(":")[2] for volume in writable] == [dict(stage(name))["VOLUME"]]
    assert service["build"]["target"] == name
    assert service["image"].endswith(f"fleetlearn/{name}:{PROJECT['version']}}}")
    unit = (UNITS / f"{PROGRAMS[name]}.service").read_text()
    assert f"TasksMax={service['pids_limit']}\n" in unit
    if name == "agent":  # the server's limit is a share of its machine
        assert f"MemoryMax={service['mem_limit'].upper()}\n" in unit
    assert f"TimeoutStopSec={service['stop_grace_period'].removesuffix('s')}\n" in unit


def test_the_port_is_the_one_that_the_server_has_by_default():
    port = NetworkSettings().port
    assert SERVICES["server"]["ports"] == [f"{port}:{port}"]
    assert dict(stage("server"))["EXPOSE"] == str(port)


def test_what_enters_a_build_is_named_and_nothing_else(tmp_path):
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert allowed[1] == "*"
    assert {line[1:] for line in allowed if line.startswith("!")} == {*copied()}


@pytest.mark.slow
def test_what_enters_a_build_is_enough_for_it(tmp_path):
    for name in copied():
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (extras,) = [set(re.findall(r"'\.\[(\w+)\]'", FILE.read_text()))]
    assert extras == PROGRAMS.keys()
    assert extras <= PROJECT["optional-dependencies"].keys()
    build = [
        ROOT / ".venv-tools/bin/uv",
        "build",
        "--quiet",
        "--wheel",
        "--out-dir",
        tmp_path / "out",
    ]
    subprocess.run(build, cwd=tmp_path, check=True)
    assert list(tmp_path.glob("out/fleetlearn-*.whl"))


@pytest.mark.slow
def test_the_health_of_a_container_is_that_of_its_server(running_server):
    kind, *command = SERVICES["server"]["healthcheck"]["test"]
    assert (kind, command[:2]) == ("CMD", ["python", "-c"])
    assert HEALTH in command[2]
    here = command[2].replace("/var/lib/cloud-server/fleet", str(running_server.server_dir.root))
    port = running_server.address.rpartition(":")[2]

    def asked(at):
        script = here.replace(f":{NetworkSettings().port}/", f":{at}/")
        return subprocess.run([sys.executable, "-c", script], capture_output=True).returncode

    assert asked(port) == 0
    assert asked(1) != 0
