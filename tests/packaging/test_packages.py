"""The packages as a machine meets them: installed, at work, upgraded, taken back, removed.

In a root of its own, with what was built and nothing of the checkout. dpkg is real; systemd is
played by the test, and a stand-in of systemctl writes down what it is told. No machine was booted.
"""

import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import sysconfig
import tarfile
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest
from package_root import DPKG_OPTIONS, clean_environment, make_root, write_program
from service_manager import ServiceManager

ROOT = Path(__file__).parents[2]
UV = ROOT / ".venv-tools" / "bin" / "uv"
LEFT_OUT = {"test", "tests", "site-packages", "dist-packages", "__pycache__", "idlelib", "tkinter"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python_archive(tmp_path_factory):
    """Return what names a local archive of a Python to uv, as a mirror without a network has it."""
    folder = tmp_path_factory.mktemp("python")
    archive, micro = folder / "python.tar.gz", sys.version_info.micro
    program = os.path.realpath(sys._base_executable)

    def keep(info):
        return None if LEFT_OUT & set(Path(info.name).parts) else info

    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(program, "python/bin/python3.11")
        tar.add(sysconfig.get_path("stdlib"), "python/lib/python3.11", filter=keep)
    entry = {
        "name": "cpython", "arch": {"family": platform.machine(), "variant": None}, "os": "linux",
        "libc": "gnu", "major": 3, "minor": 11, "patch": micro, "prerelease": "",
        "url": archive.as_uri(), "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        "variant": None, "build": "1",
    }  # fmt: skip
    name = f"cpython-3.11.{micro}-linux-{platform.machine()}-gnu"
    (folder / "pythons.json").write_text(json.dumps({name: entry}))
    return folder / "pythons.json"


class Machine:
    """A root directory with dpkg, and systemd as far as packages and services see it."""

    def __init__(self, root, pythons):
        self.root, self.calls = root, root.with_name("systemctl.log")
        self._services, self._starts = ExitStack(), 0
        make_root(root)
        programs = root.with_name("programs")
        for name in ("systemctl", "systemd-sysusers", "systemd-tmpfiles"):
            write_program(programs / name, f'echo "{name} $*" >> {shlex.quote(str(self.calls))}')
        cache = subprocess.run([UV, "cache", "dir"], capture_output=True, text=True, check=True)
        self.write_settings(
            UV_PYTHON_DOWNLOADS_JSON_URL=pythons,
            UV_CACHE_DIR=cache.stdout.strip(),
            UV_COMPILE_BYTECODE="0",  # much work, that a test has no use for
        )
        self.environment = clean_environment(programs)

    def write_settings(self, **settings):
        lines = [f"{name}={shlex.quote(str(value))}\n" for name, value in settings.items()]
        (self.root / "etc/default/fleetlearn").write_text("".join(lines))

    def dpkg(self, *arguments):
        command = ["dpkg", f"--root={self.root}", *DPKG_OPTIONS, *map(str, arguments)]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True)

    def install(self, *files):
        done = self.dpkg("--install", *files)
        assert done.returncode == 0, done.stdout + done.stderr

    def told(self):
        """Return what systemctl was told since the last call."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return [line for line in lines if line.startswith("systemctl")]

    def here(self, text):
        """Return a line of a unit with the paths of this root."""
        return re.sub(r"(?<![\w/])/(opt|var/lib)/", rf"{self.root}/\1/", text)

    def type(self, program, *arguments):
        """Run a command of a package; return its output."""
        link = (self.root / "usr/bin" / program).readlink()
        done = subprocess.run(
            [self.here(str(link)), *map(str, arguments)], env=self.environment,
            capture_output=True, text=True, cwd=self.root,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, name, **environment):
        """Do what systemd does with a unit of Type=notify; return the process once it is ready."""
        unit = (self.root / f"usr/lib/systemd/system/{name}.service").read_text()
        settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
        (condition,) = re.findall(r"^ConditionPathExists=(.*)$", unit, re.MULTILINE)
        assert Path(self.here(condition)).exists()
        self._starts += 1
        manager = self._services.enter_context(
            ServiceManager(f"@fleetlearn-{os.getpid()}-{name}-{self._starts}", watchdog_s=2)
        )
        log = self.root.with_name(f"{name}.log")
        environment |= dict([settings["Environment"].split("=")])
        with log.open("ab") as stream:
            process = subprocess.Popen(
                shlex.split(self.here(settings["ExecStart"])),
                env={**self.environment, **manager.environment, **environment},
                cwd=self.here(settings["WorkingDirectory"]), stderr=stream,
            )  # fmt: skip
        self._services.callback(process.kill)
        process.manager, process.log = manager, log
        manager.until("READY=1")
        return process

    def close(self):
        self._services.close()


def write_frames(folder):
    """Write a few pictures of each label of the tiny bundle; return the folder."""
    for gray, label in enumerate(("circle", "square", "star") * 20):
        (folder / label).mkdir(parents=True, exist_ok=True)
        picture = np.full((24, 32, 3), 4 * gray, np.uint8)
        cv2.imwrite(str(folder / label / f"{gray}.png"), picture)
    return folder


def end(process):
    process.terminate()
    assert process.wait(240) == 0, process.log.read_text()


@pytest.fixture
def machine(tmp_path, python_archive):
    machine = Machine(tmp_path / "root", python_archive)
    yield machine
    machine.close()


def test_a_robot_is_installed_trains_is_upgraded_taken_back_and_removed(
    machine, packages, new_server_dir, tmp_path
):
    # Both come with an environment of their own, and wait for their settings.
    machine.install(packages("fleetlearn-agent"), packages("fleetlearn-server"))
    assert machine.told() == [
        line
        for unit in ("edge-agent.service", "cloud-server.service")
        for line in ("systemctl daemon-reload", f"systemctl enable {unit}",
                     f"systemctl start {unit}")
    ]  # fmt: skip
    home = machine.root / "opt/fleetlearn-agent"
    first = (home / "current").readlink()
    python = subprocess.run(
        [home / first / "bin/python", "-c", "import sys, fleet_model; print(sys.base_prefix, "
         "fleet_model.__file__)"], capture_output=True, text=True, cwd="/", check=True,
    ).stdout.split()  # fmt: skip
    assert python[0].startswith(str(home / "python"))
    assert python[1].startswith(str(home / first))
    installed = {path.name.split("-")[0] for path in home.glob("current/lib/*/site-packages/*")}
    assert "flwr" in installed
    assert not installed & {"tensorflow_cpu", "tensorflow", "keras", "uv"}

    # A fleet of one robot trains a round.
    fleet, robot = (
        machine.root / "var/lib" / name for name in ("cloud-server/fleet", "edge-agent")
    )
    kit = new_server_dir(fleet).kit
    frames = write_frames(tmp_path / "frames")
    quickly = {"FLEETLEARN_ROUNDS__QUORUM": "1", "FLEETLEARN_ROUNDS__WAIT_S": "60"}
    server = machine.start("cloud-server", **quickly)
    machine.type("edge-agent", "enroll", kit, "--dir", robot, "--examples", frames)
    key = robot / "robot.pub"
    machine.type("cloud-server", "robots", "add", fleet, "r1", "--site", "hall", "--key", key)
    agent = machine.start("edge-agent")
    agent.manager.until("STATUS=idle")
    machine.type("cloud-server", "train", fleet, "--rounds", "1", "--detach")
    agent.manager.until("STATUS=training")
    server.manager.until("WATCHDOG=1")
    agent.manager.until("STATUS=idle")
    assert agent.poll() is None

    # An upgrade leaves the service alone until it is restarted: nothing is imported by `current`.
    assert Path(f"/proc/{agent.pid}/cmdline").read_text().startswith(str(home / first))
    machine.install(packages("fleetlearn-agent", 2))
    assert agent.poll() is None
    assert machine.told() == [
        "systemctl daemon-reload",
        "systemctl try-restart edge-agent.service edge-agent@*.service edge-agent-*.service",
    ]  # fmt: skip
    second = (home / "current").readlink()
    assert second != first
    end(agent)
    agent = machine.start("edge-agent")
    agent.manager.until("STATUS=idle")

    # The way back needs no network, nor does it lose the robot's key or model.
    machine.write_settings(UV_OFFLINE="1", UV_CACHE_DIR=machine.root.with_name("empty"))
    machine.install(packages("fleetlearn-agent"))
    assert (home / "current").readlink() == first
    end(agent)
    agent = machine.start("edge-agent")
    agent.manager.until("STATUS=idle")

    # What cannot be installed says so, and what was there before works on.
    (home / second / ".complete").unlink()
    failed = machine.dpkg("--install", packages("fleetlearn-agent", 2))
    assert failed.returncode != 0
    assert "what was installed before stays in use" in failed.stderr
    assert (home / "current").readlink() == first
    assert agent.poll() is None
    end(agent)
    end(machine.start("edge-agent"))
    end(server)

    # Removed, nothing of the packages is left; keys and models are.
    machine.told()
    removed = machine.dpkg("--purge", "fleetlearn-agent", "fleetlearn-server")
    assert removed.returncode == 0, removed.stderr
    told = machine.told()
    assert "systemctl disable --now edge-agent.service" in told
    assert "systemctl disable --now edge-agent-serve.service" in told
    assert f"{robot.name} stays, with its keys" in removed.stdout
    left = {path.relative_to(machine.root).parts[0] for path in machine.root.rglob("*")
            if path.is_file() and "dpkg" not in path.parts}  # fmt: skip
    assert left == {"var", "etc"}  # etc has the operator's own settings of uv
    assert (robot / "robot.key").exists()
    assert (fleet / "server.toml").exists()
