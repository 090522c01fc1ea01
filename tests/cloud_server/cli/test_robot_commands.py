import json
import ssl
import sys

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server import cli
from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.register import Register
from fleet_model.protocol.proof import make_key, public_line, sign, utc_now


def new_line():
    return public_line(ec.generate_private_key(ec.SECP384R1()).public_key())


@pytest.fixture
def robots(cloud_server, server_dir):
    """Return a caller of `cloud-server robots COMMAND DIR ...`: (exit code, stdout, stderr)."""

    def call(command, *arguments):
        return cloud_server("robots", command, server_dir.root, *arguments)

    return call


@pytest.fixture
def register(server_dir):
    return Register(server_dir.robots)


def test_a_robot_is_added_as_pending_with_labels_and_approved_later(robots, register):
    code, out, _ = robots(
        "add", "r1", "--key", new_line(), "--pending", "--label", "gpu", "--label", "arm"
    )

    assert code == 0
    assert "added as pending r1 at site default" in out
    robot = register.by_name("r1")
    assert (robot.state, robot.labels) == ("pending", ("arm", "gpu"))
    robots("add", "r2", "--key", new_line(), "--pending")
    assert "approved r1" in robots("approve", "r1", "r2")[1]
    assert register.by_name("r2").state == "approved"
    assert register.by_name("r1").state == "approved"


def test_a_site_that_nobody_gave_is_told_and_can_be_changed(robots, register, server_dir):
    _, _, told = robots("add", "r1", "--key", new_line())

    change = f"cloud-server robots site {server_dir.root} r1 SITE"
    assert told == f"site default: no site was given; to change it: {change}"
    assert robots("site", "r1", "hall-1")[1] == "site of r1: hall-1\n"
    assert register.by_name("r1").site == "hall-1"
    assert robots("add", "r2", "--key", new_line(), "--site", "hall-1")[2] == ""
    assert robots("site", "r2", "hall 1")[0] == 2
    assert register.by_name("r2").site == "hall-1"


def test_a_relay_answers_for_as_many_robots_as_it_is_said_to(robots, register):
    register.add("r1", "hall", new_line())

    assert robots("relay", "r1", "12")[1] == "r1 answers for 12 robots\n"
    assert register.by_name("r1").speaks_for == 12
    assert robots("relay", "r1", "1")[1] == "r1 answers for itself alone\n"
    code, _, told = robots("relay", "r1", "0")
    assert code == 2
    assert "speaks_for" in told
    assert register.by_name("r1").speaks_for == 1


def test_a_site_that_nobody_gave_is_told_of_many_robots_once(robots, tmp_path, server_dir):
    for name in ("a", "b"):
        (tmp_path / f"{name}.pub").write_text(new_line())
    _, _, told = robots("add", "--from", tmp_path)

    assert told.startswith("site default: no site was given; to change it: ")
    assert told.endswith(f"robots site {server_dir.root} NAME SITE")
    (tmp_path / "c.pub").write_text(new_line())
    assert robots("add", "--from", tmp_path, "--site", "yard")[2] == ""


def test_a_robot_is_suspended_approved_revoked_and_forgotten(robots, register):
    register.add("r1", "hall", new_line())

    assert robots("suspend", "r1", "--reason", "in the workshop")[0] == 0
    assert register.by_name("r1").reason == "in the workshop"
    assert robots("approve", "r1")[0] == 0
    assert robots("revoke", "r1")[0] == 0
    assert register.by_name("r1").reason == "revoked by the operator"
    code, _, err = robots("approve", "r1")
    assert (code, "revoked for good" in err) == (2, True)
    assert robots("forget", "r1")[0] == 0
    assert register.robots() == ()


def test_labels_are_added_and_removed(robots, register):
    register.add("r1", "hall", new_line(), labels=["gpu"])

    _, out, _ = robots("label", "r1", "--add", "arm", "--add", "outdoor", "--remove", "gpu")

    assert "labels of r1: arm, outdoor" in out
    assert register.by_name("r1").labels == ("arm", "outdoor")
    assert "none" in robots("label", "r1", "--remove", "arm", "--remove", "outdoor")[1]


@pytest.mark.parametrize("command", ["approve", "suspend", "revoke", "forget", "label"])
def test_an_unknown_robot_is_exit_code_2(robots, command):
    code, out, err = robots(command, "r9")

    assert (code, out) == (2, "")
    assert "robot 'r9' is not in the register" in err


@pytest.mark.parametrize("command", ["approve", "suspend", "revoke", "forget", "label"])
def test_a_folder_that_is_no_server_directory_is_refused(robots, server_dir, command):
    server_dir.settings.unlink()

    code, _, err = robots(command, "r1")

    assert code == 2
    assert "not a server directory" in err


def test_the_list_shows_states_labels_and_reasons(robots, register):
    register.add("r1", "hall", new_line(), labels=["gpu"])
    register.suspend("r1", "broken lens")

    code, out, _ = robots("list", "--json")

    assert code == 0
    (robot,) = json.loads(out)
    assert (robot["state"], robot["reason"], robot["labels"]) == (
        "suspended", "broken lens", ["gpu"],
    )  # fmt: skip
    table = robots("list")[1]
    (line,) = (line for line in table.splitlines() if "suspended" in line)
    for told in (register.robots()[0].fingerprint, robot["added_at"][:19], "broken lens"):
        assert told in line  # also where the table is piped


def test_unknown_keys_that_a_stopped_server_wrote_down_are_listed_with_the_command(
    robots, register, server_dir
):
    stranger, admitted = new_line(), new_line()
    seen = LastSeen(server_dir.seen)
    seen.wait(stranger)
    seen.wait(admitted)
    seen.save([])
    register.add("r1", "hall", admitted)

    _, out, _ = robots("list", "--json")
    _, text, _ = robots("list")

    assert [(one["state"], one["name"]) for one in json.loads(out)] == [
        ("approved", "r1"),
        ("waiting", ""),
    ]
    command = f"cloud-server robots add {server_dir.root} NAME --site SITE --key '{stranger}'"
    assert text.splitlines()[-1].startswith("waiting: SHA256:")
    assert text.splitlines()[-1].endswith(command)


def test_robots_that_do_not_name_the_server_are_listed_as_such(robots, server_dir):
    register, seen = Register(server_dir.robots), LastSeen(server_dir.seen)
    for name in ("newer", "older", "unseen"):
        robot = register.add(name, "hall", new_line())
        if name != "unseen":
            seen.see(name)
        if name == "newer":
            seen.names_server(robot)
    seen.save(register.robots())

    _, text, _ = robots("list")

    assert "requests of older do not name this server" in " ".join(text.split())


@pytest.fixture
def stranger_asks(running_server):
    """Return a call that asks the running server with a key that it does not know."""

    def ask():
        key = ec.generate_private_key(ec.SECP384R1())
        path = "/fleetlearn/v1/robot/whoami"
        ca = str(running_server.server_dir.certificates / "ca.crt")
        response = httpx.get(
            f"https://{running_server.address}{path}",
            headers=dict(sign(key, "GET", path, utc_now())),
            verify=ssl.create_default_context(cafile=ca),
        )
        assert response.status_code == 403
        return public_line(key.public_key())

    return ask


def test_unknown_keys_are_listed_at_once_while_the_server_runs(
    capsys, monkeypatch, running_server, stranger_asks
):
    line = stranger_asks()
    monkeypatch.setattr(
        sys,
        "argv",
        ["cloud-server", "robots", "list", str(running_server.server_dir.root), "--json"],
    )
    cli.app(standalone_mode=False)

    (one,) = json.loads(capsys.readouterr().out)
    assert (one["state"], line in one["reason"]) == ("waiting", True)


def test_a_private_key_in_place_of_the_public_one_is_not_printed(robots, tmp_path):
    make_key(tmp_path / "robot.key")

    code, out, err = robots("add", "r1", "--key", tmp_path / "robot.key")

    assert (code, out) == (2, "")
    assert "this is a private key; give the robot's public one, robot.pub" in err
    assert "BEGIN" not in err
    # As text it would be taken for the name of a file, which the error would repeat.
    code, _, err = robots("add", "r1", "--key", (tmp_path / "robot.key").read_text())
    assert (code, "BEGIN" in err, "this is a private key" in err) == (2, False, True)
