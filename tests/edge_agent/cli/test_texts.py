"""`edge-agent` with tables of texts, as a person types it."""

import json

import pytest
from typer.testing import CliRunner

from edge_agent.agent.status import Status, write_status
from edge_agent.cli import app
from edge_agent.examples.source import source_of
from edge_agent.robot.settings import load_settings

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
