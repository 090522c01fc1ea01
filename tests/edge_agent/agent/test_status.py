"""status.json: written whole, read with a clear word."""

import logging

import pytest

from edge_agent.agent.status import KEEP, Status, StatusFile, read_status, write_status
from fleet_model.errors import SettingsError
from fleet_model.protocol.report import Standing

pytestmark = pytest.mark.base


def test_what_was_written_is_read(tmp_path):
    write_status(tmp_path / "state", Status(name="r1", state="idle", active_version=3))
    answer = read_status(tmp_path / "state")
    assert (answer["name"], answer["state"], answer["active_version"]) == ("r1", "idle", 3)


def test_before_the_first_run_it_is_empty(tmp_path):
    assert read_status(tmp_path) == {}


def test_it_stays_short_and_keeps_the_newest(tmp_path):
    rounds = [{"round": number} for number in range(KEEP + 20)]
    status = Status(rounds=rounds, publishes=list(rounds))
    write_status(tmp_path, status)
    for kept in (read_status(tmp_path)["rounds"], read_status(tmp_path)["publishes"]):
        assert [record["round"] for record in kept] == list(range(20, KEEP + 20))


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[1]", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "status.json"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"status\.json: cannot be read"):
        read_status(tmp_path)


def test_what_the_agent_says_is_on_disk_at_once(tmp_path):
    file = StatusFile(tmp_path, "litert")
    file.set_state("offline", "no answer")
    answer = read_status(tmp_path)
    assert (answer["state"], answer["reason"], answer["trainer"]) == (
        "offline", "no answer", "litert"
    )  # fmt: skip
    file.set_state("idle")
    assert read_status(tmp_path)["reason"] == ""


def test_the_last_error_of_every_kind_outlives_its_end_and_a_restart(tmp_path):
    for tell in ("set_not_installed", "set_failure"):
        file = StatusFile(tmp_path, "litert")
        getattr(file, tell)(f"reason of {tell}")
        getattr(file, tell)("")
        file.set_state("stopped")
        StatusFile(tmp_path, "litert").set_state("starting")
        answer = read_status(tmp_path)
        assert (answer["last_error"], answer["reason"]) == (f"reason of {tell}", "")
        assert answer["last_error_at"].startswith("20")


def test_a_refusal_is_no_last_error_any_more_once_the_robot_is_admitted(tmp_path):
    StatusFile(tmp_path, "litert").set_state("refused", "unknown robot key SHA256:1")
    file = StatusFile(tmp_path, "litert")  # it was restarted meanwhile
    file.update_standing(Standing(state="pending"))
    assert read_status(tmp_path)["last_error"] == "unknown robot key SHA256:1"
    file.update_standing(Standing())
    assert read_status(tmp_path)["last_error"] == read_status(tmp_path)["last_error_at"] == ""
    file.set_state("offline", "no answer")
    file.update_standing(Standing())
    assert read_status(tmp_path)["last_error"] == "no answer"


def test_a_disk_that_cannot_be_written_is_no_reason_to_stop(tmp_path, caplog):
    (tmp_path / "state").write_text("a file")
    StatusFile(tmp_path / "state", "litert").set_state("idle")
    assert "the status cannot be written" in caplog.text


def test_a_standing_is_logged_when_it_changes_and_kept(tmp_path, caplog):
    file = StatusFile(tmp_path, "litert")
    with caplog.at_level(logging.INFO):
        for standing in (
            Standing(),
            Standing(),
            Standing(state="pending"),
            Standing(state="suspended", reason="3 refused updates"),
            Standing(state="suspended", reason="3 refused updates"),
            Standing(),
        ):
            file.update_standing(standing)
            answer = read_status(tmp_path)
            told = Standing(state=answer["standing"], reason=answer["standing_reason"])
            assert told == standing
    assert [record.getMessage() for record in caplog.records] == [
        "this robot takes no part in training: pending (no reason given)",
        "this robot takes no part in training: suspended (3 refused updates)",
        "this robot may take part in training again",
    ]


def test_a_notice_is_logged_once_also_over_a_restart_and_kept(tmp_path, caplog):
    first, second = (
        Standing(notice=f"run a round {number}: refused", notice_id=str(number))
        for number in (1, 2)
    )
    for standing in (first, first, Standing(), first):
        StatusFile(tmp_path, "litert").update_standing(standing)
        assert read_status(tmp_path)["last_notice"] == "run a round 1: refused"
    StatusFile(tmp_path, "litert").update_standing(second)
    assert read_status(tmp_path)["last_notice"] == "run a round 2: refused"
    assert caplog.text.count("round 1") == caplog.text.count("round 2") == 1


def test_what_a_store_holds_is_remembered(tmp_path):
    file = StatusFile(tmp_path, "litert")
    file.set_state("training")
    file.count_ingest({"examples": 40})
    answer = read_status(tmp_path)
    assert (answer["state"], answer["examples"], answer["ingest"]) == (
        "training", 40, {"examples": 40}
    )  # fmt: skip
    assert StatusFile(tmp_path, "litert").status.examples == 40


@pytest.mark.parametrize("content", ["{", '{"examples": "many", "last_notice": 3}'])
def test_a_damaged_file_is_written_anew(tmp_path, content):
    (tmp_path / "status.json").write_text(content)
    StatusFile(tmp_path, "litert").set_state("idle")
    assert read_status(tmp_path)["state"] == "idle"
    assert read_status(tmp_path)["examples"] is None
