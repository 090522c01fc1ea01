"""The units of deploy/systemd, judged by systemd's own tools. No unit was ever booted here."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "systemd"
UNPACKED = ROOT / ".venv-tools" / "systemd" / "root"
UNITS = sorted(FOLDER.glob("*.service"))
MOST_EXPOSED = "20"  # tenths; 0 is closed, 100 open to everything
# Ubuntu 22.04 and JetPack 6 have systemd 249, which ignores what it does not know. A key is added
# here when systemd's NEWS or manual says that it came with 249 or before.
KNOWN_TO_249 = set("""
    Description Documentation Wants After ConditionPathExists StartLimitIntervalSec WantedBy
    Type NotifyAccess ExecStart WatchdogSec Environment TimeoutStartSec TimeoutStopSec KillMode
    Restart RestartSec User StateDirectory StateDirectoryMode WorkingDirectory UMask
    CPUWeight IOWeight Nice MemoryHigh MemoryMax OOMPolicy TasksMax LimitCORE LimitNOFILE
    CapabilityBoundingSet NoNewPrivileges PrivateDevices PrivateTmp PrivateUsers ProtectSystem
    ProtectHome ProtectProc ProtectClock ProtectControlGroups ProtectHostname ProtectKernelLogs
    ProtectKernelModules ProtectKernelTunables KeyringMode LockPersonality RemoveIPC
    RestrictAddressFamilies RestrictNamespaces RestrictRealtime RestrictSUIDSGID
    SystemCallArchitectures SystemCallFilter SystemCallErrorNumber
    RuntimeDirectory RuntimeDirectoryMode IPAddressAllow IPAddressDeny
""".split())  # noqa: SIM905  # fmt: skip


@pytest.fixture
def analyze():
    """Return a function that runs systemd-analyze; it needs no systemd that runs."""
    environment = dict(os.environ)
    program = shutil.which("systemd-analyze")
    if program is None:  # unpacked from packages, by the Makefile
        program = UNPACKED / "usr/bin/systemd-analyze"
        libraries = {str(file.parent) for file in UNPACKED.rglob("*.so*")}
        environment["LD_LIBRARY_PATH"] = ":".join(sorted(libraries))
        units = [UNPACKED / path for path in ("lib/systemd/system", "usr/lib/systemd/system")]
        environment["SYSTEMD_UNIT_PATH"] = ":".join(map(str, units))
        assert program.exists(), "these checks need systemd-analyze: `make test` fetches it"

    def run(*arguments):
        command = [program, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    return run


@pytest.fixture
def installed(tmp_path):
    """Return a function that puts a unit where its program is one that exists."""

    def put(unit, *more):
        text = re.sub(r"/opt/fleetlearn-\w+/current/bin/[\w-]+", "/bin/true", unit.read_text())
        (tmp_path / unit.name).write_text("\n".join([text, *more, ""]))
        return str(tmp_path / unit.name)

    return put


def directives(unit):
    """Return (key, value) of every line."""
    return re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_nothing_to_say_of_a_unit_and_it_is_hardly_exposed(unit, analyze, installed):
    path = installed(unit)

    verified = analyze("verify", path)
    judged = analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", path)

    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    assert judged.returncode == 0, judged.stdout


def test_these_checks_see_an_unknown_key_and_an_open_unit(analyze, installed, tmp_path):
    misspelt = analyze("verify", installed(UNITS[0], "[Service]", "WatchdogSecs=60"))
    (tmp_path / "open.service").write_text("[Service]\nExecStart=/bin/true\n")
    threshold = f"--threshold={MOST_EXPOSED}"
    open_one = analyze("security", "--offline=yes", threshold, str(tmp_path / "open.service"))

    assert "Unknown key name 'WatchdogSecs'" in misspelt.stderr.replace("key 'W", "key name 'W")
    assert open_one.returncode != 0


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_uses_only_what_systemd_249_knows(unit):
    assert not {key for key, _ in directives(unit)} - KNOWN_TO_249


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_service_outlives_its_children_and_no_child_speaks_for_it(unit):
    found = dict(directives(unit))

    assert (found["Type"], found["NotifyAccess"], found["OOMPolicy"]) == (
        "notify", "main", "continue",
    )  # fmt: skip
    assert found["Restart"] == "always"
    # A proof of a key, and a certificate, need the time.
    assert ("time-sync.target" in found["After"]) == (unit.name != "edge-agent-serve.service")


def test_the_model_server_reaches_no_other_machine_and_writes_only_its_sockets():
    found = dict(directives(FOLDER / "edge-agent-serve.service"))

    assert (found["IPAddressAllow"], found["IPAddressDeny"]) == ("localhost", "any")
    assert (found["ProtectSystem"], found["RuntimeDirectory"]) == ("strict", "edge-agent-serve")
    assert not {"StateDirectory", "ReadWritePaths"} & found.keys()


def test_one_of_several_agents_differs_from_the_only_one_by_its_name_alone():
    one, several = (directives(FOLDER / f"edge-agent{at}.service") for at in ("", "@"))

    there = [(key, value.replace("edge-agent-%i", "edge-agent")) for key, value in several]
    assert [pair for pair in there if pair[0] != "Description"] == [
        pair for pair in one if pair[0] != "Description"
    ]
