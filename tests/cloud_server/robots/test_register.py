import json
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.robots.register import Register
from fleet_model.errors import SettingsError
from fleet_model.protocol.proof import public_line

pytestmark = pytest.mark.base


def new_line(curve=ec.SECP384R1):
    return public_line(ec.generate_private_key(curve()).public_key())


LINE, OTHER = new_line(), new_line()


@pytest.fixture
def register(tmp_path):
    return Register(tmp_path / "robots.json")


def test_nobody_is_admitted_before_the_file_exists(register):
    assert register.robots() == ()
    assert register.by_key(LINE) is None


def test_an_admitted_robot_is_known_by_its_key(register, tmp_path):
    register.add("r1", "hall-1", LINE + " robot@hall")

    robot = Register(tmp_path / "robots.json").by_key(LINE)
    assert (robot.name, robot.site, robot.key) == ("r1", "hall-1", LINE)
    assert robot.fingerprint.startswith("SHA256:")
    assert register.by_key(OTHER) is None


def test_robots_are_listed_by_name(register):
    for name in ("b", "a", "c"):
        register.add(name, "hall", new_line())

    assert [robot.name for robot in register.robots()] == ["a", "b", "c"]


def test_a_running_server_sees_what_another_process_changes(register, tmp_path):
    register.add("r1", "hall", LINE)
    assert len(register.robots()) == 1

    Register(tmp_path / "robots.json").add("r2", "hall", OTHER)

    assert register.by_key(OTHER).name == "r2"


def test_a_name_and_a_key_are_taken_once(register):
    register.add("r1", "hall", LINE)

    with pytest.raises(SettingsError, match="robot r1 is in the register already"):
        register.add("r1", "hall", OTHER)
    with pytest.raises(SettingsError, match="this key belongs to robot r1 already"):
        register.add("r2", "hall", LINE)
    assert len(register.robots()) == 1


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", "a b", "x" * 64, "a\n"])
def test_a_name_and_a_site_have_no_strange_characters(register, name):
    with pytest.raises(SettingsError, match="name: expected letters"):
        register.add(name, "hall", LINE)
    with pytest.raises(SettingsError, match="site: expected letters"):
        register.add("r1", name, LINE)
    assert register.robots() == ()


@pytest.mark.parametrize("key", ["", "garbage", "ecdsa-sha2-nistp384 AAAA", new_line(ec.SECP256R1)])
def test_a_key_of_another_kind_is_refused(register, key):
    with pytest.raises(SettingsError, match=r"key: .*(OpenSSH public key|ecdsa-sha2-nistp384)"):
        register.add("r1", "hall", key)


def test_robots_that_are_added_at_the_same_time_are_all_kept(tmp_path):
    path = tmp_path / "robots.json"
    script = (
        "import sys, pathlib; from cloud_server.robots.register import Register\n"
        "print(flush=True); input()\n"
        "for line in sys.argv[3:]:\n"
        "    name = f'{sys.argv[2]}-{line[-8:-2]}'.replace('/', '_').replace('+', '_')\n"
        "    Register(pathlib.Path(sys.argv[1])).add(name, 'hall', line)\n"
    )
    lines = [[new_line() for _ in range(5)] for _ in range(3)]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path), f"r{number}", *lines[number]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(3)
    ]
    for child in children:
        child.stdout.readline()
    for child in children:
        child.stdin.write(b"\n")
        child.stdin.flush()
    for child in children:
        child.communicate()

    assert [child.returncode for child in children] == [0, 0, 0]
    assert {robot.key for robot in Register(path).robots()} == {
        line for group in lines for line in group
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file: Invalid JSON"),
        ('{"robots": [', "the file: Invalid JSON"),
        ('{"robots": [], "surprise": 1}', 'surprise: unknown key "surprise"; known are: robots'),
        ('{"robots": [{"name": "r1"}]}', r"robots\.0\.site: is missing"),
    ],
)
def test_a_damaged_register_is_named_with_the_place(tmp_path, register, content, message):
    (tmp_path / "robots.json").write_text(content)

    with pytest.raises(SettingsError, match=f"{message}.*correct it or restore it"):
        register.robots()


def test_a_register_that_cannot_be_read_is_named(tmp_path, register):
    (tmp_path / "robots.json").mkdir()

    with pytest.raises(SettingsError, match=r"robots\.json: cannot be read \(Is a directory\)"):
        register.robots()


def test_who_must_go_on_goes_on_with_what_was_readable_last(tmp_path, register, caplog):
    register.add("r1", "hall", LINE)
    assert register.last_readable() is register.robots()
    (tmp_path / "robots.json").write_text('{"robots": [')
    assert [robot.name for robot in register.last_readable()] == ["r1"]
    (tmp_path / "robots.json").unlink()
    (tmp_path / "robots.json").mkdir()
    assert [robot.name for robot in register.last_readable()] == ["r1"]
    assert [robot.name for robot in register.last_readable()] == ["r1"]
    assert caplog.text.count("robots stay as they were until it is corrected") == 2


def test_a_register_that_was_never_readable_stops_whoever_needs_it(tmp_path, register):
    (tmp_path / "robots.json").write_text('{"robots": [')

    with pytest.raises(SettingsError):
        register.last_readable()


def test_a_wrong_key_in_the_file_is_named_with_its_place(tmp_path, register):
    register.add("r1", "hall", LINE)
    values = json.loads((tmp_path / "robots.json").read_text())
    values["robots"][0]["key"] = "ecdsa-sha2-nistp384 AAAA"
    (tmp_path / "robots.json").write_text(json.dumps(values))

    with pytest.raises(SettingsError, match=r"robots\.0\.key: "):
        register.robots()


def test_a_damaged_register_is_not_overwritten(tmp_path, register):
    (tmp_path / "robots.json").write_text('{"robots": [')

    with pytest.raises(SettingsError):
        register.add("r1", "hall", LINE)
    assert (tmp_path / "robots.json").read_text() == '{"robots": ['


def test_a_corrected_register_is_read_again(tmp_path, register):
    register.add("r1", "hall", LINE)
    good = (tmp_path / "robots.json").read_text()
    (tmp_path / "robots.json").write_text("{")
    with pytest.raises(SettingsError):
        register.robots()

    (tmp_path / "robots.json").write_text(good)

    assert len(register.robots()) == 1


def test_an_unchanged_register_is_not_read_again(register):
    register.add("r1", "hall", LINE)

    assert register.robots() is register.robots()


def test_a_register_of_an_older_version_is_read_with_everybody_approved(tmp_path, register):
    old = {"name": "r1", "site": "hall", "key": LINE, "added_at": "2026-05-01T12:00:00+00:00"}
    (tmp_path / "robots.json").write_text(json.dumps({"robots": [old]}))

    (robot,) = register.robots()

    assert (robot.state, robot.reason, robot.labels) == ("approved", "", ())
    assert robot.counted_from == old["added_at"]


def test_a_robot_may_wait_for_approval(register):
    assert register.add("r1", "hall", LINE, pending=True).state == "pending"
    assert register.approve("r1").state == "approved"


def test_a_suspended_robot_keeps_the_reason_until_it_is_approved(register):
    register.add("r1", "hall", LINE, labels=["gpu"])

    suspended = register.suspend("r1", "in the workshop")
    approved = register.approve("r1")

    assert (suspended.state, suspended.reason) == ("suspended", "in the workshop")
    assert (approved.state, approved.reason) == ("approved", "")
    assert approved.labels == suspended.labels == ("gpu",)
    assert approved.key == LINE


def test_every_approval_counts_anew(register):
    robot = register.add("r1", "hall", LINE)
    first = register.approve("r1")
    second = register.approve("r1")

    assert len({robot.counted_from, first.counted_from, second.counted_from}) == 3


def test_revoked_is_for_good(register):
    register.add("r1", "hall", LINE)
    register.revoke("r1", "stolen")

    for change in (lambda: register.approve("r1"), lambda: register.suspend("r1", "x")):
        with pytest.raises(SettingsError, match=r"robot r1 is revoked for good; .* forget"):
            change()
    with pytest.raises(SettingsError, match=r"this key belongs to robot r1 already \(revoked\)"):
        register.add("r2", "hall", LINE)
    assert register.by_name("r1").reason == "stolen"


def test_a_forgotten_robot_leaves_name_and_key_free(register):
    register.add("r1", "hall", LINE)
    register.revoke("r1", "stolen")
    register.forget("r1")
    assert register.robots() == ()

    assert register.add("r1", "hall", LINE).state == "approved"


def test_labels_are_a_sorted_set(register):
    register.add("r1", "hall", LINE, labels=["outdoor", "gpu", "gpu"])

    assert register.by_name("r1").labels == ("gpu", "outdoor")
    assert register.label("r1", ["arm", "gpu"], ["outdoor", "none"]).labels == ("arm", "gpu")


@pytest.mark.parametrize("label", ["", "a b", "x" * 64, "\x1b[2J", "-x"])
def test_a_label_has_no_strange_characters(register, label):
    with pytest.raises(SettingsError, match="labels"):
        register.add("r1", "hall", LINE, labels=[label])
    register.add("r1", "hall", LINE)
    with pytest.raises(SettingsError, match="labels"):
        register.label("r1", [label], [])
    assert register.by_name("r1").labels == ()


@pytest.mark.parametrize("reason", ["x" * 301, "two\nlines", "\x1b[2J", "\u202e"])
def test_a_reason_is_one_short_line(register, reason):
    register.add("r1", "hall", LINE)

    with pytest.raises(SettingsError, match="reason"):
        register.suspend("r1", reason)
    assert register.by_name("r1").state == "approved"


@pytest.mark.parametrize(
    "change",
    [
        lambda register: register.approve("r9"),
        lambda register: register.suspend("r9", ""),
        lambda register: register.revoke("r9", ""),
        lambda register: register.forget("r9"),
        lambda register: register.label("r9", [], []),
        lambda register: register.move("r9", "hall"),
    ],
)
def test_an_unknown_robot_is_named_with_where_to_look(register, change):
    register.add("r1", "hall", LINE)

    with pytest.raises(SettingsError, match=r"robot 'r9' is not in the register; .* list"):
        change(register)
    assert len(register.robots()) == 1


def test_a_state_that_does_not_exist_is_named_with_its_place(tmp_path, register):
    register.add("r1", "hall", LINE)
    text = (tmp_path / "robots.json").read_text().replace("approved", "king", 1)
    (tmp_path / "robots.json").write_text(text)

    with pytest.raises(SettingsError, match=r"robots\.0\.state: "):
        register.robots()


@pytest.mark.parametrize(("name", "key"), [("r1", OTHER), ("r2", LINE)])
def test_a_name_or_key_that_an_editor_has_put_in_twice_is_named(tmp_path, register, name, key):
    register.add("r1", "hall", LINE)
    values = json.loads((tmp_path / "robots.json").read_text())
    values["robots"].append({**values["robots"][0], "name": name, "key": key})
    (tmp_path / "robots.json").write_text(json.dumps(values))

    with pytest.raises(SettingsError, match=r"the file: .* is there twice; correct it"):
        register.robots()


@pytest.mark.parametrize("kind", ["OpenSSH", "PKCS8"])
def test_a_private_key_is_refused_and_none_of_it_is_shown(register, kind):
    private = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM,
        getattr(serialization.PrivateFormat, kind),
        serialization.NoEncryption(),
    )

    with pytest.raises(SettingsError) as refused:
        register.add("r1", "hall", private.decode())

    assert (
        str(refused.value) == "key: this is a private key; give the robot's public one, robot.pub"
    )


def test_a_fingerprint_in_place_of_a_key_is_told(register):
    with pytest.raises(SettingsError, match="this is the fingerprint; give the line above it"):
        register.add("r1", "hall", "SHA256:c2VjcmV0")


@pytest.mark.parametrize(
    "key", ["c2VjcmV0", "ecdsa-sha2-nistp384 c2VjcmV0", "# c2VjcmV0\n-----BEGIN"]
)
def test_nothing_of_a_wrong_key_is_shown(register, key):
    with pytest.raises(SettingsError, match="one line `ecdsa-sha2-nistp384") as refused:
        register.add("r1", "hall", key)

    assert "c2VjcmV0" not in str(refused.value)
