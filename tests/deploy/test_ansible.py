"""The Ansible role as an operator runs it, on robots that are folders: real dpkg, package, server.

No rights and no systemd: a stand-in of systemctl starts and ends real agents, and there is no ssh.
The package finds its Python environment made, that of these tests; tests/packaging makes one.
"""

import json
import os
import re
import subprocess
import sys
from getpass import getuser
from pathlib import Path

import pytest
from package_root import DPKG_OPTIONS, clean_environment, make_root, write_program

from cloud_server.robots.register import Register
from edge_agent.agent.status import read_status
from edge_agent.robot.settings import load_settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "ansible"
VERSION = "0.1.0-{}"
# What these tests need of systemctl: an agent with settings is started, and waited for.
SYSTEMCTL = """
root={root}; state=$root/var/lib/edge-agent/state/status.json; pid=$(cat {pid} 2>/dev/null)
echo "systemctl $*" >> {calls}
runs() {{ test -n "$pid" && grep -q edge-agent /proc/$pid/cmdline 2>/dev/null; }}
stop() {{ if runs; then kill $pid; while runs; do sleep .1; done; fi; }}
start() {{
    test -e $root/var/lib/edge-agent/agent.toml || return 0
    $root/opt/fleetlearn-agent/current/bin/edge-agent run --config $root/var/lib/edge-agent \\
        >> {log} 2>&1 < /dev/null &
    pid=$!; echo $pid > {pid}
    while runs && ! grep -qsE '"state": "(starting|idle|offline|refused)"' $state; do sleep .1; done
    runs
}}
case "$1" in
    show) echo LoadState=loaded; runs && echo ActiveState=active || echo ActiveState=inactive ;;
    is-enabled) test -e {enabled} ;;
    enable) touch {enabled} ;;
    start) runs || start ;;
    restart) stop; start ;;
    try-restart) if runs; then stop; start; fi ;;
    disable) rm -f {enabled}; stop ;;
esac
"""

pytestmark = pytest.mark.slow


class Robot:
    """A folder that Ansible takes for a robot."""

    def __init__(self, folder):
        self.name, self.root = folder.name, folder / "root"
        self.directory = self.root / "var/lib/edge-agent"
        self.pid_file, self.calls, self.log = (folder / n for n in ("pid", "calls", "log"))
        make_root(self.root)
        self.python = folder / "python"
        programs = folder / "programs"
        options = " ".join(DPKG_OPTIONS)
        write_program(programs / "dpkg", f'exec /usr/bin/dpkg --root={self.root} {options} "$@"')
        admin = f"--admindir={self.root}/var/lib/dpkg"
        write_program(programs / "dpkg-query", f'exec /usr/bin/dpkg-query {admin} "$@"')
        for name in ("systemd-sysusers", "systemd-tmpfiles"):
            write_program(programs / name, "exit 0")
        write_program(programs / "systemctl", SYSTEMCTL.format(
            root=self.root, pid=self.pid_file, calls=self.calls, log=self.log,
            enabled=folder / "enabled",
        ))  # fmt: skip
        path = clean_environment(programs)["PATH"]
        write_program(self.python, f'export PATH={path}\nexec {sys._base_executable} "$@"')

    def prepare(self, package):
        """Let a package find the environment that it would make: this one."""
        script = "./usr/lib/fleetlearn-agent/make-environment"
        unpack = f"dpkg-deb --fsys-tarfile {package} | tar -xO {script}"
        text = subprocess.run(unpack, shell=True, capture_output=True, text=True, check=True).stdout
        (name,) = re.findall(r'^environment="(\S+)-\$', text, re.MULTILINE)
        home = self.root / "opt/fleetlearn-agent" / f"{name}-agent"
        home.mkdir(parents=True)
        (home / "bin").symlink_to(Path(sys.executable).parent)
        (home / ".complete").touch()

    @property
    def variables(self):
        return {
            "ansible_connection": "local", "ansible_python_interpreter": str(self.python),
            "ansible_become": False, "edge_agent_root": str(self.root),
            "edge_agent_user": getuser(), "edge_agent_as": [],
        }  # fmt: skip

    @property
    def version(self):
        """Return the version that dpkg knows, None if there is none."""
        status = (self.root / "var/lib/dpkg/status").read_text()
        return (re.findall(r"^Status: .* installed\n(?:.*\n)*?Version: (.*)$", status, re.MULTILINE)
                or [None])[0]  # fmt: skip

    @property
    def status(self):
        return read_status(self.directory / "state")

    @property
    def pid(self):
        """Return the agent's number, None if none runs."""
        pid = self.pid_file.read_text().strip() if self.pid_file.exists() else ""
        command = Path(f"/proc/{pid or 'none'}/cmdline")
        return int(pid) if command.exists() and "edge-agent" in command.read_text() else None


class Operator:
    """Somebody with an inventory, who types ansible-playbook."""

    def __init__(self, tool, folder, robots, variables):
        self._run = tool
        self.folder, self.inventory = folder, folder / "inventory.json"
        hosts = {robot.name: robot.variables for robot in robots}
        self.inventory.write_text(json.dumps({"robots": {"hosts": hosts, "vars": variables}}))

    def plays(self, playbook, *options, **variables):
        """Run a playbook; return its exit code, output, and what changed on each robot."""
        home = self.folder / "ansible"
        done = self._run(
            "ansible-playbook", "-i", self.inventory, FOLDER / playbook, *options,
            "-e", json.dumps(variables), cwd=self.folder,
            env={**os.environ, "LC_ALL": "C.UTF-8", "ANSIBLE_HOME": str(home),
                 "ANSIBLE_REMOTE_TMP": str(home / "remote"), "ANSIBLE_NOCOLOR": "1"},
        )  # fmt: skip
        output = done.stdout + done.stderr
        recap = re.findall(r"^(\w+) +: ok=\d+ +changed=(\d+) ", output, re.MULTILINE)
        return done.returncode, output, {name: int(number) for name, number in recap}


@pytest.fixture
def robots(tmp_path):
    """Three robots without a package; whatever agents run at the end are ended."""
    robots = [Robot(tmp_path / name) for name in ("r1", "r2", "r3")]
    yield robots
    for robot in robots:
        if robot.pid:
            os.kill(robot.pid, 9)


def make_kit(server_dir, kit, uses):
    """Make a kit with a token, as the operator of the server does."""
    from cloud_server.cli.token_commands import token_make

    token_make(server_dir.root, uses=uses, site="hall", kit=kit)
    return kit


def test_robots_are_installed_upgraded_until_one_is_not_well_and_removed(
    tool, robots, packages, running_server, tmp_path
):
    r1, r2, r3 = robots
    register = Register(running_server.server_dir.robots)
    kit = make_kit(running_server.server_dir, tmp_path / "kit", uses=2)
    operator = Operator(tool, tmp_path, robots, {
        "edge_agent_packages": str(packages("fleetlearn-agent").parent),
        "edge_agent_version": VERSION.format(1),
        "edge_agent_kit": str(kit),
        "edge_agent_package_settings": {"UV_DEFAULT_INDEX": "https://mirror.example/a b"},
        "edge_agent_settings": {
            "training": {"enabled": False, "threads": 1}, "poll": {"idle_s": 0.2},
            "examples": {"aliases": {"Brick": "brick"}}, "train_when": {"hours": "22:00-06:00"},
        },
    })  # fmt: skip

    # Two new robots admit themselves with the kit's token, under the names of the inventory.
    for robot in (r1, r2):
        robot.prepare(packages("fleetlearn-agent"))
    code, output, _ = operator.plays("robots.yml", "-l", "r1,r2", edge_agent_batches=[2])
    assert code == 0, output
    assert [(one.name, one.site) for one in register.robots()] == [("r1", "hall"), ("r2", "hall")]
    for robot in (r1, r2):
        assert (robot.version, robot.status["state"]) == (VERSION.format(1), "idle"), output
        assert robot.pid
        assert "systemctl enable edge-agent.service" in robot.calls.read_text()
        assert not list(robot.root.rglob("token"))
        settings = load_settings(robot.directory, {})
        assert (settings.training.enabled, settings.training.threads) == (False, 1)
        assert settings.examples.aliases == {"Brick": "brick"}
        assert settings.train_when.hours == "22:00-06:00"
        assert settings.server.address == running_server.address
        mirror = (robot.root / "etc/default/fleetlearn").read_text()
        assert "UV_DEFAULT_INDEX='https://mirror.example/a b'\n" in mirror
    first = {robot.name: robot.pid for robot in robots}

    # Done again, nothing changes.
    code, output, changed = operator.plays("robots.yml", "-l", "r1")
    assert (code, changed) == (0, {"r1": 0}), output
    assert {robot.name: robot.pid for robot in robots} == first

    # What the agent would refuse never takes the place of its settings.
    wrong = {"edge_agent_settings": {"training": {"treads": 1}}}
    begin = ("--start-at-task", "edge_agent : Write settings of the agent")
    code, output, _ = operator.plays("robots.yml", "-l", "r1", *begin, **wrong)
    assert code != 0
    assert 'unknown key \\"treads\\"; did you mean \\"threads\\"?' in output
    assert load_settings(r1.directory, {}).training.threads == 1

    # An upgrade goes from batch to batch, and stops where a robot is not well afterwards.
    register.revoke("r2", "stolen")
    for robot in (r1, r2):
        robot.prepare(packages("fleetlearn-agent", 2))
    newer = {"edge_agent_version": VERSION.format(2)}
    code, output, changed = operator.plays("robots.yml", edge_agent_batches=[2, 1], **newer)
    assert (code != 0, changed.keys()) == (True, {"r1", "r2"}), output
    assert (r1.version, r1.status["state"]) == (VERSION.format(2), "idle"), output
    assert r1.pid not in (None, first["r1"])
    assert "r2: with version 0.1.0-2 the agent is not well: refused" in output
    assert "stolen" in output
    assert "--limit r2 -e edge_agent_version=0.1.0-1" in output
    assert (r3.root / "var/lib/dpkg/status").read_text() == ""

    # Removed, the robot's data stay; unless they are not to.
    key = (r1.directory / "robot.key").read_bytes()
    too = "{{ inventory_hostname == 'r2' }}"
    code, output, _ = operator.plays("remove.yml", "-l", "r1,r2", edge_agent_remove_data=too)
    assert code == 0, output
    for robot in (r1, r2):
        assert (robot.version, robot.pid) == (None, None)
        assert "systemctl disable --now edge-agent.service" in robot.calls.read_text()
    assert (r1.directory / "robot.key").read_bytes() == key
    assert not r2.directory.exists()


def test_ansible_lint_finds_nothing_to_say(tool):
    # It looks for ansible-playbook on the path.
    path = f"{ROOT / '.venv-deploy' / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8"}
    options = ("--offline", "--strict", "--profile", "production", "-q", ".")
    done = tool("ansible-lint", *options, cwd=FOLDER, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
