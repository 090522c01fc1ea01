"""From a robot kit to key and settings."""

import stat
from contextlib import suppress

import pytest

from edge_agent.cli import main
from edge_agent.cli.enroll import enroll
from edge_agent.data.frames.source import live_name
from edge_agent.examples.example_store import ExampleStore
from edge_agent.robot.settings import ExampleSettings, load_settings
from fleet_model.errors import FrameError, SettingsError
from fleet_model.protocol.proof import public_line, read_key

pytestmark = pytest.mark.base

KIT = 'address = "localhost:8443"\nchannel = "canary"\n'


@pytest.fixture
def kit(tmp_path):
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "kit.toml").write_text(KIT)
    (tmp_path / "kit" / "ca.crt").write_text("a certificate")
    return tmp_path / "kit"


def test_a_kit_becomes_key_settings_and_trust(kit, tmp_path):
    examples = ExampleSettings(paths=(tmp_path / "bags",), topic="/cam")
    line = enroll(kit, tmp_path / "robot", examples, train=False)
    settings = load_settings(tmp_path / "robot" / "agent.toml", {})
    assert (settings.server.address, settings.server.channel) == ("localhost:8443", "canary")
    assert settings.examples == examples
    assert not settings.training.enabled
    assert settings.server.ca.read_text() == "a certificate"
    assert public_line(read_key(settings.server.key).public_key()) == line
    assert (tmp_path / "robot" / "robot.pub").read_text().strip() == line


@pytest.mark.parametrize(
    ("named", "trainer"),
    [('"torch"', "torch"), ('"keras"', "keras"), ('"own:Trainer"', "litert"), ("5", "litert")],
)
def test_a_kit_may_name_a_trainer_of_ours_and_never_code(kit, tmp_path, named, trainer):
    (kit / "kit.toml").write_text(f"{KIT}trainer = {named}\n")
    enroll(kit, tmp_path / "robot", ExampleSettings(), train=True)
    settings = load_settings(tmp_path / "robot" / "agent.toml", {})
    assert (settings.training.trainer, settings.training.enabled) == (trainer, True)


def test_only_its_owner_reads_the_key(kit, tmp_path):
    enroll(kit, tmp_path / "robot", ExampleSettings(), train=True)
    assert stat.S_IMODE((tmp_path / "robot" / "robot.key").stat().st_mode) == 0o600


def test_enrolling_again_keeps_the_key(kit, tmp_path):
    first = enroll(kit, tmp_path, ExampleSettings(), train=True)
    (tmp_path / "agent.toml").unlink()
    (kit / "ca.crt").write_text("a new certificate")
    assert enroll(kit, tmp_path, ExampleSettings(), train=True) == first
    assert (tmp_path / "ca.crt").read_text() == "a new certificate"


def test_settings_that_are_there_stay(kit, tmp_path):
    (tmp_path / "agent.toml").write_text("# mine")
    with pytest.raises(SettingsError, match=r"has an agent\.toml already; remove it"):
        enroll(kit, tmp_path, ExampleSettings(), train=True)
    assert (tmp_path / "agent.toml").read_text() == "# mine"
    assert not (tmp_path / "robot.key").exists()


def test_a_key_that_was_lost_is_made_anew_and_the_settings_stay(kit, tmp_path):
    first = enroll(kit, tmp_path / "r", ExampleSettings(), train=True)
    (tmp_path / "r" / "robot.key").unlink()
    (tmp_path / "r" / "agent.toml").write_text("# mine")
    assert enroll(kit / "kit.toml", tmp_path / "r", ExampleSettings(), train=True) != first
    assert (tmp_path / "r" / "agent.toml").read_text() == "# mine"


def test_the_kit_may_lie_in_the_robots_own_directory(kit):
    enroll(kit, kit, ExampleSettings(), train=True)
    assert (kit / "ca.crt").read_text() == "a certificate"
    assert load_settings(kit / "agent.toml", {}).server.channel == "canary"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        ("address = ", "not readable TOML"),
        ('channel = "stable"\n', "address: is missing; expected host:port"),
        ('address = "somewhere"\nchannel = "stable"\n', "address: expected host:port"),
        (
            'address = "localhost:8443"\nchannel = "no channel"\n',
            "channel: expected lower-case",
        ),
        ('address = "x\\"\\n[training]:1"\nchannel = "stable"\n', "address: expected host:port"),
    ],
)
def test_what_is_no_kit_is_refused_before_anything_is_written(kit, tmp_path, content, reason):
    if content is None:
        (kit / "kit.toml").unlink()
    else:
        (kit / "kit.toml").write_text(content)
    with pytest.raises(SettingsError, match="not a robot kit") as caught:
        enroll(kit, tmp_path / "robot", ExampleSettings(), train=True)
    assert reason in str(caught.value)
    assert "copy the kit folder that `cloud-server init` makes" in str(caught.value)
    assert "edge-agent enroll" not in str(caught.value)  # it is what runs
    assert not (tmp_path / "robot").exists()


def test_a_kit_without_certificate_is_refused(kit, tmp_path):
    (kit / "ca.crt").unlink()
    with pytest.raises(SettingsError, match=r"not a robot kit .*ca\.crt"):
        enroll(kit, tmp_path / "robot", ExampleSettings(), train=True)


def test_a_directory_that_cannot_be_made_is_named(kit, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="file/robot: cannot be written"):
        enroll(kit, tmp_path / "file" / "robot", ExampleSettings(), train=True)


def test_a_damaged_key_is_not_replaced(kit, tmp_path):
    (tmp_path / "robot.key").write_text("damaged")
    with pytest.raises(SettingsError, match=r"robot\.key: not a"):
        enroll(kit, tmp_path, ExampleSettings(), train=True)
    assert (tmp_path / "robot.key").read_text() == "damaged"
    assert not (tmp_path / "agent.toml").exists()


def test_a_robot_directory_that_is_a_file_is_told(kit, tmp_path):
    (tmp_path / "robot").write_text("")
    with pytest.raises(SettingsError, match=r"--dir .*robot: is a file, expected a folder"):
        enroll(kit, tmp_path / "robot", ExampleSettings(), train=True)


def test_a_csv_file_of_labels_that_is_not_there_is_told_before_anything_is_written(
    kit, tmp_path, monkeypatch, capsys
):
    words = ["edge-agent", "enroll", str(kit / "kit.toml"), "--dir", str(tmp_path / "robot")]
    monkeypatch.setattr("sys.argv", [*words, "--label-topic", "labels.csv"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "labels labels.csv: no such file" in capsys.readouterr().err
    assert not (tmp_path / "robot").exists()

    (tmp_path / "labels.csv").write_text("stamp_ns,label\n")
    with suppress(SystemExit):  # kit.toml stands for its folder
        main()
    examples = load_settings(tmp_path / "robot" / "agent.toml", {}).examples
    assert examples.label_topic == str(tmp_path / "labels.csv")
    assert "enrolled; " in capsys.readouterr().err


def test_a_live_topic_stays_what_it_is(kit, tmp_path, monkeypatch, capsys):
    words = ["edge-agent", "enroll", str(kit), "--dir", str(tmp_path / "robot")]
    live = ["--examples", "ros:/camera/image", "--examples", "rtsp://me:s3cret@cam/a"]
    monkeypatch.setattr("sys.argv", words + live)
    with suppress(SystemExit):
        main()
    said = capsys.readouterr()
    settings = load_settings(tmp_path / "robot" / "agent.toml", {})
    assert [live_name(path) for path in settings.examples.paths] == [
        "ros:/camera/image",
        "rtsp://me:s3cret@cam/a",
    ]
    assert "ros:/camera/image: is live and has no labels" in said.err
    assert "no such file" not in said.err
    assert "s3cret" not in said.out + said.err
    store = ExampleStore(settings.examples.paths, "", "", ["clear"])
    with pytest.raises(FrameError, match=r"ros:/camera/image: is live: its frames come once"):
        list(store.examples())
