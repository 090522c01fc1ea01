"""Sums in a building on real directories, between robots in memory and a fleet's exchange."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.robots.register import Register
from cloud_server.rounds.fleet import Participant, Reply
from cloud_server.rounds.reply_kinds import RoundEnd
from cloud_server.rounds.reply_spool import Kept
from cloud_server.rounds.round_journal import DiskJournal, MemoryJournal
from cloud_server.rounds.shares import Share
from cloud_server.rounds.sums_exchange import SumsExchange, space_of
from cloud_server.runs.run_rounds import request_of
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.learning_settings import CheckSettings
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import load_settings
from cloud_server.state.sums.sums_store import SumsStore
from cloud_server.unlearning import unlearn
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.errors import RoundError, UpdateError
from fleet_model.protocol.outcome import ACCEPTED
from fleet_model.protocol.proof import public_line
from fleet_model.protocol.relayed import speaks_for
from fleet_model.protocol.version import PROTOCOL
from fleet_model.sums.class_sums import class_sums
from fleet_model.sums.packing import GROUP, pack_sums
from fleet_model.types import SUMS, Update
from site_relay import rounds
from site_relay.mirror import Mirror
from site_relay.rounds import RelayedRounds

ALL_COUNT = CheckSettings(max_examples_ratio=0)


class KilledError(BaseException):
    """As kill -9: nobody catches it."""


class Robots:
    """Robots of a building; what they were asked outlives the relay, as on a real server."""

    def __init__(self, space, frames):
        self.space, self.frames = space, dict(frames)
        self.turned, self.rank = set(), 0
        self.asked, self.open = [], {}
        self.kill_in = None  # calls of `replies`

    def online(self):
        return [
            Participant(node_id=k, name=name, site="hall", protocol=PROTOCOL)
            for k, name in enumerate(self.frames)
        ]

    def shut_out(self):
        return {}

    def send(self, participants, request, ttl_s):
        tickets = {f"{request.run}-{request.round}-{one.name}": one for one in participants}
        self.asked += [one.name for one in participants]
        self.open |= {ticket: (one.name, request) for ticket, one in tickets.items()}
        return tickets

    def replies(self, tickets):
        if self.kill_in is not None:
            self.kill_in -= 1
            if self.kill_in < 0:
                raise KilledError
        for ticket in sorted(tickets):  # one at a time
            if ticket in self.open:
                name, request = self.open.pop(ticket)
                return [Reply(ticket=ticket, update=self.told(name, request.checkpoint.version))]
        return []

    def still_open(self, tickets):
        return self.open.keys() & set(tickets)

    def open_run(self, resume):
        return None

    def close_run(self, *, completed):
        self.open.clear()

    def told(self, name, version):
        features, classes = frames_of(name, self.frames[name], self.space)
        number = len(self.space.labels)
        if name in self.turned:
            classes = number - 1 - classes
        tensors = pack_sums(class_sums(features, classes, number, self.rank))
        return Update(
            kind=SUMS, robot=name, base_version=version, weights={}, groups={GROUP: tensors},
            num_examples=len(classes), num_steps=0, metrics={"held_out": 4.0},
            label_counts=tuple(int(n) + 2 for n in np.bincount(classes, minlength=number)),
        )  # fmt: skip


def frames_of(name, count, space):
    rng = np.random.default_rng(sum(name.encode()))
    classes = np.arange(count) % len(space.labels)
    middles = np.random.default_rng(7).normal(3, 2, (len(space.labels), space.width))
    return (middles[classes] + rng.normal(0, 1, (count, space.width))).astype(np.float32), classes


class Site:
    """A fleet's directory, a relay's, and what both need to talk of sums."""

    def __init__(self, fleet, relay, frames):
        self.fleet, self.relay = fleet, relay
        content = (fleet.model_of(1) / TRAINER).read_bytes()
        self.head, self.space = space_of(parse_trainer(content))
        self.checkpoint = Checkpoints(fleet.checkpoints).load(1)
        self.robots = Robots(self.space, frames)
        self.register = Register(relay.robots)
        for name in frames:
            self.register.add(name, "hall", _key())
        self.checks, self.told = ALL_COUNT, []

    def request(self, directions=0, run="run", number=1):
        settings = load_settings(self.fleet.settings)
        asked = request_of(self.fleet, settings, run, number, self.checkpoint)
        return replace(asked, kind=SUMS, config=replace(asked.config, sums_directions=directions))

    def rounds(self):
        """Return what a relay that has just started answers with."""
        settings = load_settings(self.relay.settings)
        few = settings.rounds.model_copy(update={"quorum": 1})
        settings = settings.model_copy(update={"rounds": few, "checks": self.checks})
        mirror = Mirror(self.relay, settings.publish, DirectoryStore(self.fleet.store))
        return RelayedRounds(
            self.relay, settings, self.robots, mirror, [self.told.append], lambda: False
        )

    def head_of(self, folder, updates, method="lda"):
        """Return the weights that the fleet's server makes of replies, as it would take them."""
        exchange = SumsExchange(SumsStore(folder), self.head, self.space, method, ALL_COUNT)
        journal, accepted = MemoryJournal(), []
        for update in updates:
            exchange.kind.check(update, self.checkpoint, 1, ALL_COUNT)
            kept = Kept(
                ticket=update.robot, robot=update.robot, site="hall", round=1, verdict=ACCEPTED,
                kind=SUMS, num_examples=update.num_examples, speaks_for=speaks_for(update, 12),
            )  # fmt: skip
            journal.keep([(kept, update)])
            accepted.append(Share(kept=kept, weight=update.num_examples, norm=0.0))
        end = RoundEnd(checkpoint=self.checkpoint, accepted=accepted, journal=journal, rule=None)
        return exchange.kind.use(end).weights, exchange

    def history(self):
        return [json.loads(line) for line in self.relay.history.read_text().splitlines()]


def _key():
    return public_line(ec.generate_private_key(ec.SECP384R1()).public_key())


@pytest.fixture
def site(server_dir, tmp_path):
    relay = tmp_path / "relay"
    shutil.copytree(server_dir.root, relay)
    (relay / "upstream").mkdir()
    (relay / "upstream" / "agent.toml").touch()
    return Site(server_dir, ServerDirectory(relay), {"a": 60, "b": 33})


@pytest.mark.parametrize("method", ["lda", "ncm"])
def test_the_head_is_that_of_the_same_robots_without_a_relay(site, tmp_path, method):
    relayed = replace(site.rounds().answer(site.request()), robot="relay")
    other = Robots(site.space, {"c": 45}).told("c", 1)
    direct = [site.robots.told(name, 1) for name in "ab"]

    made, exchange = site.head_of(tmp_path / "relayed", [relayed, other], method)
    expected, _ = site.head_of(tmp_path / "direct", [*direct, other], method)
    for name, tensor in expected.items():
        np.testing.assert_allclose(made[name], tensor, rtol=1e-9)
    assert relayed.num_examples == 93
    assert exchange.solved.number == 3
    assert "3 robots, 2 of them behind relay" in exchange.store.head().words


def test_its_own_history_has_each_robot(site):
    site.rounds().answer(site.request())
    (line,) = site.history()
    assert {robot["name"]: robot["num_examples"] for robot in line["robots"]} == {"a": 60, "b": 33}
    assert line["metrics"]["sums_robots"] == 2
    assert len(site.told) == 1
    assert SumsStore(site.relay.sums).robots() == ["a", "b"]


@pytest.mark.parametrize(
    "step",
    [
        "the first reply",
        (SumsStore, "save"),
        (rounds, "remember"),
        (rounds, "write_packet"),
        (DiskJournal, "close"),
    ],
)
def test_killed_at_any_step_it_loses_nothing_and_asks_nobody_twice(site, monkeypatch, step):
    expected = Site.rounds(site).answer(site.request(run="other")).groups[GROUP]
    site.robots.asked.clear()

    def dies(*_, **__):
        raise KilledError

    with monkeypatch.context() as patch:
        if isinstance(step, str):
            site.robots.kill_in = 1
        else:
            patch.setattr(*step, dies)
        with pytest.raises(KilledError):
            site.rounds().answer(site.request())
    site.robots.kill_in = None
    again = site.rounds().answer(site.request())

    assert site.robots.asked == ["a", "b"]
    for name, tensor in expected.items():
        assert np.array_equal(again.groups[GROUP][name], tensor)
    assert sum(line["run"] == "run" for line in site.history()) == 1


def test_an_answer_that_did_not_arrive_is_sent_again(site):
    first = site.rounds().answer(site.request())
    second = site.rounds().answer(site.request())
    assert site.robots.asked == ["a", "b"]
    for name, tensor in first.groups[GROUP].items():
        assert np.array_equal(second.groups[GROUP][name], tensor)


def test_no_robot_of_the_building_counts_more_than_its_median(site, tmp_path):
    site.checks = CheckSettings()
    relayed = replace(site.rounds().answer(site.request()), robot="relay")
    assert relayed.num_examples == 66  # 33 of each
    _, exchange = site.head_of(tmp_path / "sums", [relayed])
    assert exchange.solved.frames.sum() == pytest.approx(66, rel=1e-12)


def test_a_robot_that_is_away_counts_with_what_it_told_before(site, tmp_path):
    site.rounds().answer(site.request())
    del site.robots.frames["b"]
    relayed = replace(site.rounds().answer(site.request(number=2)), robot="relay")
    assert site.robots.asked == ["a", "b", "a"]
    assert relayed.num_examples == 93
    assert relayed.metrics["relayed_robots"] == 2
    site.head_of(tmp_path / "sums", [relayed])  # its counts of labels are no fewer than its sums'


def test_a_robot_whose_labels_contradict_the_others_is_left_out_and_named(site):
    names = ["a", "b", "c", "d"]
    site.robots.frames.update(dict.fromkeys(names, 60))
    for name in "cd":
        site.register.add(name, "hall", _key())
    site.robots.turned = {"c"}
    relayed = site.rounds().answer(site.request())

    assert relayed.num_examples == 180
    assert relayed.metrics["relayed_robots"] == 3
    outcomes = {robot["name"]: robot["outcome"] for robot in site.history()[0]["robots"]}
    assert [name for name in names if "contradict those of the other" in outcomes[name]] == ["c"]
    assert [robot.name for robot in site.told[0].robots if robot.refused] == ["c"]


def test_a_robot_that_was_unlearned_is_not_in_the_next_answer(site):
    site.rounds().answer(site.request())
    said = list(unlearn(site.relay, site.register, "b"))
    assert "until the next exchange" in said[1]
    assert list(site.relay.relayed.glob("sums-*.answer")) == []
    del site.robots.frames["b"]
    assert site.rounds().answer(site.request(number=2)).num_examples == 60


def test_what_a_robot_tells_while_it_is_unlearned_is_not_kept(site):
    site.register.forget("b")  # the register is what `unlearn` changes first
    assert site.rounds().answer(site.request()).num_examples == 60
    assert SumsStore(site.relay.sums).robots() == ["a"]


def test_with_no_robot_left_there_is_no_answer_and_the_round_is_over(site):
    for name in "ab":
        site.register.forget(name)
    with pytest.raises(RoundError, match="no robot of this building has told sums"):
        site.rounds().answer(site.request())
    assert DiskJournal(site.relay.relayed).load().closed


def test_leading_directions_are_refused_before_a_robot_is_asked(site):
    words = "adds up exact sums only, and 16 leading .* set start.directions = 0 on the fleet's"
    with pytest.raises(UpdateError, match=words):
        site.rounds().answer(site.request(16))
    assert site.robots.asked == []


def test_a_robot_that_sends_leading_directions_all_the_same_is_refused(site):
    site.robots.rank = 2
    with pytest.raises(RoundError, match="and all of it was asked for: update the agent"):
        site.rounds().answer(site.request())
