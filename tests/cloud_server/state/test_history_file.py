import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.state import history_file
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.history_file import Follower, all_lines, newest_lines, read_line
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.protocol.outcome import ACCEPTED


@pytest.fixture
def server_dir(tmp_path):
    return ServerDirectory(tmp_path)


def closed(version, run="a"):
    robots = (RobotRecord(name="r1", site="hall", outcome=ACCEPTED),)
    return RoundRecord(
        run=run, round=version, version=version, seconds=1.5, robots=robots, metrics={}
    )


@given(
    lines=st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b" "))),
    torn=st.binary(max_size=9).map(lambda line: line.replace(b"\n", b" ")),
    block=st.integers(1, 50),
)
def test_lines_from_the_end_are_those_from_the_start_in_reverse(
    tmp_path_factory, lines, torn, block
):
    path = tmp_path_factory.mktemp("history") / "history.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines) + torn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history_file, "BLOCK_BYTES", block)
        backwards = list(newest_lines(path))

    forwards = list(all_lines(path))
    assert [line.content for line in forwards] == [line + b"\n" for line in lines]
    assert backwards == forwards[::-1]
    assert [read_line(path, line.offset) for line in forwards] == forwards


def test_a_file_that_is_not_there_has_no_lines(tmp_path):
    assert list(all_lines(tmp_path / "no")) == list(newest_lines(tmp_path / "no")) == []


@pytest.mark.parametrize("run", ["a", 'with "quotes" \\ and \u00e9', "x" * 300])
def test_the_key_of_a_line_is_found_without_parsing_it(server_dir, run, monkeypatch):
    server_dir.append_history(closed(3, run=run).as_json())
    monkeypatch.delattr(history_file, "parse_record")

    (line,) = all_lines(server_dir.history)

    assert line.key() == (run, 3, 3)


def test_the_key_of_a_line_in_another_spelling_is_found_too(server_dir):
    value = dict(sorted(closed(3).as_json().items()))
    server_dir.history.write_text(json.dumps(value, separators=(",", ":")) + "\n")

    (line,) = all_lines(server_dir.history)

    assert line.key() == ("a", 3, 3)


@pytest.mark.parametrize("content", [b"\n", b"[]\n", b'{"run": "a", "rou\n', b"\xff\n"])
def test_a_line_that_holds_no_round_has_no_key(server_dir, content):
    server_dir.history.write_bytes(content)

    (line,) = all_lines(server_dir.history)

    assert line.key() is line.record() is None


def test_a_follower_gives_every_round_once(server_dir):
    follower = Follower(server_dir.history)
    assert list(follower.new()) == []
    server_dir.append_history(closed(1).as_json())
    assert [record.version for record in follower.new()] == [1]
    assert list(follower.new()) == []
    server_dir.append_history(closed(2).as_json())
    assert [record.version for record in follower.new()] == [2]


def test_a_follower_waits_for_the_end_of_a_line(server_dir):
    follower = Follower(server_dir.history)
    line = json.dumps(closed(1).as_json())
    server_dir.history.write_text(line[:50])
    assert list(follower.new()) == []
    server_dir.history.write_text(line + "\n")

    assert [record.version for record in follower.new()] == [1]


def test_a_follower_begins_again_with_a_history_that_was_replaced(server_dir, tmp_path):
    follower = Follower(server_dir.history)
    for version in (1, 2):
        server_dir.append_history(closed(version).as_json())
    assert len(list(follower.new())) == 2
    other = ServerDirectory(tmp_path / "other")
    other.root.mkdir()
    other.append_history(closed(7).as_json())

    other.history.replace(server_dir.history)

    assert [record.version for record in follower.new()] == [7]


def test_a_follower_continues_where_another_process_stopped(server_dir):
    before = Follower(server_dir.history)
    for version in (1, 2):
        server_dir.append_history(closed(version).as_json())
    assert len(list(before.new())) == 2
    server_dir.append_history(closed(3).as_json())

    after = Follower(server_dir.history, before.position)

    assert not after.is_replaced()
    assert [record.version for record in after.new()] == [3]


def test_a_follower_that_finds_another_history_reads_it_from_its_start(server_dir):
    before = Follower(server_dir.history)
    for version in (1, 2):
        server_dir.append_history(closed(version).as_json())
    assert len(list(before.new())) == 2
    server_dir.history.unlink()
    for version in (1, 7, 8):
        server_dir.append_history(closed(version).as_json())

    after = Follower(server_dir.history, before.position)

    assert after.is_replaced()
    assert [record.version for record in after.new()] == [1, 7, 8]


def test_a_follower_notices_that_the_history_was_removed(server_dir):
    follower = Follower(server_dir.history)
    server_dir.append_history(closed(1).as_json())
    assert len(list(follower.new())) == 1

    server_dir.history.unlink()

    assert follower.is_replaced()
    assert not follower.is_replaced()
    assert list(follower.new()) == []
