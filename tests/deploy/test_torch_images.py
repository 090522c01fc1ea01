"""deploy/docker/torch.Dockerfile, judged by hadolint and held against the product by value.

No image was built and no container was run here: there is no daemon.
"""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "docker" / "torch.Dockerfile"
OTHER = FILE.with_name("Dockerfile").read_text()
TEXT = FILE.read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def stage(name):
    lines = TEXT.replace("\\\n", "").splitlines()
    begin = lines.index(next(line for line in lines if line.endswith(f" AS {name}")))
    found = {}
    for line in lines[begin + 1 :]:
        instruction, _, value = line.partition(" ")
        if instruction == "FROM":
            break
        found[instruction] = value
    return found


@pytest.mark.slow
def test_hadolint_finds_nothing_to_say(tool):
    done = tool("hadolint", FILE)
    assert (done.returncode, done.stdout) == (0, "")


def test_both_files_begin_alike():
    for words in (r"^FROM python.*$", r"uv==\S+", r"^COPY (?!--from).*$"):
        assert re.findall(words, TEXT, re.MULTILINE) == re.findall(words, OTHER, re.MULTILINE)


def test_each_image_installs_an_extra_that_there_is():
    extras = ",".join(re.findall(r"'\.\[([\w,-]+)\]'", TEXT)).split(",")
    assert extras == ["torch-server", "kubeflow", "pipelines"]
    assert set(extras) <= PROJECT["optional-dependencies"].keys()


@pytest.mark.parametrize("name", ["torch", "pipeline"])
def test_an_image_runs_a_command_without_rights_in_its_folder(name, require_command):
    lines = stage(name)
    program = json.loads(lines["ENTRYPOINT"]) if "ENTRYPOINT" in lines else []
    require_command(*program, *json.loads(lines["CMD"]))
    user, group = lines["USER"].split(":")
    assert user == group
    assert int(user) > 0
    assert f"--uid {user} --home-dir {lines['WORKDIR']} " in lines["RUN"]


def test_the_image_of_the_tasks_is_the_one_that_is_built():
    tasks = (ROOT / "cloud_server" / "pipelines" / "flyte_tasks.py").read_text()
    image = f"fleetlearn/pipeline:{PROJECT['version']}"
    assert f'"{image}"' in tasks
    assert f'"{image}"' in (ROOT / "cloud_server/cli/pipelines/kubeflow_commands.py").read_text()
    typed = [shlex.split(line) for line in re.findall(r"^#   (docker .*)$", TEXT, re.MULTILINE)]
    assert image in [words[words.index("-t") + 1] for words in typed]
