"""A server that is killed anywhere in its rounds ends as one that was left alone."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from timed_robots import BUFFERED, CHECKS, REQUEST, START, Robots, changed, outcomes, update
from timed_robots import RULES as PATIENT

from cloud_server.rounds.fleet import Reply
from cloud_server.rounds.round_journal import DiskJournal
from cloud_server.state.checkpoints import Checkpoints
from fleet_model.errors import StoppedError
from fleet_model.protocol.outcome import NO_REPLY, Outcome

ROUNDS = 3
RULES = changed(PATIENT, deadline_s=12.0)  # each round has a straggler
JUDGING = changed(CHECKS, max_norm_ratio=10.0)


def trained_by(name):
    """Return what a robot answers: it depends on the robot and the checkpoint, and on no time."""

    def answer(request):
        version = request.checkpoint.version
        rng = np.random.default_rng([zlib.crc32(name.encode()), version])
        weights = {"w": rng.normal(size=3).astype(np.float32)}
        count = int(rng.integers(1, 100))
        return update(base_version=version, weights=weights, num_examples=count)

    return answer


def fleet(delays):
    robots = {n: {"after": d, "answer": trained_by(n)} for n, d in delays.items()}
    return Robots(
        {**robots, "sick": {"answer": Outcome("failed", "no frames")}, "gone": {"after": 1e6}}
    )


class Killed(BaseException):
    """SIGKILL, as far as one process can play it: nothing after it has an effect."""


class Killer:
    """Count what reaches the disk or the fleet, and die before one of them."""

    PATCHED = (
        (os, "fsync"),
        (os, "truncate"),
        (shutil, "rmtree"),
        (Path, "replace"),
        (Path, "rename"),
        (Path, "unlink"),
        (Path, "mkdir"),
        (Robots, "send"),
        (Robots, "replies"),
    )

    def __init__(self, after):
        self.after, self.steps = after, 0

    def __enter__(self):
        self.patch = pytest.MonkeyPatch()
        for owner, name in self.PATCHED:
            self.patch.setattr(owner, name, self.counted(getattr(owner, name)))
        return self

    def counted(self, function):
        def step(*arguments, **more):
            if self.steps >= self.after:
                raise Killed
            self.steps += 1
            return function(*arguments, **more)

        return step

    def __exit__(self, *_):
        self.patch.undo()


def serve(robots, directory, rules=RULES):
    """Do what a run does, from wherever the one before was killed; return the last checkpoint."""
    journal, checkpoints = DiskJournal(directory / "run"), Checkpoints(directory / "checkpoints")
    if not checkpoints.versions():
        checkpoints.save(START)
    while (start := checkpoints.latest()).version < START.version + ROUNDS:
        number = start.version - START.version + 1
        request = replace(REQUEST, round=number, checkpoint=start)
        done, record = robots.round(rules, request=request, journal=journal, checks=JUDGING)
        checkpoints.save(done, record)
        journal.close(number)
    return start


def serve_and_kill(robots, directory, kills, rules=RULES):
    for after in kills:
        with Killer(after):
            try:
                return serve(robots, directory, rules)
            except Killed:
                pass
    return serve(robots, directory, rules)


def bits(checkpoint):
    state = checkpoint.server_state
    return [checkpoint.weights["w"].tobytes(), *(state[name].tobytes() for name in sorted(state))]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    with Killer(10**9) as count:
        last = serve(fleet({"a": 1, "b": 2, "c": 3}), tmp_path_factory.mktemp("undisturbed"))
    return bits(last), count.steps


@pytest.mark.slow
def test_a_server_killed_before_any_step_ends_with_the_same_bits(undisturbed, tmp_path):
    expected, steps = undisturbed
    # Every step to the disk and to the fleet; of the many looks for replies a few are enough.
    assert steps > 100
    for after in [*range(50), *range(50, steps, 17)]:
        directory = tmp_path / str(after)
        last = serve_and_kill(fleet({"a": 1, "b": 2, "c": 3}), directory, [after])
        assert bits(last) == expected, after
        assert len(Checkpoints(directory / "checkpoints").records()) == ROUNDS


@settings(max_examples=15, deadline=None)
@given(
    kills=st.lists(st.integers(0, 300), max_size=5),
    delays=st.permutations([0.5, 1.0, 7.0]),
)
def test_neither_several_kills_nor_who_is_faster_change_a_bit(undisturbed, kills, delays):
    expected, _ = undisturbed
    with tempfile.TemporaryDirectory() as directory:
        robots = fleet(dict(zip("abc", delays, strict=True)))
        assert bits(serve_and_kill(robots, Path(directory), kills)) == expected


@settings(max_examples=15, deadline=None)
@given(kills=st.lists(st.integers(0, 300), max_size=5))
def test_buffered_rounds_fold_no_update_twice_however_often_they_are_killed(kills):
    robots = fleet({"a": 5, "b": 8, "c": 30})
    with tempfile.TemporaryDirectory() as directory:
        last = serve_and_kill(robots, Path(directory), kills, BUFFERED)
        records = Checkpoints(Path(directory) / "checkpoints").records()

    assert last.version == START.version + ROUNDS
    assert [record.round for record in records] == [1, 2, 3]
    folded = [
        (robot.name, record.version - robot.staleness)
        for record in records
        for robot in record.robots
        if robot.accepted
    ]
    assert len(folded) == len(set(folded)) >= ROUNDS * BUFFERED.quorum


def test_a_reply_that_was_kept_is_not_asked_for_again_and_open_questions_are_awaited(tmp_path):
    robots = fleet({"a": 1, "b": 11})
    del robots.robots["sick"], robots.robots["gone"]
    killed_at = robots.begin + 5

    def sleep(seconds):
        robots.now += seconds
        if robots.now > killed_at:
            raise Killed

    robots.sleep = sleep
    with pytest.raises(Killed):
        robots.round(journal=DiskJournal(tmp_path))
    killed_at = 1e9

    _, record = robots.round(journal=DiskJournal(tmp_path))

    assert [names for _, names, _ in robots.sent] == [["a", "b"]]
    assert outcomes(record) == {"a": "accepted", "b": "accepted"}
    assert robots.now - robots.begin < 12


class Telling(Robots):
    """It answers for questions that have expired, as Flower's does; Robots only knows of them."""

    def replies(self, tickets):
        arrived = super().replies(tickets)
        lost = set(tickets) - self.still_open(tickets)
        self.last |= lost
        return [*arrived, *(Reply(ticket=ticket, outcome=NO_REPLY) for ticket in lost)]


@pytest.mark.parametrize("kind", [Robots, Telling])
def test_a_question_that_expires_before_the_new_deadline_is_asked_once_more(tmp_path, kind):
    rules = changed(PATIENT, deadline_s=100.0)
    robots = kind({"a": {}, "b": {"after": 1e6}, "deaf": {"after": 1e6}})
    with pytest.raises(StoppedError):
        robots.round(
            rules, journal=DiskJournal(tmp_path), stop=lambda: robots.now - robots.begin > 50
        )
    robots.robots["b"] = {"after": 5}

    _, record = robots.round(rules, journal=DiskJournal(tmp_path))

    assert outcomes(record) == {"a": "accepted", "b": "accepted", "deaf": NO_REPLY.text}
    assert [names for _, names, _ in robots.sent] == [["a", "b", "deaf"], ["b", "deaf"]]
    assert 35 < robots.sent[1][2] < 51
    assert record.asked == 3


def test_a_question_that_is_known_to_have_expired_after_the_deadline_was_asked(tmp_path):
    robots = Telling({"a": {}, "b": {}, "deaf": {"after": 1e6}})
    with pytest.raises(StoppedError):
        robots.round(journal=DiskJournal(tmp_path), stop=lambda: robots.now - robots.begin > 5)

    def sleep(_):
        robots.now += 200

    robots.sleep = sleep
    _, record = robots.round(PATIENT, journal=DiskJournal(tmp_path))

    assert outcomes(record)["deaf"] == NO_REPLY.text
    assert record.asked == 3


@pytest.mark.parametrize("step", ["send", "replies"])
def test_after_a_restart_the_same_robots_are_asked_again_as_they_come_back(tmp_path, step):
    rules = changed(RULES, target=3, quorum=3, deadline_s=50.0)
    robots = Robots({f"r{i}": {"answer": trained_by(f"r{i}"), "after": 5} for i in range(9)})
    setattr(robots, step, killing)
    with pytest.raises(Killed):
        robots.round(rules, journal=DiskJournal(tmp_path))
    delattr(robots, step)
    asked = [robot.name for robot in DiskJournal(tmp_path).load().robots]
    robots.tickets.clear()  # the questions are lost, too
    robots.sent.clear()
    robots.robots |= {"aaa": {}}  # the draw would be another one
    robots.robots[asked[1]]["from"] = 30  # back 30 s after the others

    _, record = robots.round(rules, journal=DiskJournal(tmp_path))

    assert [names for _, names, _ in robots.sent] == [[asked[0], asked[2]], [asked[1]]]
    assert list(outcomes(record)) == asked
    assert 35 <= record.seconds < 37


def killing(*_):
    raise Killed


SERVE_AND_DIE = """
import os, sys
from pathlib import Path

sys.path += [sys.argv[1], str(Path(sys.argv[1]).parent)]
from test_round_resume import fleet, serve

left = int(sys.argv[3])

def counted(function):
    def step(*arguments, **more):
        global left
        if left == 0:
            os.kill(os.getpid(), 9)
        left -= 1
        return function(*arguments, **more)
    return step

os.fsync, os.open, os.rename, os.unlink = map(counted, (os.fsync, os.open, os.rename, os.unlink))
last = serve(fleet({"a": 1, "b": 2, "c": 3}), Path(sys.argv[2]))
print(last.weights["w"].tobytes().hex())
"""


@pytest.mark.slow
def test_a_process_that_is_really_killed_ends_with_the_same_bits(undisturbed, tmp_path):
    """Here the questions die with the process: robots are asked again."""
    (weights, _), _ = undisturbed
    folder = str(Path(__file__).parent)
    for after in (3, 17, 31, 1000):
        command = [sys.executable, "-c", SERVE_AND_DIE, folder, str(tmp_path / str(after))]
        killed = subprocess.run([*command, str(after)], capture_output=True, text=True)
        assert killed.returncode == (0 if after == 1000 else -signal.SIGKILL), killed.stderr
        done = subprocess.run([*command, "-1"], capture_output=True, text=True)
        assert done.stdout.strip() == weights.hex(), done.stderr
