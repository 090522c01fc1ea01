import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.cli.init_command import parse_settings
from cloud_server.robots.register import Register
from cloud_server.state.model_store import DirectoryStore
from fleet_model.errors import StorageError
from fleet_model.protocol.proof import make_key, public_line

HEAVY = ("tensorflow", "keras", "flwr", "fastapi", "cv2", "numpy", "sqlalchemy")


@pytest.fixture
def line():
    return public_line(ec.generate_private_key(ec.SECP384R1()).public_key())


def test_help_loads_nothing_heavy_and_names_the_commands():
    script = (
        "import sys; sys.argv = ['cloud-server', '--help']\n"
        "from cloud_server import cli\n"
        "try: cli.main()\n"
        f"finally: print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    for command in ("init", "start", "train", "status", "robots", "models", "renew-certificate"):
        assert command in done.stdout


@pytest.mark.parametrize("word", ["--version", "version"])
def test_the_version_is_printed(cloud_server, word):
    code, out, _ = cloud_server(word)

    assert code == 0
    assert out.startswith("fleetlearn ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("train",),
        ("start",),
        ("robots", "list"),
        ("models", "list"),
        ("renew-certificate",),
        ("robots", "add"),
    ],
)
def test_a_folder_that_is_no_server_directory_is_refused_by_every_command(
    cloud_server, tmp_path, arguments
):
    more = ("r1", "--key", "ecdsa-") if arguments[-1] == "add" else ()
    code, out, err = cloud_server(*arguments, tmp_path, *more)

    assert (code, out) == (2, "")
    assert "not a server directory; make one with" in err
    assert list(tmp_path.iterdir()) == []


def test_a_robot_is_admitted_by_its_line_or_its_file(cloud_server, server_dir, tmp_path, line):
    made = make_key(tmp_path / "robot.key")

    code, out, err = cloud_server(
        "robots", "add", server_dir.root, "r1", "--site", "hall", "--key", line
    )
    second, *_ = cloud_server(
        "robots", "add", server_dir.root, "r2", "--key", tmp_path / "robot.pub"
    )

    assert (code, second, err) == (0, 0, "")
    assert out.startswith("admitted r1 at site hall: SHA256:")
    robots = Register(server_dir.robots).robots()
    assert [(r.name, r.site, r.key) for r in robots] == [
        ("r1", "hall", line),
        ("r2", "default", made),
    ]


def test_a_folder_of_keys_is_admitted_as_a_whole_or_not_at_all(
    cloud_server, server_dir, tmp_path, line
):
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "r1.pub").write_text(line)
    make_key(keys / "r2.key")  # writes r2.pub, too
    (keys / "r3.pub").write_text("ssh-ed25519 AAAA")
    code, _, err = cloud_server("robots", "add", server_dir.root, "--from", keys, "--site", "hall")
    assert code == 2
    assert "r3.pub: key: not an OpenSSH public key of a robot" in err
    assert "nobody is admitted" in err
    assert Register(server_dir.robots).robots() == ()

    (keys / "r3.pub").unlink()
    for admitted in (2, 0):  # a second call admits those alone that are new
        code, out, _ = cloud_server(
            "robots", "add", server_dir.root, "--from", keys, "--site", "hall"
        )
        assert (code, out.splitlines()[-1]) == (0, f"{admitted} robots admitted")
    robots = Register(server_dir.robots).robots()
    assert [(r.name, r.site) for r in robots] == [("r1", "hall"), ("r2", "hall")]

    (keys / "r4.pub").write_text(line)
    code, _, err = cloud_server("robots", "add", server_dir.root, "--from", keys)
    assert code == 2
    assert "this key belongs to robot r1 already (approved); nobody is admitted" in err


def test_a_name_without_a_key_and_a_key_beside_a_folder_are_told(cloud_server, server_dir):
    assert "give NAME and --key, or --from" in cloud_server("robots", "add", server_dir.root)[2]
    arguments = ("robots", "add", server_dir.root, "r1", "--from", server_dir.kit)
    assert "--from FOLDER takes names and keys from there" in cloud_server(*arguments)[2]


def test_a_token_is_shown_once_listed_without_its_secret_and_revoked(cloud_server, server_dir):
    code, out, err = cloud_server("robots", "token", "make", server_dir.root, "--uses", 3)
    token = out.strip()
    name = token.partition(".")[0]
    assert code == 0
    assert "admits 3 robots at site default within 24 h" in err
    assert f"cloud-server robots token revoke {server_dir.root} {name}" in err
    _, out, _ = cloud_server("robots", "token", "list", server_dir.root)
    assert "0 of 3" in out
    assert token.partition(".")[2] not in out
    (listed,) = json.loads(cloud_server("robots", "token", "list", server_dir.root, "--json")[1])
    assert (listed["id"], listed["uses"], "sha256" in listed) == (name, 3, False)
    assert cloud_server("robots", "token", "revoke", server_dir.root, name)[0] == 0
    assert json.loads(cloud_server("robots", "token", "list", server_dir.root, "--json")[1]) == []


def test_a_kit_with_a_token_is_a_new_folder_and_the_usual_kit_stays_without_secrets(
    cloud_server, server_dir, tmp_path
):
    arguments = ("robots", "token", "make", server_dir.root, "--kit", tmp_path / "kit")
    code, out, _ = cloud_server(*arguments)
    assert (code, out) == (0, "")
    assert {path.name for path in (tmp_path / "kit").iterdir()} == {"ca.crt", "kit.toml", "token"}
    assert (tmp_path / "kit" / "token").stat().st_mode & 0o077 == 0
    assert not (server_dir.kit / "token").exists()
    assert "is there already; name a new folder" in cloud_server(*arguments)[2]


def test_labels_are_listed_and_what_cannot_change_is_told(cloud_server, server_dir):
    assert cloud_server("labels", "list", server_dir.root)[1] == "circle\nsquare\nstar\n"
    code, _, err = cloud_server("labels", "add", server_dir.root, "star")
    assert (code, err) == (2, "cloud-server: label 'star' is there already: circle, square, star")
    assert "no label 'moon'" in cloud_server("labels", "rename", server_dir.root, "moon", "sun")[2]


def test_a_key_of_another_kind_is_no_file_that_is_not_there(cloud_server, server_dir):
    code, _, err = cloud_server(
        "robots", "add", server_dir.root, "r1", "--key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA"
    )

    assert code == 2
    assert "No such file" not in err
    assert "key" in err


@pytest.mark.parametrize("key", ["nowhere.pub", ".", "\0", "x" * 5000])
def test_a_key_file_that_cannot_be_read_is_a_settings_error(cloud_server, server_dir, key):
    code, _, err = cloud_server("robots", "add", server_dir.root, "r1", "--key", key)

    assert code == 2
    assert "give the line or its file" in err


def test_a_private_key_is_not_taken_for_a_public_one(cloud_server, server_dir, tmp_path):
    make_key(tmp_path / "robot.key")

    code, _, err = cloud_server(
        "robots", "add", server_dir.root, "r1", "--key", tmp_path / "robot.key"
    )

    assert code == 2
    assert "this is a private key; give the robot's public one, robot.pub" in err
    assert "BEGIN" not in err
    assert Register(server_dir.robots).robots() == ()


def test_a_name_that_is_taken_is_refused(cloud_server, server_dir, line):
    cloud_server("robots", "add", server_dir.root, "r1", "--key", line)

    code, _, err = cloud_server("robots", "add", server_dir.root, "r1", "--key", line)

    assert code == 2
    assert err.startswith("cloud-server: robot r1 is in the register already")


def test_robots_are_listed_as_a_table_and_as_json(cloud_server, server_dir, line):
    cloud_server("robots", "add", server_dir.root, "r1", "--site", "hall", "--key", line)

    _, table, _ = cloud_server("robots", "list", server_dir.root)
    code, out, err = cloud_server("robots", "list", server_dir.root, "--json")

    assert "r1" in table
    assert (code, err) == (0, "")
    (robot,) = json.loads(out)
    assert (robot["name"], robot["site"], robot["key"]) == ("r1", "hall", line)


@pytest.mark.parametrize("command", ["pin", "unpin"])
def test_a_file_that_cannot_be_opened_is_told_on_one_line(cloud_server, server_dir, command):
    lock = server_dir.store / ".lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()

    code, _, told = cloud_server("models", command, server_dir.root, "1")

    assert code == StorageError.exit_code
    assert told == (
        f"cloud-server: {lock}: Is a directory; may this user read and write there, and has the "
        "disk room?"
    )


def test_a_model_is_pinned_listed_as_such_and_unpinned(cloud_server, server_dir):
    root = server_dir.root
    _, told, _ = cloud_server("models", "pin", root, "1")
    _, out, _ = cloud_server("models", "list", root, "--json")
    _, table, _ = cloud_server("models", "list", root)
    cloud_server("models", "unpin", root, "1")
    code, _, refused = cloud_server("models", "pin", root, "7")

    assert f"version 1 stays until `cloud-server models unpin {root} 1`\n" == told
    assert json.loads(out)["pins"] == [1]
    assert "pinned" in table
    assert "yes" in table
    assert DirectoryStore(server_dir.store).pins() == set()
    assert (code, "version 7 is not published" in refused) == (3, True)


def test_models_of_a_channel_that_is_trained_by_itself_are_listed_and_pinned(
    cloud_server, server_dir
):
    root, store = server_dir.root, DirectoryStore(server_dir.store)
    (server_dir.channels / "detector" / "model").mkdir(parents=True)
    store.publish(server_dir.model, "detector", server_dir.model, "detector")
    cloud_server("models", "pin", root, "1", "--channel", "detector")
    _, table, _ = cloud_server("models", "list", root)
    _, out, _ = cloud_server("models", "list", root, "--json")
    code, _, err = cloud_server("models", "unpin", root, "1", "--channel", "detectr")

    assert (store.pins(), store.pins("detector")) == (set(), {1})
    first, second = (line for line in table.splitlines() if "image-classifier" in line)
    assert "1 (detector)" in second
    assert ("detector" in first, "stable" in first, "stable" in second) == (False, True, False)
    assert [one.get("lineage") for one in json.loads(out)["versions"]] == [None, "detector"]
    assert (code, "nothing is published on it" in err) == (2, True)


def test_models_are_listed_as_a_table_and_as_json(cloud_server, server_dir):
    _, table, _ = cloud_server("models", "list", server_dir.root)
    _, out, _ = cloud_server("models", "list", server_dir.root, "--json")

    assert "stable" in table
    listed = json.loads(out)
    assert listed["channels"] == {"stable": 1}
    assert [model["version"] for model in listed["versions"]] == [1]


@pytest.mark.parametrize("command", [("status",), ("train", "--rounds", "1")])
def test_a_server_that_does_not_run_is_exit_code_7(cloud_server, server_dir, command):
    code, out, err = cloud_server(command[0], server_dir.root, *command[1:])

    assert (code, out) == (7, "")
    assert "is it running? Start it with" in err


def test_the_status_of_a_running_server_is_a_table_and_json(cloud_server, running_server, line):
    cloud_server("robots", "add", running_server.server_dir.root, "r1", "--key", line)

    code, table, _ = cloud_server("status", running_server.server_dir.root)
    _, out, _ = cloud_server("status", running_server.server_dir.root, "--json")

    assert code == 0
    assert "r1" in table
    assert "never" in table
    assert json.loads(out)["robots"][0]["online"] is False


def test_a_run_that_fails_gives_its_reason_and_exit_code_and_still_json(
    cloud_server, running_server
):
    code, out, err = cloud_server(
        "train", running_server.server_dir.root, "--rounds", "1", "--json"
    )

    assert code == 10
    assert "0 robots online (none), expected at least 2" in err
    assert json.loads(out)["state"] == "failed"
    _, table, _ = cloud_server("status", running_server.server_dir.root)
    assert "0 of 1" in table
    assert "failed: 0 robots online" in table


def test_rounds_must_be_at_least_one(cloud_server, server_dir):
    code, _, err = cloud_server("train", server_dir.root, "--rounds", "0")

    assert code == 2
    assert "--rounds" in err


def test_a_damaged_settings_file_is_named(cloud_server, server_dir):
    server_dir.settings.write_text("[network]\nprot = 1\n")

    code, _, err = cloud_server("status", server_dir.root)

    assert code == 2
    assert 'server.toml: network.prot: unknown key "prot"; did you mean "port"?' in err


def test_a_second_start_is_refused(cloud_server, running_server):
    code, _, err = cloud_server("start", running_server.server_dir.root)

    assert code == 2
    assert "another `cloud-server start` runs here" in err


def test_a_certificate_is_renewed(cloud_server, server_dir):
    before = (server_dir.certificates / "server.crt").read_bytes()

    code, _, err = cloud_server("renew-certificate", server_dir.root)

    assert code == 0
    assert "new certificate for localhost, 127.0.0.1, ::1; restart the server" in err
    assert (server_dir.certificates / "server.crt").read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--labels", "clear"), "labels are ['clear'], expected at least two, e.g. --labels"),
        (("--labels", " , ,"), "--labels , ,: name 1 is empty"),
        (("--labels", "a,,b"), "--labels a,,b: name 2 is empty"),
        (("--labels", "@none.txt"), "--labels @none.txt: No such file or directory"),
        (("--labels", "a", "b"), "what is 'b' for? Labels have commas between: --labels clear,"),
        (
            ("--labels", "a,b", "--name", "fleet.local:8443"),
            "each: a host name or an IP address, without a port",
        ),
        (("--labels", "a,b", "--name", "_x"), "expected a list; each: a host name or an IP"),
        (
            ("--labels", "a,b", "--host", "not.a.host"),
            "--host not.a.host: no address is known here",
        ),
        ((), "needs the setting 'labels'; it knows labels, backbone, image_size; give it"),
        (("--set", 'labels=["a"]'), "expected at least two"),
        (("--set", "labels=[a, b]"), "--set labels=[a, b]: not a value of TOML"),
        (("--set", "labels"), "--set labels: expected KEY=VALUE"),
        (("--labels", "a,b", "--set", 'labels=["a", "b"]'), "--labels and --set labels=... say"),
        (("--labels", "a,b", "--set", "zoom=2"), "has no setting 'zoom'; it knows labels, backb"),
        (("--labels", "a,b", "--set", "image_size=tiny"), "image_size is 'tiny', expected 32 to"),
        (("--set", "image_size=32", "--set", "image_size=64"), "image_size=... is given twice"),
        (("--workload", "diviner"), "unknown workload 'diviner'; installed here: causal-lm, im"),
        (("--labels", "a,b", "--port", "0"), "--port"),
        (("--labels", "a,b", "--name", "a b"), "names: "),
        (("--labels", "a,b", "--rank", "4"), "--rank goes with --adapter lora: add it"),
        (("--labels", "a,b", "--adapter", "dora"), "--adapter dora: no such adapter, expected lor"),
        (("--labels", "a,b", "--adapter", "lora", "--rank", "0"), "--rank 0: input should be gre"),
        (
            ("--labels", "a,b", "--adapter", "lora", "--adapter-dropout", "1"),
            "--adapter-dropout 1.0: input should be less than 1",
        ),
    ],
)
def test_a_wrong_flag_of_init_makes_nothing(cloud_server, tmp_path, arguments, message):
    code, _, err = cloud_server("init", tmp_path / "server", *arguments)

    assert code == 2
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_init_refuses_a_directory_with_content(cloud_server, server_dir):
    before = sorted(server_dir.root.rglob("*"))

    code, _, err = cloud_server("init", server_dir.root, "--labels", "a,b")

    assert code == 2
    assert "exists and is not empty" in err
    assert sorted(server_dir.root.rglob("*")) == before


def test_labels_come_from_a_file_and_those_that_look_alike_are_told(
    cloud_server, planned, tmp_path
):
    (tmp_path / "labels.txt").write_bytes("\ufeffBrick\r\nbrick\n\n Gras, hoch \n".encode())

    code, _, err = cloud_server("init", tmp_path / "s", "--labels", f"@{tmp_path}/labels.txt")

    assert code == 0
    assert planned[0][1].config["labels"] == ["Brick", "brick", "Gras, hoch"]
    assert "the labels Brick, brick differ in upper and lower case alone" in err


@pytest.fixture
def planned(monkeypatch, server_dir):
    """Replace what init does; return (root, plan) of each call."""
    from cloud_server import initialize

    calls = []

    def record(root, plan, progress):
        calls.append((root, plan))
        return _manifest(server_dir)

    monkeypatch.setattr(initialize, "initialize", record)
    return calls


def _manifest(server_dir):
    from fleet_model.bundle import read_bundle

    return read_bundle(server_dir.model)


def test_init_hands_on_what_the_flags_say(cloud_server, planned, tmp_path):
    code, out, err = cloud_server(
        "init", tmp_path / "s", "--labels", "clear, blocked,", "--image-size", "64",
        "--host", "0.0.0.0", "--port", "9000", "--name", "a.example", "--name", "10.0.0.1",
        "--trainable", "all", "--checkpoint", "own.keras", "--set", "backbone=mobilenet-v2-035",
    )  # fmt: skip

    ((root, plan),) = planned
    assert (code, out, root) == (0, "", tmp_path / "s")
    assert plan.config == {
        "labels": ["clear", "blocked"],
        "backbone": "mobilenet-v2-035",
        "image_size": 64,
    }
    assert (plan.host, plan.port, plan.names) == ("0.0.0.0", 9000, ["a.example", "10.0.0.1"])
    assert (plan.trainable, plan.checkpoint) == ("all", Path("own.keras"))
    assert plan.adapter is None
    assert "cloud-server start" in err
    assert "edge-agent enroll" in err


def test_init_hands_on_what_is_said_of_adapters(cloud_server, planned, tmp_path):
    labels = ("init", tmp_path / "s", "--labels", "a,b", "--adapter", "lora")
    assert cloud_server(*labels)[0] == 0
    patterns = ("--adapter-targets", "Conv_1/*", "--adapter-targets", "head/*")
    assert cloud_server(*labels, "--rank", "4", "--alpha", "2.5", *patterns)[0] == 0

    (_, usual), (_, own) = planned[:2]
    adapter = usual.adapter
    assert (adapter.rank, adapter.alpha, adapter.dropout) == (8, 16, 0)
    assert adapter.patterns == ("*",)
    assert (own.adapter.rank, own.adapter.alpha) == (4, 2.5)
    assert cloud_server(*labels, "--rank", "3")[0] == 0
    assert planned[-1][1].adapter.alpha == 6  # twice the rank
    assert own.adapter.patterns == ("Conv_1/*", "head/*")


def test_init_adds_a_channel_to_a_directory(cloud_server, monkeypatch, server_dir):
    from cloud_server import initialize

    calls = []

    def record(root, channel, plan, progress):
        calls.append((root, channel, plan.workload))
        return _manifest(server_dir)

    monkeypatch.setattr(initialize, "add_channel", record)
    code, out, err = cloud_server(
        "init", server_dir.root, "--channel", "detector", "--workload", "boxes"
    )

    assert (code, out, calls) == (0, "", [(server_dir.root, "detector", "boxes")])
    assert "version 0 is published on channel detector" in err
    assert '[publish] channel = "detector"' in err


def test_a_setting_of_a_workload_is_a_value_of_toml_or_text():
    pairs = ["a=3", "b=0.5", "c=true", 'd=["x", "y"]', "e=hall 1", "f=a=b", "g=", "h=2026-01-01"]
    assert parse_settings(pairs) == {
        "a": 3,
        "b": 0.5,
        "c": True,
        "d": ["x", "y"],
        "e": "hall 1",
        "f": "a=b",
        "g": "",
        "h": "2026-01-01",
    }


def test_without_a_name_robots_use_the_address_that_is_listened_on(cloud_server, planned, tmp_path):
    code, _, _ = cloud_server("init", tmp_path / "s", "--labels", "a,b", "--host", "10.0.0.1")

    ((_, plan),) = planned
    assert code == 0
    assert plan.names == ["10.0.0.1"]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_every_interface_needs_a_name_that_robots_can_reach(cloud_server, planned, tmp_path, host):
    code, _, err = cloud_server("init", tmp_path / "s", "--labels", "a,b", "--host", host)

    assert code == 2
    assert "--name" in err
    assert not planned
