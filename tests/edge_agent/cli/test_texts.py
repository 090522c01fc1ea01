"""`edge-agent` with tables of texts, as a person types it."""

import csv
import json
import sys
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).parents[1] / "models"))
from letters_workload import install

from edge_agent.agent.status import Status, write_status
from edge_agent.cli import app
from edge_agent.examples.source import source_of
from edge_agent.robot.settings import load_settings
from fleet_model.durable import point_durably
from fleet_model.errors import LossError

LABELS = ("billing", "repair")
COLUMNS = "text in 'body' (by its name), labels in 'queue' (by the fleet's labels)"


def type_(*words, code=0):
    """Return (stdout, stderr) of a command."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout, done.stderr


@pytest.fixture
def tickets(tmp_path):
    path = tmp_path / "tickets.csv"
    rows = [f'T-{n},"ticket number {n}, please",{LABELS[n % 2]}' for n in range(60)]
    path.write_text("\n".join(["id,body,queue", *rows]) + "\n")
    return path


@pytest.fixture
def desk(tmp_path, tickets):
    """Return the folder of a robot that was enrolled with a table, and what was said."""
    kit = tmp_path / "kit"
    kit.mkdir()
    (kit / "kit.toml").write_text('address = "localhost:8443"\nlabels = ["billing", "repair"]\n')
    (kit / "ca.crt").write_text("a certificate")
    _, told = type_("enroll", kit, "--dir", tmp_path / "desk", "--examples", tickets)
    return tmp_path / "desk", told


def test_enroll_knows_a_table_and_says_what_it_reads(desk, tickets):
    folder, told = desk
    assert f"{tickets}: 60 examples, {COLUMNS}" in told
    assert "can train: " in told
    settings = load_settings(folder, {})
    assert (settings.examples.source, settings.examples.paths) == ("texts", (tickets,))


def test_the_status_tells_what_the_last_round_has_read(desk):
    folder, _ = desk
    settings = load_settings(folder, {})
    write_status(settings.state, Status(name="desk", site="hall", state="idle"))
    assert "texts" not in type_("status", "--config", folder)[0]
    held_out = sum(one.held_out for one in source_of(settings).open(LABELS).examples())
    lines = type_("status", "--config", folder)[0].splitlines()
    assert f"texts    tickets.csv: {COLUMNS}" in lines
    assert f"texts    {60 - held_out} to learn from, {held_out} held out" in lines
    told = json.loads(type_("status", "--config", folder, "--json")[0])["texts"]
    assert told["tables"] == [{"name": "tickets.csv", "columns": COLUMNS}]
    assert (told["training"], told["held_out"], told["left_out"]) == (60 - held_out, held_out, {})


@pytest.fixture
def running(desk, tmp_path, monkeypatch):
    """Return the folder of a robot whose model answers texts."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    models = load_settings(desk[0], {}).state / "models"
    models.mkdir(parents=True)
    install(tmp_path / "site", models / "000001-aaaaaaaa", (*LABELS, "other"))
    point_durably(models / "current", "000001-aaaaaaaa")
    return desk[0]


def test_predict_answers_a_table_with_the_model_in_use(running, tickets, tmp_path):
    files = tmp_path / "answers.csv", tmp_path / "matrix.png"
    out, _ = type_(
        "predict", tickets, "--config", running, "--csv", files[0], "--confusion", files[1]
    )
    rows = list(csv.DictReader(files[0].open()))
    assert [row["id"] for row in rows] == [f"T-{n}" for n in range(60)]
    assert out.startswith("version 1: 60 texts; accuracy 0.")
    assert COLUMNS in out
    assert cv2.imread(str(files[1])) is not None
    alone, _ = type_("predict", "--config", running, "--csv", files[0])  # the robot's own
    assert alone.startswith("version 1: 60 texts; accuracy 0.")


def test_columns_are_named_on_the_command_line_or_in_agent_toml(running, tickets):
    named = "--text-column", "id", "--text-column", "body", "--label-column", "queue"
    out, _ = type_("predict", tickets, "--config", running, *named, "--json")
    (note,) = json.loads(out)["summary"]["notes"]
    assert note == "text in 'id' and 'body' (as named), labels in 'queue' (as named)"
    toml = (running / "agent.toml").read_text()
    (running / "agent.toml").write_text(toml.replace("options = {}", 'options = {text = "id"}'))
    out, _ = type_("predict", tickets, "--config", running, "--json")
    assert json.loads(out)["summary"]["notes"][0].startswith("text in 'id' (as named), labels")


def test_a_table_with_damage_is_answered_and_ends_with_13(running, tickets):
    tickets.write_text(tickets.read_text() + "T-60,,billing\n")
    with pytest.raises(
        LossError, match=r"^done, with losses: 1 x without a text, first tickets\.c"
    ):
        type_("predict", tickets, "--config", running)
