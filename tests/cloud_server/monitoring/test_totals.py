import pytest

from cloud_server.monitoring import totals as totals_module
from cloud_server.monitoring.totals import RunningTotals
from cloud_server.state import history_file
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.protocol.outcome import ACCEPTED, NO_REPLY, Outcome


def closed(version, seconds=5.0):
    return RoundRecord(
        run="a",
        round=version,
        version=version,
        seconds=seconds,
        robots=(
            RobotRecord(name="r1", site="s", outcome=ACCEPTED, update_bytes=100, weight=7),
            RobotRecord(name="r2", site="s", outcome=Outcome("refused", "x"), update_bytes=50),
            RobotRecord(name="r3", site="s", outcome=NO_REPLY),
        ),
        metrics={},
        late=2,
    )


def test_a_ledger_adds_up_what_was_appended_since_it_looked_last(tmp_path):
    server_dir = ServerDirectory(tmp_path)
    ledger = RunningTotals(server_dir.history, server_dir.totals)
    server_dir.append_history(closed(1, seconds=5.0).as_json())
    first = ledger.totals()
    server_dir.append_history(closed(2, seconds=100.0).as_json())
    second = ledger.totals()

    assert (first.rounds, first.seconds, first.update_bytes, first.examples) == (1, 5.0, 150, 7)
    assert (second.rounds, second.seconds, second.update_bytes, second.examples) == (
        2,
        105,
        300,
        14,
    )
    assert second.updates == {"accepted": 2, "refused": 2, "no_reply": 2}
    assert second.late == 4
    assert (second.within[3], second.within[10], second.within[180]) == (0, 1, 2)
    assert second.last == closed(2, seconds=100.0)


def test_what_a_ledger_has_given_does_not_change_any_more(tmp_path):
    server_dir = ServerDirectory(tmp_path)
    ledger = RunningTotals(server_dir.history, server_dir.totals)
    server_dir.append_history(closed(1).as_json())
    first = ledger.totals()
    server_dir.append_history(closed(2).as_json())
    ledger.totals()

    assert first.rounds == 1
    assert first.updates["accepted"] == 1
    assert first.within[10] == 1


def test_without_a_history_everything_is_zero(tmp_path):
    totals = RunningTotals(tmp_path / "history.jsonl", tmp_path / "totals.json").totals()

    assert (totals.rounds, totals.last) == (0, None)


@pytest.fixture
def server_dir(tmp_path):
    """A server whose ledger has summed up and written down three rounds, and has seen a fourth."""
    server_dir = ServerDirectory(tmp_path / "server")
    server_dir.root.mkdir()
    ledger = RunningTotals(server_dir.history, server_dir.totals)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(totals_module, "SAVE_ROUNDS", 3)
        for version in (1, 2, 3, 4):
            server_dir.append_history(closed(version).as_json())
            ledger.totals()
    return server_dir


def read_from_the_start(server_dir):
    return RunningTotals(server_dir.history, server_dir.root / "no.json").totals()


def test_the_next_process_parses_only_the_lines_that_were_not_written_down(server_dir, monkeypatch):
    parsed = []
    parse = history_file.parse_record
    monkeypatch.setattr(
        history_file, "parse_record", lambda line: parsed.append(line) or parse(line)
    )

    totals = RunningTotals(server_dir.history, server_dir.totals).totals()

    assert len(parsed) == 2  # the last one of the sums, for what it says, and the fourth
    assert totals == read_from_the_start(server_dir)
    assert totals.last == closed(4)


def test_the_last_round_of_the_sums_is_known_without_a_new_one(server_dir):
    lines = server_dir.history.read_bytes().splitlines(keepends=True)
    server_dir.history.write_bytes(b"".join(lines[:3]))

    totals = RunningTotals(server_dir.history, server_dir.totals).totals()

    assert (totals.rounds, totals.last) == (3, closed(3))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2}', "\ufffd"])
def test_sums_that_cannot_be_read_are_made_again(server_dir, content):
    server_dir.totals.write_text(content)

    totals = RunningTotals(server_dir.history, server_dir.totals).totals()

    assert totals == read_from_the_start(server_dir)


def test_sums_of_another_history_do_not_count(server_dir):
    server_dir.history.unlink()
    for version in (11, 12, 13, 14, 15):
        server_dir.append_history(closed(version, seconds=9.0).as_json())

    totals = RunningTotals(server_dir.history, server_dir.totals).totals()

    assert (totals.rounds, totals.seconds, totals.last) == (5, 45.0, closed(15, seconds=9.0))


def test_a_history_that_is_replaced_under_a_running_server_is_summed_up_alone(server_dir):
    ledger = RunningTotals(server_dir.history, server_dir.totals)
    assert ledger.totals().rounds == 4
    server_dir.history.unlink()
    server_dir.append_history(closed(11).as_json())

    assert ledger.totals().rounds == 1


def test_a_full_disk_costs_only_the_sums_on_disk(server_dir, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(totals_module, "write_durably", full)
    monkeypatch.setattr(totals_module, "SAVE_ROUNDS", 1)

    assert RunningTotals(server_dir.history, server_dir.totals).totals().rounds == 4
