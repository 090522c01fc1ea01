"""cloud-server simulate, as it is called."""

import json

import cv2
import pytest
from typer.testing import CliRunner

from cloud_server.cli import app
from cloud_server.state.learning_settings import TrainingSettings
from cloud_server.state.settings import NetworkSettings, server_toml
from fleet_model.errors import SettingsError


def simulate(*words):
    return CliRunner().invoke(app, ["simulate", "--robots", "8", "--rounds", "2", *words])


def answer(*words):
    done = simulate("--json", *words)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_people_see_a_line_a_round_and_what_it_adds_up_to():
    done = simulate("--off", "0", "--drop", "0")
    head, first, second, closing, traffic = done.stdout.splitlines()
    assert head.split() == [
        "round", "asked", "accepted", "late", "gone", "refused", "seconds", "accuracy",
    ]  # fmt: skip
    assert first.split()[:6] == ["1", "8", "8", "0", "0", "0"]
    assert second.split()[0] == "2"
    assert closing.startswith("2 rounds: ")
    assert "100% of the questions used" in traffic


def test_programs_get_json_and_nothing_else():
    result = answer("--off", "0", "--drop", "0")
    assert [line["accepted"] for line in result["rounds"]] == [8, 8]
    assert result["summary"]["rounds"] == 2
    assert result["summary"]["accuracy"] == result["rounds"][-1]["accuracy"]


def test_the_same_seed_gives_the_same_rounds():
    assert answer("--seed", "3")["rounds"] == answer("--seed", "3")["rounds"]
    assert answer("--seed", "3")["rounds"] != answer("--seed", "4")["rounds"]


def test_a_round_that_does_not_close_is_told_with_its_reason():
    done = simulate("--deadline", "0.5", "--quorum", "8", "--off", "0")
    assert done.exit_code == 0
    assert "did not close: round 1: " in done.stdout
    assert "0 rounds, 2 did not close" in done.stdout


def test_flags_stand_over_the_settings_of_a_server_directory(tmp_path):
    text = server_toml(NetworkSettings(), TrainingSettings(epochs=1))
    (tmp_path / "server.toml").write_text(text.replace("target = 0", "target = 4"))
    sure = "--off", "0", "--drop", "0"
    assert [line["asked"] for line in answer(str(tmp_path), *sure)["rounds"]] == [4, 4]
    assert answer(str(tmp_path), *sure, "--target", "5")["rounds"][0]["asked"] == 5


def test_settings_that_are_not_simulated_are_named(tmp_path):
    text = server_toml(NetworkSettings(), TrainingSettings(epochs=1))
    for before, after in [
        ('compression = "none"', 'compression = "int8"'),
        ("[sites]\nenabled = false", "[sites]\nenabled = true"),
        ("personal = []", 'personal = ["head/bias"]'),
        ('query = ""', 'query = "docked"'),
    ]:
        lines = text.splitlines()
        section, _, key = before.rpartition("\n")
        at = lines.index(section) if section else 0
        row = next(n for n in range(at, len(lines)) if lines[n] == key)
        lines[row] = after.rpartition("\n")[2]
        text = "\n".join(lines) + "\n"
    (tmp_path / "server.toml").write_text(text)

    done = simulate(str(tmp_path), "--json")

    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)["not_simulated"]
    assert [one.partition(":")[0] for one in told] == [
        "sites.enabled",
        'rounds.compression = "int8"',
        "aggregation.personal",
        "rounds.query",
    ]
    assert done.stderr.splitlines() == [f"WARNING: not simulated: {one}" for one in told]
    plain = simulate()
    assert plain.stderr == ""


def test_a_plot_is_a_picture(tmp_path):
    assert simulate("--plot", str(tmp_path / "p.png")).exit_code == 0
    assert cv2.imread(str(tmp_path / "p.png")).shape[1] == 1600


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mode", "fast"], '--mode: expected "sync" or "buffered" (got \'fast\')'),
        (["--deadline", "0"], "--deadline: "),
        (["--quorum", "9"], "8 robots cannot give a quorum of 9"),
        (["--target", "3", "--quorum", "4"], "rounds.target is 3"),
        (["nowhere"], "nowhere"),
    ],
    ids=str,
)
def test_wrong_settings_are_named(words, message):
    done = simulate(*words)
    assert isinstance(done.exception, SettingsError)
    assert message in str(done.exception)


def test_a_rule_with_its_options_is_simulated(tmp_path):
    (tmp_path / "server.toml").write_text('[aggregation]\nrule = "median"\n')
    sure = "--off", "0", "--drop", "0"
    by_flags = answer(*sure, "--rule", "median", "--option", "memory_mb=0.0001")["rounds"]

    assert by_flags == answer(str(tmp_path), *sure)["rounds"]  # in other pieces, with the same bits
    assert by_flags != answer(*sure)["rounds"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--option", "beta"), "--option beta: expected NAME=VALUE"),
        (
            ("--rule", "median", "--option", "beta=1"),
            "median has no option beta, expected memory_mb",
        ),
        (
            ("--rule", "median", "--option", "memory_mb=x"),
            "memory_mb of rule median is 'x', expected",
        ),
        (("--rule", "fedex_lora"), "rule fedex_lora is for adapters, and the model of a simul"),
    ],
)
def test_a_wrong_option_is_named(words, message):
    done = simulate(*words)

    assert isinstance(done.exception, SettingsError)
    assert message in str(done.exception)
