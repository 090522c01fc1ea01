import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.state.learning_settings import TrainingSettings
from cloud_server.state.settings import (
    NetworkSettings,
    RoundSettings,
    ServerSettings,
    load_settings,
    server_toml,
    url_host,
)
from fleet_model.errors import SettingsError
from fleet_model.types import TrainConfig

pytestmark = pytest.mark.base


@pytest.fixture
def toml(tmp_path):
    """Return a writer of server.toml."""

    def write(text=None):
        path = tmp_path / "server.toml"
        path.write_text(
            server_toml(NetworkSettings(), TrainingSettings()) if text is None else text
        )
        return path

    return write


def test_what_init_writes_loads_back_to_the_defaults(toml):
    assert load_settings(toml(), {}) == ServerSettings()


def test_the_defaults_of_training_are_those_that_robots_know():
    assert TrainConfig(**TrainingSettings().model_dump()) == TrainConfig()


positive = st.floats(1e-12, 1e12)
hosts = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", fullmatch=True) | st.ip_addresses(
    v=6
).map(str)


@given(
    host=hosts,
    port=st.integers(1, 65535),
    names=st.lists(hosts, max_size=3),
    training=st.builds(
        TrainingSettings,
        epochs=st.integers(1, 1000),
        batch_size=st.integers(1, 1000),
        learning_rate=positive,
        momentum=st.floats(0, 1, exclude_max=True),
        proximal_mu=positive,
        clip_norm=positive,
        logit_adjustment=positive,
    ),
)
def test_any_settings_written_load_back_to_the_same_values(
    tmp_path_factory, host, port, names, training
):
    network = NetworkSettings(host=host, port=port, names=tuple(names))
    path = tmp_path_factory.mktemp("settings") / "server.toml"
    path.write_text(server_toml(network, training))

    settings = load_settings(path, {})

    assert settings.network == network
    assert settings.training == training


def test_the_environment_overrides_the_file(toml):
    environment = {
        "FLEETLEARN_TRAINING__LEARNING_RATE": "0.5",
        "FLEETLEARN_ROUNDS__QUORUM": "7",
        "FLEETLEARN_NETWORK__NAMES": "robots.example, 10.0.0.1",
        "FLEETLEARN_PUBLISH__CALIBRATION": "photos",
        "UNRELATED": "1",
    }

    settings = load_settings(toml(), environment)

    assert settings.training.learning_rate == 0.5
    assert settings.rounds.quorum == 7
    assert settings.network.names == ("robots.example", "10.0.0.1")
    assert str(settings.publish.calibration) == "photos"


@pytest.mark.parametrize(
    ("value", "names"), [("", ()), (" , ", ()), ("a,", ("a",)), ("a, b", ("a", "b"))]
)
@pytest.mark.parametrize("key", ["robots", "sites", "labels"])
def test_a_variable_without_names_names_nobody(toml, key, value, names):
    settings = load_settings(toml(), {f"FLEETLEARN_ROUNDS__{key.upper()}": value})

    assert getattr(settings.rounds, key) == names


def test_every_key_of_the_file_can_be_overridden(toml):
    path = toml()
    for section, values in ServerSettings().model_dump(mode="json").items():
        for key, value in values.items():
            text = (
                ",".join(value)
                if isinstance(value, list)
                else str("x:1" if value is None else value)
            )
            name = f"FLEETLEARN_{section}__{key}".upper()
            assert isinstance(load_settings(path, {name: text}), ServerSettings), name


OWN = '[aggregation]\nrule = "mine:Rule"\noptions = {beta = 0.2, names = ["a"]}'


def test_a_rule_is_given_with_its_options_in_the_file_or_the_environment(toml):
    written = load_settings(toml(OWN), {}).aggregation
    variables = {
        "FLEETLEARN_AGGREGATION__RULE": "mine:Rule",
        "FLEETLEARN_AGGREGATION__OPTIONS": '{beta = 0.2, names = ["a"]}',
    }

    assert written == load_settings(toml(), variables).aggregation
    assert (written.rule, written.options) == ("mine:Rule", {"beta": 0.2, "names": ["a"]})


def test_options_that_are_no_table_are_refused_with_what_is_expected(toml):
    variables = {"FLEETLEARN_AGGREGATION__OPTIONS": "beta=0.2"}

    with pytest.raises(SettingsError, match=r"__OPTIONS: .*a table as in the file: \{name = value"):
        load_settings(toml(), variables)


@pytest.mark.parametrize("beside", ["", OWN])
def test_the_rule_of_an_older_file_holds_and_its_new_place_is_named(toml, beside):
    old = load_settings(toml(f'[rounds]\naggregator = "mine:Rule"\n{beside}'), {})

    assert old.aggregation.rule == "mine:Rule"
    assert 'write under [aggregation]: rule = "mine:Rule"' in old.moved
    assert not load_settings(toml(OWN), {}).moved


def test_two_rules_in_two_places_are_refused(toml):
    with pytest.raises(
        SettingsError, match=r"rounds.aggregator is 'fedavg' and aggregation.rule is 'mine:Rule'"
    ):
        load_settings(toml(f'[rounds]\naggregator = "fedavg"\n{OWN}'), {})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("FLEETLEARN_EPOCHS", "FLEETLEARN_EPOCHS: no setting .* expected FLEETLEARN_SECTION__KEY"),
        ("FLEETLEARN_A__B__C", "FLEETLEARN_A__B__C: no setting"),
        (
            "FLEETLEARN_TRAINING__EPOHCS",
            '^FLEETLEARN_TRAINING__EPOHCS: unknown key "epohcs"; did you mean "epochs"',
        ),
        (
            "FLEETLEARN_TRAINNG__EPOCHS",
            '^FLEETLEARN_TRAINNG__EPOCHS: unknown section "trainng"; did you mean "training"',
        ),
    ],
)
def test_a_misspelled_variable_is_named(toml, name, message):
    with pytest.raises(SettingsError, match=message):
        load_settings(toml(), {name: "1"})


def test_a_section_that_is_a_value_cannot_be_overridden(toml):
    with pytest.raises(SettingsError, match="expected FLEETLEARN_SECTION__KEY"):
        load_settings(toml("training = 5"), {"FLEETLEARN_TRAINING__EPOCHS": "1"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nepohcs = 3", r'server\.toml: training\.epohcs: unknown key "epohcs"; did'),
        ("[trainng]\nepochs = 3", r'server\.toml: trainng: unknown section "trainng"; did you'),
        (
            '[training]\nepochs = "many"',
            r"training\.epochs: expected a whole number, at least 1 \(got 'many'\)$",
        ),
        ("[training]\nepochs = 0", r"training\.epochs: expected .*, at least 1 \(got 0\)$"),
        ("[sites]\nnum_clusters = 0", r"sites\.num_clusters: expected a whole number, at least 1 "),
        ("[sites]\nnum_clusters = 6", r"sites\.num_clusters: expected .* at most 5 \(got 6\)"),
        ("[training]\nlearning_rate = inf", r"training\.learning_rate: expected a number, above 0"),
        (
            "[rounds]\ntarget = 1\nquorum = 2",
            r"server\.toml: rounds\.target is 1, expected 0 or at least rounds\.quorum \(2\): a "
            "round cannot get more good updates than it asks robots$",
        ),
        ("[training]\nmomentum = 1.0", r"training\.momentum: "),
        ("[rounds]\ndeadline_s = nan", r"rounds\.deadline_s: "),
        ("[rounds]\nquorum = 0", r"rounds\.quorum: "),
        ("[network]\nport = 65536", r"network\.port: "),
        ('[network]\nhost = "a b"', r"network\.host: "),
        ('[network]\nnames = ["https://a"]', r"network\.names: expected a list; each: a host name"),
        ('[publish]\nchannel = "../etc"', r"publish\.channel: "),
        ("training = 5", "training: "),
        ("[training", "not readable TOML"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(toml, text, message):
    with pytest.raises(SettingsError, match=message):
        load_settings(toml(text), {})


def test_a_file_that_is_not_text_is_a_settings_error(tmp_path):
    (tmp_path / "server.toml").write_bytes(b"\xff\xfe")

    with pytest.raises(SettingsError, match="not readable TOML"):
        load_settings(tmp_path / "server.toml", {})


def test_a_missing_file_says_what_makes_one(tmp_path):
    with pytest.raises(SettingsError, match=r"no such file; .*`cloud-server init` makes one"):
        load_settings(tmp_path / "server.toml", {})


def test_an_ipv6_address_stands_in_brackets_in_a_url():
    assert [url_host(name) for name in ("::1", "10.0.0.1", "host")] == ["[::1]", "10.0.0.1", "host"]


def test_buffered_rounds_refill_a_place_so_a_small_target_is_fine():
    assert RoundSettings(mode="buffered", target=2, quorum=3).target == 2
