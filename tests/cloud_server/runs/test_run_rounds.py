"""Rounds that are durable one by one: the fleet is a fake, checkpoints and journal are real.

A process that dies is an exception at one of its durable steps; what comes after is a new call.
"""

import numpy as np
import pytest
from history_lines import history_lines

from cloud_server.rounds import fleet as seam
from cloud_server.rounds.fleet import Clock, Participant, Reply
from cloud_server.rounds.round_journal import DiskJournal
from cloud_server.runs import run_rounds
from cloud_server.runs.run_rounds import RunSpan, close_rounds
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import RoundSettings, ServerSettings
from fleet_model.errors import StoppedError, StorageError
from fleet_model.types import Update

ROUNDS = RoundSettings(quorum=2, deadline_s=5.0, wait_s=0.0, keep_checkpoints=2)
SETTINGS = ServerSettings(rounds=ROUNDS)


class PowerCutError(BaseException):
    pass


class Fleet(seam.Fleet):
    """Two robots, the update of each follows from the version; tickets outlive the process."""

    def __init__(self):
        self.asked = []
        self.open = {}

    def online(self):
        return [Participant(node_id=n, name=f"r{n}", site="hall") for n in (1, 2)]

    def send(self, participants, request, ttl_s):
        tickets = {f"{robot.name}/{len(self.asked)}": robot for robot in participants}
        self.asked += [(robot.name, request.round) for robot in participants]
        self.open |= dict.fromkeys(tickets, request.checkpoint)
        return tickets

    def replies(self, tickets):
        for ticket in sorted(tickets):
            name, start = ticket.split("/")[0], self.open[ticket]
            rng = np.random.default_rng([start.version, *name.encode()])
            weights = {
                t: rng.normal(size=w.shape).astype(np.float32)
                for t, w in sorted(start.weights.items())
            }
            update = Update(
                robot=name, base_version=start.version, weights=weights, num_steps=1,
                num_examples=int(rng.integers(5, 50)),
            )  # fmt: skip
            return [Reply(ticket=ticket, update=update)]
        return []

    def still_open(self, tickets):
        return set(tickets)


@pytest.fixture
def fleet():
    return Fleet()


@pytest.fixture
def go(server_dir, fleet):
    """Close three rounds; returns what was told."""
    told = []

    def close(**changes):
        given = {
            "settings": SETTINGS,
            "span": RunSpan(run="a", rounds=3, first_version=1, journal=server_dir.runs / "a"),
            "closed": told.append,
            "clock": Clock(now=lambda: 0.0, sleep=lambda _: None),
            **changes,
        }
        return close_rounds(fleet, server_dir, **given)

    close.told = told
    return close


@pytest.fixture
def calm(new_server_dir, tmp_path):
    """Return the weights that an undisturbed run ends with."""
    server_dir = new_server_dir(tmp_path / "calm")
    span = RunSpan(run="a", rounds=3, first_version=1, journal=server_dir.runs / "a")
    return close_rounds(Fleet(), server_dir, SETTINGS, span, closed=lambda _: None)


def same(one, other):
    assert one.version == other.version
    assert one.server_state.keys() == other.server_state.keys()
    for ours, theirs in ((one.weights, other.weights), (one.server_state, other.server_state)):
        for name, tensor in ours.items():
            assert tensor.tobytes() == theirs[name].tobytes()


def history(server_dir):
    return [(line["run"], line["round"], line["version"]) for line in history_lines(server_dir)]


WHOLE = [("a", 1, 2), ("a", 2, 3), ("a", 3, 4)]


def test_rounds_close_one_by_one_and_leave_checkpoints_and_history(go, server_dir, calm):
    checkpoint = go()

    same(checkpoint, calm)
    assert history(server_dir) == WHOLE
    assert [record.round for record in go.told] == [1, 2, 3]
    # the two newest, and version 1, which is published
    assert Checkpoints(server_dir.checkpoints).versions() == [1, 3, 4]
    assert list((server_dir.runs / "a").glob("*.spool")) == []


STEPS = [
    (Checkpoints, "save"),
    (ServerDirectory, "append_history"),
    (DiskJournal, "write"),
    (DiskJournal, "keep"),
    (DiskJournal, "close"),
    (Checkpoints, "prune"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "step"), STEPS, ids=[step for _, step in STEPS])
def test_killed_at_any_durable_step_it_ends_with_the_same_bits(
    go, fleet, server_dir, calm, monkeypatch, owner, step, after
):
    real, calls = getattr(owner, step), []

    def dies(*args, **kwargs):
        calls.append(step)
        if len(calls) == 2:
            if after:
                real(*args, **kwargs)
            raise PowerCutError
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, step, dies)
    with pytest.raises(PowerCutError):
        go()

    checkpoint = go()

    same(checkpoint, calm)
    assert history(server_dir) == WHOLE
    assert sorted({record.round for record in go.told}) == [1, 2, 3]


def test_a_run_that_has_closed_all_rounds_asks_nobody_again(go, fleet, calm):
    go()
    asked = len(fleet.asked)

    same(go(), calm)
    assert len(fleet.asked) == asked


def test_a_stop_leaves_what_has_closed_and_the_next_call_goes_on(go, calm):
    with pytest.raises(StoppedError):
        go(stop=lambda: len(go.told) == 1)

    assert [record.round for record in go.told] == [1]
    same(go(), calm)


def test_another_run_goes_on_from_the_newest_checkpoint(go, server_dir):
    go()
    other = RunSpan(run="b", rounds=1, first_version=4, journal=server_dir.runs / "b")

    assert go(span=other).version == 5
    assert history(server_dir) == [*WHOLE, ("b", 1, 5)]


def test_a_full_disk_is_told_with_the_way_on(go, calm, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(run_rounds.Checkpoints, "save", full)
        with pytest.raises(StorageError, match=r"No space left on device.*runs resume"):
            go()

    same(go(), calm)


def test_a_damaged_manifest_of_an_old_model_fails_no_round(go, server_dir, calm):
    (server_dir.store / "versions" / "000001.json").write_text("{")

    same(go(), calm)
    assert Checkpoints(server_dir.checkpoints).versions() == [1, 3, 4]  # 1 is published
