from cloud_server.monitoring.totals import Ledger
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.round_record import NO_REPLY, RobotRecord, RoundRecord


def closed(version, seconds=5.0):
    return RoundRecord(
        run="a",
        round=version,
        version=version,
        seconds=seconds,
        robots=(
            RobotRecord(name="r1", site="s", outcome="accepted", update_bytes=100, weight=7),
            RobotRecord(name="r2", site="s", outcome="refused: x", update_bytes=50),
            RobotRecord(name="r3", site="s", outcome=NO_REPLY),
        ),
        metrics={},
        late=2,
    )


def test_a_ledger_adds_up_what_was_appended_since_it_looked_last(tmp_path):
    server_dir = ServerDirectory(tmp_path)
    ledger = Ledger(server_dir.history)
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
    ledger = Ledger(server_dir.history)
    server_dir.append_history(closed(1).as_json())
    first = ledger.totals()
    server_dir.append_history(closed(2).as_json())
    ledger.totals()

    assert first.rounds == 1
    assert first.updates["accepted"] == 1
    assert first.within[10] == 1


def test_without_a_history_everything_is_zero(tmp_path):
    totals = Ledger(tmp_path / "history.jsonl").totals()

    assert (totals.rounds, totals.last) == (0, None)
