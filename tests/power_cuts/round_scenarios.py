"""Power cuts while a round is open and while rounds close: journal, replies, run_rounds."""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from power_cuts import Scenario
from recorder import mark
from server_scenarios import TINY

from cloud_server.rounds import fleet as seam
from cloud_server.rounds.fleet import Clock, Participant, Reply
from cloud_server.rounds.reply_spool import Kept
from cloud_server.rounds.round_journal import DiskJournal, OpenRound, Ticket
from cloud_server.runs import conditions
from cloud_server.runs.run_rounds import RunSpan, close_rounds
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.history_file import all_lines
from cloud_server.state.settings import RoundSettings, ServerSettings
from fleet_model.protocol.outcome import ACCEPTED
from fleet_model.types import Checkpoint, Update
from fleet_model.weights import read_weights

ROBOTS = tuple(Participant(node_id=n, name=f"r{n}", site="hall") for n in (1, 2, 3))


def _update(robot: str, value: float) -> Update:
    weights = {"w": np.full(300, value, np.float32)}
    return Update(robot=robot, base_version=1, weights=weights, num_examples=5, num_steps=2)


def _open_round(number: int) -> OpenRound:
    tickets = tuple(
        Ticket(id=f"{robot.name}/{number}", robot=robot, round=number, version=number)
        for robot in ROBOTS
    )
    return OpenRound(
        run="a", round=number, base_version=number, mode="sync", robots=ROBOTS, tickets=tickets
    )


def _reply(number: int, robot: Participant) -> tuple[Kept, Update]:
    update = _update(robot.name, number + robot.node_id / 10)
    kept = Kept(
        ticket=f"{robot.name}/{number}", robot=robot.name, site="hall", round=number,
        verdict=ACCEPTED, base_version=1, num_examples=5, num_steps=2,
    )  # fmt: skip
    return kept, update


def _journal(root: Path) -> DiskJournal:
    return DiskJournal(root / "runs" / "a")


def _two_rounds(root: Path) -> None:
    journal = _journal(root)
    for number in (1, 2):
        journal.write(_open_round(number))
        mark()
        journal.keep([_reply(number, ROBOTS[0])])
        mark()
        journal.keep([_reply(number, robot) for robot in ROBOTS[1:]])
        mark()
        journal.close(number)
        mark()


def _journaled(root: Path) -> tuple[int, bool, list[tuple[str, float]]]:
    """Return the round, whether it is closed, and its replies with a value of each update."""
    journal = _journal(root)
    found = journal.load()
    replies = [(k.ticket, float(journal.read(k).weights["w"].mean())) for k in journal.kept()]
    return (0, True, []) if found is None else (found.round, found.closed, replies)


def _one_of_two(states: list[Any], step: int) -> list[Any]:
    """Of replies that are kept together the first may be there without the second."""
    if step % 4 != 2:
        return []
    number, is_closed, replies = states[step + 1]
    return [(number, is_closed, replies[:2])]


def _finish_two_rounds(root: Path) -> None:
    """Go on as the round loop does: ask who has not answered, close, open the next."""
    journal = _journal(root)
    while True:
        found = journal.load()
        if found is None or (found.closed and found.round < 2):
            journal.write(_open_round(1 if found is None else found.round + 1))
            continue
        if found.closed:
            return
        answered = {kept.robot for kept in journal.kept()}
        journal.keep([_reply(found.round, r) for r in ROBOTS if r.name not in answered])
        journal.close(found.round)


JOURNAL = Scenario(
    prepare=lambda root: None,
    act=_two_rounds,
    observe=_journaled,
    resume=_finish_two_rounds,
    between=_one_of_two,
)


class Fleet(seam.Fleet):
    """Two robots whose updates follow from the version. What was asked before a cut is lost."""

    def __init__(self) -> None:
        self._open: dict[str, Any] = {}

    def online(self) -> list[Participant]:
        """As the seam says; so are the others."""
        return list(ROBOTS[:2])

    def send(self, participants: Sequence[Participant], request: Any, ttl_s: float) -> dict:
        tickets = {f"{p.name}/{request.round}/{len(self._open)}": p for p in participants}
        self._open |= dict.fromkeys(tickets, request.checkpoint)
        return tickets

    def replies(self, tickets: Any) -> list[Reply]:
        for ticket in sorted(set(tickets) & self._open.keys()):
            name, start = ticket.split("/")[0], self._open[ticket]
            value = np.float32(start.version + int(name[1:]) / 8)
            update = Update(
                robot=name, base_version=start.version, num_steps=1, num_examples=8,
                weights={t: np.full_like(w, value) for t, w in start.weights.items()},
            )  # fmt: skip
            return [Reply(ticket=ticket, update=update)]
        return []

    def still_open(self, tickets: Any) -> set[str]:
        return set(tickets) & self._open.keys()


def _server_before(root: Path) -> None:
    server_dir = ServerDirectory(root)
    shutil.copytree(TINY, server_dir.model)
    weights = read_weights(TINY / "weights.safetensors")
    Checkpoints(server_dir.checkpoints).save(Checkpoint(version=1, weights=weights))


def _close_rounds(root: Path) -> None:
    rounds = RoundSettings(quorum=2, deadline_s=5.0, wait_s=0.0, keep_checkpoints=2)
    server_dir = ServerDirectory(root)
    close_rounds(
        Fleet(),  # type: ignore[arg-type]
        server_dir,
        ServerSettings(rounds=rounds),
        RunSpan(run="a", rounds=3, first_version=1, journal=server_dir.runs / "a"),
        closed=lambda record: mark(),
        clock=Clock(now=lambda: 0.0, sleep=lambda _: None),
    )
    mark()


def _closed(root: Path) -> tuple[int, str, list[int]]:
    """Return version and digest of the newest weights, and the rounds of the history."""
    server_dir = ServerDirectory(root)
    checkpoint = Checkpoints(server_dir.checkpoints).latest()
    digest = hashlib.sha256()
    for name in sorted(checkpoint.weights):
        digest.update(checkpoint.weights[name].tobytes())
    lines = all_lines(server_dir.history)
    history = [record.round for line in lines if (record := line.record()) is not None]
    DiskJournal(server_dir.runs / "a").kept()
    return checkpoint.version, digest.hexdigest()[:12], history


def _without_line(states: list[Any], step: int) -> list[Any]:
    """Between a checkpoint and its line of the history the line is missing."""
    if step + 1 >= len(states):
        return []
    version, digest, _ = states[step + 1]
    return [(version, digest, states[step][2])]


ROUNDS = Scenario(
    prepare=_server_before,
    act=_close_rounds,
    observe=_closed,
    resume=_close_rounds,
    settled=lambda root: (_closed(root), Checkpoints(ServerDirectory(root).checkpoints).versions()),
    between=_without_line,
)


def _note_conditions(root: Path) -> None:
    """Begin a run, and go on with it under other settings."""
    for first, quorum in ((1, 2), (4, 3)):
        settings = ServerSettings(rounds=RoundSettings(quorum=quorum))
        conditions.note(root, first, settings, "ab" * 32)
        mark()


CONDITIONS = Scenario(
    prepare=lambda root: None,
    act=_note_conditions,
    observe=lambda root: [one.from_round for one in conditions.read(root)],
    resume=_note_conditions,
)
