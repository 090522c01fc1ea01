"""agent.toml and the variables over it: what is accepted, and what a refusal says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.robot.settings import AgentSettings, ExampleSettings, agent_toml, load_settings
from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base

SERVER = '[server]\naddress = "localhost:8443"\n'
# Whatever a file system and UTF-8 can hold.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@pytest.fixture
def load(tmp_path):
    def _load(toml, **environment) -> AgentSettings:
        (tmp_path / "agent.toml").write_text(toml, encoding="utf-8")
        return load_settings(tmp_path / "agent.toml", environment)

    return _load


def refusal(load, toml, **environment):
    with pytest.raises(SettingsError) as caught:
        load(toml, **environment)
    return str(caught.value)


@given(
    paths=st.lists(TEXT, max_size=3),
    topic=TEXT,
    label_topic=TEXT,
    train=st.booleans(),
    spool=st.none() | TEXT,
)
def test_whatever_enroll_writes_reads_back_the_same(
    tmp_path_factory, paths, topic, label_topic, train, spool
):
    folder = tmp_path_factory.getbasetemp()
    examples = ExampleSettings(
        paths=tuple(folder / path for path in paths),
        topic=topic,
        label_topic=label_topic,
        spool=None if spool is None else folder / spool,
    )
    toml = agent_toml("localhost:8443", "canary", examples, train=train)
    (folder / "agent.toml").write_text(toml, encoding="utf-8", newline="")
    settings = load_settings(folder / "agent.toml", {})
    assert settings.examples == examples
    assert (settings.server.address, settings.server.channel) == ("localhost:8443", "canary")
    assert settings.training.enabled is train


def test_what_enroll_writes_are_the_defaults(load, tmp_path):
    written = load(agent_toml("localhost:8443", "stable", ExampleSettings(), train=True))
    assert written == load(SERVER)


def test_relative_paths_are_taken_from_the_files_own_folder(load, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    settings = load(SERVER + '[examples]\npaths = ["bags", "/data/bags"]\n')
    assert settings.state == tmp_path / "state"
    assert settings.server.ca == tmp_path / "ca.crt"
    assert settings.server.key == tmp_path / "robot.key"
    assert settings.report.facts == tmp_path / "facts.json"
    assert settings.examples.paths == (tmp_path / "bags", Path("/data/bags"))


def test_a_variable_overrides_the_file(load):
    settings = load(
        SERVER + '[training]\ntrainer = "litert"\n',
        EDGE_AGENT_TRAINING__TRAINER="keras",
        EDGE_AGENT_TRAINING__THREADS="3",
        EDGE_AGENT_STATE="/var/lib/fleetlearn",
        EDGE_AGENT_EXAMPLES__PATHS="/bags/monday:/bags/tuesday",
    )
    assert settings.training.trainer == "keras"
    assert settings.training.threads == 3
    assert settings.state == Path("/var/lib/fleetlearn")
    assert settings.examples.paths == (Path("/bags/monday"), Path("/bags/tuesday"))


def test_a_spool_is_a_folder_or_none(load, tmp_path):
    assert load(SERVER + '[examples]\nspool = "spool"\n').examples.spool == tmp_path / "spool"
    assert load(SERVER + '[examples]\nspool = ""\n').examples.spool is None
    settings = load(SERVER, EDGE_AGENT_EXAMPLES__SPOOL="/spool", EDGE_AGENT_STORE__MAX_MB="50")
    assert settings.examples.spool == Path("/spool")
    assert settings.store.max_mb == 50
    assert [load(SERVER).examples.wanted, settings.examples.wanted] == [False, True]


def test_labels_in_a_file_are_found_from_the_files_own_folder(load, tmp_path):
    (tmp_path / "labels.csv").write_text("stamp_ns,label\n")
    toml = SERVER + '[examples]\nlabel_topic = "{}"\n'
    for name, expected in [
        ("labels.csv", str(tmp_path / "labels.csv")),
        ("none.csv", "none.csv"),  # so it is a topic
        ("/camera/label", "/camera/label"),
        ("", ""),
        (".", "."),
    ]:
        assert load(toml.format(name)).examples.label_topic == expected


def test_variables_alone_are_enough(load):
    assert load("", EDGE_AGENT_SERVER__ADDRESS="localhost:8443").server.channel == "stable"


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        (
            SERVER + "[training]\ntrainr = 'keras'\n",
            'training.trainr: unknown key "trainr"; did you mean "trainer"?',
        ),
        (
            SERVER + "[trainning]\n",
            'trainning: unknown section "trainning"; did you mean "training"?',
        ),
        (
            SERVER + "[engine]\nprecision = 'fp16'\n",
            'engine.precision: expected "fp32" or "int8" (got',
        ),
        (SERVER + "[poll]\nidle_s = 0\n", "poll.idle_s: expected a number, above 0 (got 0)"),
        (SERVER + "[store]\nmax_mb = 0\n", "store.max_mb: expected a number, above 0"),
        (SERVER + "[server]\n", "not readable TOML"),
        ("server = [", "not readable TOML"),
        ("state = 'elsewhere'\n", "server: is missing; expected a section with keys"),
        ("[server]\n", "server.address: is missing; expected host:port"),
    ],
)
def test_a_refusal_names_file_and_key(load, tmp_path, toml, reason):
    text = refusal(load, toml)
    assert text.startswith(f"{tmp_path}/agent.toml: {reason}")
    assert "\n" not in text


def test_what_is_missing_is_not_answered_with_all_there_is(load):
    assert refusal(load, "state = 'elsewhere'\n").endswith(
        "server: is missing; expected a section with keys"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EDGE_AGENT_TRAINING__THREADS", "many"),
        ("EDGE_AGENT_ENGINE__THREDS", "1"),
        ("EDGE_AGENT_ENGIN__THREADS", "1"),
        ("EDGE_AGENT_TYPO", "1"),
        ("EDGE_AGENT_SERVER__ADDRESS__PORT", "1"),
        ("EDGE_AGENT_STATE__DEEPER", "1"),
    ],
)
def test_a_wrong_variable_is_named_instead_of_the_file(load, name, value):
    text = refusal(load, 'state = "state"\n' + SERVER, **{name: value})
    assert text.startswith(name + ":")


@pytest.mark.parametrize(
    "address", ["localhost:8443", "10.0.0.7:1", "robots.example.org:65535", "[fe80::1]:8443"]
)
def test_an_address_is_host_and_port(load, address):
    assert load(f'[server]\naddress = "{address}"\n').server.address == address


@pytest.mark.parametrize(
    "address",
    [
        "localhost", "localhost:", ":8443", "localhost:0", "localhost:65536", "https://localhost:1",
        "bob@localhost:1", "localhost:1/", "::1:8443", "[::1:8443", "a b:1", "a?b:1", "a#b:1",
        "localhost:8443\\n", "localhost:\\u0661",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(load, address):
    assert "server.address: " in refusal(load, f'[server]\naddress = "{address}"\n')


def test_a_missing_file_names_the_command_that_makes_one(tmp_path):
    with pytest.raises(
        SettingsError, match=r"agent\.toml: no such file; `edge-agent enroll` makes"
    ):
        load_settings(tmp_path / "agent.toml", {})


@pytest.mark.parametrize("kind", ["directory", "latin-1"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, kind):
    path = tmp_path / "agent.toml"
    if kind == "directory":
        (path / "agent.toml").mkdir(parents=True)  # a folder is looked into, once
    else:
        path.write_bytes(SERVER.encode() + b'state = "caf\xe9"\n')
    with pytest.raises(SettingsError, match=r"agent\.toml: not readable TOML"):
        load_settings(path, {})


def test_names_in_utf8_are_read_whatever_the_locale_says(tmp_path):
    (tmp_path / "agent.toml").write_text('state = "zustände"\n' + SERVER, encoding="utf-8")
    code = "import sys; from pathlib import Path\n"
    code += "from edge_agent.robot.settings import load_settings\n"
    code += "print(ascii(load_settings(Path(sys.argv[1])).state.name))"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "agent.toml")],
        env={**os.environ, **plain, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        check=True,
        text=True,
    )
    assert done.stdout.strip() == ascii("zustände")
