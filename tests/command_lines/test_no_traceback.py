"""Every command, by a user without rights, where nothing can be read or written as it should be.

The programs speak ASCII here, on a terminal of 60 columns: LC_ALL=C and no UTF-8 mode.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer

import cloud_server.cli
import edge_agent.cli
import site_relay.cli
from cloud_server.robots.register import Register
from edge_agent.cli.enroll import enroll
from edge_agent.robot.settings import ExampleSettings

IS_ROOT, SOMEBODY_ELSE = os.geteuid() == 0, 65534
CODES = {0, *range(2, 17)}  # fleet_model/errors.py
CLOSED = 141
TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"
# What is typed; DIR is the server's directory, ROBOT a robot's, FRAMES a folder of labelled images.
TYPED = """
cloud-server init DIR --labels a,b
cloud-server train DIR
cloud-server evaluate DIR
cloud-server status DIR
cloud-server history DIR
cloud-server simulate DIR --robots 2 --rounds 1 --plot PLACE/plot.png
cloud-server doctor DIR
cloud-server repair DIR
cloud-server renew-certificate DIR
cloud-server backup DIR PLACE/fleet.tar
cloud-server restore PLACE/fleet.tar PLACE/restored
cloud-server start DIR
cloud-server models sync DIR PLACE/served
cloud-server init PLACE/texts --workload text-classifier --labels a,b
cloud-server init PLACE/texts --workload text-classifier --labels a,b --checkpoint FRAMES
cloud-server init PLACE/texts --workload text-classifier --labels a,b --checkpoint PLACE/none
cloud-server init PLACE/chat --workload causal-lm --trainable lora
cloud-server init PLACE/chat --workload causal-lm --trainable lora --checkpoint FRAMES
cloud-server init PLACE/chat --workload causal-lm --trainable lora --set dtype=4bit
cloud-server init PLACE/seen --workload vision-language --trainable lora --checkpoint FRAMES
cloud-server init PLACE/seen --workload vision-language --trainable lora --set image_size=4
cloud-server serve-adapters DIR
cloud-server serve-adapters DIR --no-key --host 0.0.0.0
cloud-server adapters list DIR
cloud-server adapters upload DIR acme/helpdesk
cloud-server profiles ask DIR
cloud-server profiles show DIR
cloud-server profiles compare DIR board
cloud-server profiles export DIR --out PLACE/profiles.json
cloud-server mcp DIR
cloud-server mcp DIR --allow-writes --http nowhere
cloud-server pipeline run PLACE/out --data FRAMES/texts.csv --model FRAMES --work PLACE/work
cloud-server pipeline kubeflow compile PLACE/fleet.yaml --data FRAMES
cloud-server pipeline kubeflow run PLACE/out --data FRAMES --model FRAMES --work PLACE/work
cloud-server compare BUNDLE FRAMES
cloud-server compress FRAMES/a.keras --pipeline FRAMES/a.toml --out PLACE/out --work PLACE/work
cloud-server compress FRAMES/a.keras --pipeline FRAMES/a.toml --publish DIR --max-drop 0.1
cloud-server keys online DIR --keys PLACE
cloud-server runs list DIR
cloud-server runs show DIR 20260101-120000
cloud-server runs compare DIR 20260101-120000 20260102-120000 --plot PLACE/runs.png
cloud-server runs stop DIR 20260101-120000
cloud-server runs resume DIR 20260101-120000
cloud-server schedule show DIR
cloud-server schedule clear DIR
cloud-server robots add DIR r2 --key ROBOT/robot.pub
cloud-server robots approve DIR r1
cloud-server robots suspend DIR r1
cloud-server robots revoke DIR r1
cloud-server robots forget DIR r1 --unlearn
cloud-server train DIR --closed-form ridge
cloud-server robots forget DIR r1
cloud-server robots label DIR r1 --add outdoor
cloud-server robots site DIR r1 hall-2
cloud-server robots relay DIR r1 12
site-relay init DIR --kit DIR/kit --name relay.example.com
site-relay start DIR
cloud-server version
edge-agent version
site-relay version
cloud-server robots list DIR
cloud-server robots token make DIR --kit PLACE/kit
cloud-server robots token list DIR
cloud-server robots token revoke DIR 1
cloud-server models list DIR
cloud-server models show DIR 1
cloud-server models compare DIR 1 1
cloud-server models publish DIR 1
cloud-server models publish DIR 1 --site hall-1
cloud-server models rollback DIR 1
cloud-server models prune DIR
cloud-server models pin DIR 1
cloud-server models unpin DIR 1
cloud-server models export DIR --format keras --out PLACE/model.keras
cloud-server import-engine DIR FRAMES/model.onnx
cloud-server import-engine DIR BUNDLE/head.tflite --labels a,b --sample FRAMES --dry-run
cloud-server import-engine DIR FRAMES/model.onnx --out PLACE/teacher
cloud-server report DIR --out PLACE/report.html
cloud-server keys status DIR
cloud-server keys rotate DIR
cloud-server keys init DIR
cloud-server keys init DIR --offline PLACE/keys
cloud-server keys renew DIR --keys PLACE/keys
cloud-server models promote DIR 1 --keys PLACE/keys
cloud-server models promote DIR 2 --groups 50%,100%
cloud-server rollout status DIR
cloud-server rollout advance DIR
cloud-server rollout halt DIR
cloud-server rollout resume DIR
cloud-server rollout abort DIR
cloud-server models assign DIR 1 --site hall
cloud-server web DIR
cloud-server web DIR --end-sessions
cloud-server web DIR --open --end-sessions
cloud-server models unassign DIR --site hall
cloud-server k8s apply PLACE/models.yaml --kubeconfig PLACE/kubeconfig --context robot-*
cloud-server k8s status --kubeconfig PLACE/kubeconfig --context robot-*
cloud-server labels list DIR
cloud-server labels add DIR cone
cloud-server labels rename DIR circle disc
edge-agent extract FRAMES --out PLACE/set
edge-agent collect board=FRAMES --out PLACE/records
edge-agent inspect FRAMES
edge-agent enroll DIR/kit --dir PLACE/robot --no-train
edge-agent enroll DIR/kit --dir PLACE/desk --examples FRAMES/texts.csv
edge-agent doctor --config ROBOT/agent.toml
edge-agent run --config ROBOT/agent.toml
edge-agent serve --config ROBOT/agent.toml --rest unix:PLACE/rest --grpc unix:PLACE/grpc
edge-agent label --config ROBOT/agent.toml --socket PLACE/page --classes a,b
edge-agent label --config ROBOT/agent.toml --teacher BUNDLE --classes circle,star
edge-agent label --config ROBOT/agent.toml --forget big
edge-agent k8s-controller --state ROBOT/state
edge-agent pause --config ROBOT/agent.toml
edge-agent resume --config ROBOT/agent.toml
edge-agent status --config ROBOT/agent.toml
edge-agent install --config ROBOT/agent.toml
edge-agent site hall-2 --config ROBOT/agent.toml
edge-agent rollback --config ROBOT/agent.toml
edge-agent predict FRAMES/texts.csv --bundle BUNDLE --csv PLACE/texts.csv
edge-agent predict FRAMES/texts.csv --config ROBOT/agent.toml --label-column kind --json
edge-agent predict FRAMES --bundle BUNDLE --csv PLACE/rows.csv
edge-agent predict FRAMES --bundle BUNDLE --confusion PLACE/matrix.png
edge-agent predict FRAMES --bundle BUNDLE --annotate PLACE/drawn
""".strip().splitlines()
# Where all is well they go on.
SERVICES = ("cloud-server start", "edge-agent run", "edge-agent serve")
NEW = "cloud-server init PLACE/new --labels a,b"  # where it can, half a minute
# An agent goes on where nothing can be written: its model does its work.
WRITERS = [line for line in TYPED if not line.startswith(SERVICES[1:])]
# Half a minute each where all is well.
EXPORTING = (
    "cloud-server labels add",
    "cloud-server labels rename",
    "cloud-server models export",
)


class World:
    """A server, a robot and its frames, each a copy in a folder that a case may spoil."""

    def __init__(self, root):
        self.root = root

    def places(self, **changed):
        names = {"DIR": "server", "ROBOT": "robot", "FRAMES": "frames", "PLACE": "place"}
        paths = {word: self.root / name for word, name in names.items()} | {"BUNDLE": TINY}
        return {word: str(path) for word, path in (paths | changed).items()}

    def hand_over(self, user):
        """Give all to a user."""
        for path in (self.root, *self.root.rglob("*")):
            if not path.is_symlink():
                os.chown(path, user, user)


@pytest.fixture(scope="module")
def made(tmp_path_factory, new_server_dir):
    """The folder that the cases copy."""
    root = tmp_path_factory.mktemp("world")
    server = new_server_dir(root / "server")
    line = enroll(server.kit, root / "robot", ExampleSettings(), train=False)
    Register(server.robots).add("r1", "hall", line)
    for label in ("circle", "square", "star"):
        (root / "frames" / label).mkdir(parents=True)
        cv2.imwrite(str(root / "frames" / label / "a.png"), np.full((48, 48, 3), 90, np.uint8))
    (root / "frames" / "texts.csv").write_text("text,kind\nit is on fire,circle\n")
    (root / "place").mkdir()
    return root


@pytest.fixture
def world(made, tmp_path):
    """Return a copy that a case may spoil."""
    shutil.copytree(made, tmp_path / "w", symlinks=True)
    yield World(tmp_path / "w")
    for path in (tmp_path / "w", *(tmp_path / "w").rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)


@pytest.fixture(scope="module")
def type_command():
    """Return what runs words in a child of a process that has both programs loaded."""
    script = Path(__file__).with_name("forked_commands.py")
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("LC_", "LANG"))}
    environment |= {
        "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "60",
        "OMP_NUM_THREADS": "1", "HOME": "/nonexistent", "FLEETLEARN_ROUNDS__WAIT_S": "0",
        "FLWR_HOME": "/nonexistent",
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-B", script], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip

        def run(words, cwd, stdout="pipe"):
            order = {"words": words, "cwd": str(cwd), "stdout": str(stdout)}
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()


def words_of(line, places):
    return [re.sub(r"^[A-Z]+", lambda m: places.get(m[0], m[0]), word) for word in line.split()]


def faults(line, answer, codes=CODES):
    """Return what a user must not see in an answer."""
    err, program = answer["err"], line.split()[0]
    found = [word for word in ("Traceback", "[Errno", "Error(", 'File "') if word in err]
    if "[Errno" in answer["out"]:
        found.append("[Errno on stdout")
    if answer["code"] not in codes | ({1} if " doctor " in line else set()):  # 1: a check failed
        found.append(f"exit code {answer['code']}")
    elif answer["code"] not in (0, 1, 2, CLOSED) and not re.search(f"^{program}: ", err, re.M):
        found.append("no line that says what is wrong")
    return [f"{line}: {', '.join(found)}\n{answer['out'][-300:]}\n{err[-900:]}"] if found else []


def run_all(world, type_command, lines=TYPED, codes=CODES, stdout="pipe", **changed):
    """Run every line; return its faults and its exit code."""
    places, bad, ended = world.places(**changed), [], {}
    for line in lines:
        answer = type_command(words_of(line, places), world.root.parent, stdout)
        bad += faults(line, answer, codes)
        ended[line] = answer["code"]
    assert not bad, "\n".join(bad)
    return ended


def plain_write_fails(type_command, folder):
    """Return whether the user cannot write a file of 100 kB there."""
    return type_command(["write", f"{folder}/plain"], "/")["code"] != 0


def test_every_command_is_typed_here():
    def names(group, before):
        for name, command in group.commands.items():
            if hasattr(command, "commands"):
                yield from names(command, f"{before} {name}")
            else:
                yield f"{before} {name}"

    programs = {
        "cloud-server": cloud_server.cli.app,
        "edge-agent": edge_agent.cli.app,
        "site-relay": site_relay.cli.app,
    }
    for program, app in programs.items():
        for name in names(typer.main.get_command(app), program):
            assert any(f"{line} ".startswith(f"{name} ") for line in TYPED), f"add: {name}"


def test_in_directories_that_may_only_be_read(world, type_command):
    for path in (world.root, *world.root.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert plain_write_fails(type_command, world.root / "server")
    ended = run_all(world, type_command, [*WRITERS, NEW])
    for name in ("robots suspend", "robots revoke", "robots forget", "robots label", "models pin"):
        codes = {code for line, code in ended.items() if f"cloud-server {name}" in line}
        assert codes == {12}, name
    for line in (NEW, TYPED[5], *TYPED[-3:]):
        assert ended[line] == 12, line


@pytest.mark.skipif(not IS_ROOT, reason="only root can give files to others")
def test_in_directories_of_somebody_else(world, type_command):
    world.hand_over(SOMEBODY_ELSE)
    for path in (world.root, *world.root.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    assert plain_write_fails(type_command, world.root / "server")
    run_all(world, type_command)


def test_on_a_full_disk(world, type_command, tmp_path):
    (tmp_path / "full").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", tmp_path / "full"]
    mounted = IS_ROOT and not subprocess.run(command, capture_output=True).returncode
    if not mounted:
        pytest.skip("a small file system needs the right to mount one")
    try:
        shutil.copytree(world.root, tmp_path / "full" / "w", symlinks=True)
        full = World(tmp_path / "full" / "w")
        with contextlib.suppress(OSError), (tmp_path / "full" / "fill").open("wb") as stream:
            while True:
                stream.write(b"x" * 4096)
                stream.flush()
        assert plain_write_fails(type_command, full.root / "server")
        lines = [line for line in WRITERS if not line.startswith(EXPORTING)]
        ended = run_all(full, type_command, [*lines, NEW])
        for line in (
            NEW,
            "cloud-server renew-certificate DIR",
            "cloud-server robots revoke DIR r1",
        ):
            assert ended[line] == 12, line
    finally:
        subprocess.run(["umount", tmp_path / "full"], check=True)


def test_where_there_is_nothing(world, type_command):
    nothing = world.root / "nothing"
    lines = [line for line in TYPED if "init" not in line]
    run_all(world, type_command, lines, DIR=nothing, ROBOT=nothing, FRAMES=nothing, BUNDLE=nothing)


@pytest.mark.parametrize("kind", ["file", "empty folder", "device"])
def test_with_something_else_in_its_place(world, type_command, kind):
    wrong = {
        "file": world.root / "robot" / "robot.pub",
        "empty folder": world.root / "place",
        "device": Path("/dev/null"),
    }[kind]
    lines = [line for line in TYPED if kind != "empty folder" or "init" not in line]
    run_all(world, type_command, lines, DIR=wrong, ROBOT=wrong, FRAMES=wrong, BUNDLE=wrong)
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("name", ["server.toml", "robots.json", "kit/kit.toml", "agent.toml"])
def test_with_a_folder_in_place_of_a_file(world, type_command, name):
    root = world.root / ("robot" if name == "agent.toml" else "server")
    (root / name).unlink(missing_ok=True)
    (root / name).mkdir()
    run_all(world, type_command, [one for one in TYPED if not one.startswith(SERVICES + EXPORTING)])


ANSWERS = [
    "cloud-server --help",
    "cloud-server simulate --robots 4 --rounds 2 --json",
    "cloud-server robots list DIR",
    "cloud-server models list DIR",
    "edge-agent extract FRAMES --out PLACE/set",
    "edge-agent predict FRAMES --bundle BUNDLE",
    "edge-agent predict FRAMES --bundle BUNDLE --json",
]


def test_with_an_output_that_nobody_reads(world, type_command):
    ended = run_all(world, type_command, ANSWERS, {CLOSED}, stdout="closed")
    assert ended.keys() == set(ANSWERS)


def test_with_an_output_that_is_full(world, type_command):
    run_all(world, type_command, ANSWERS, {12}, stdout="/dev/full")
