"""What one reply says of a building: the mean of its robots' updates, or their sums added up."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from cloud_server.aggregation.mean import exact_sums
from cloud_server.closed_form.doubts import Doubt, doubts_of
from cloud_server.robots.register import Register
from cloud_server.rounds.folding import KeptContributions
from cloud_server.rounds.reply_kinds import KINDS, ReplyKind, RoundEnd
from cloud_server.rounds.sums_exchange import (
    check_sums,
    factors_of,
    space_of,
    tell_doubts,
    with_doubts,
)
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.learning_settings import CheckSettings
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.sums.sums_store import SumsStore
from fleet_model.adapters.spec import sent_back
from fleet_model.bundle import TrainerSpec
from fleet_model.errors import RoundError, UpdateError
from fleet_model.protocol.example_counts import HELD_OUT, LABELS, SPEAKS_FOR, as_metrics
from fleet_model.protocol.relayed import LOW, split
from fleet_model.protocol.wire import RobotRequest
from fleet_model.sums.adding import added
from fleet_model.sums.packing import GROUP, pack_sums, unpack_sums
from fleet_model.types import SUMS, TRAIN, Checkpoint, Metrics, Update, Weights

log = logging.getLogger(__name__)


class Building(Protocol):
    """One round in a building; an object serves one round."""

    kind: ReplyKind  # how the round loop treats the robots' replies

    @contextmanager
    def closing(self, record: RoundRecord) -> Iterator[Update]:
        """Give the reply; it is to be made durable in here.

        Raises:
            RoundError: there is nothing to reply with.
        """
        ...

    def told(self, record: RoundRecord) -> RoundRecord:
        """Return what the history of the building says."""
        ...


def building_of(
    server_dir: ServerDirectory, spec: TrainerSpec, checks: CheckSettings, request: RobotRequest
) -> Building:
    """Return what serves a round.

    Args:
        server_dir: of the relay.
        spec: what is trained.
        checks: of the relay's settings.
        request: as robots of the building are asked.

    Raises:
        SettingsError: sums are asked for, and this trainer has no head that they can make.
    """
    if request.kind == SUMS:
        return AddedSums(server_dir, spec, checks, request)
    return Mean(request)


class Mean:
    """Of updates, weighted by examples; of an evaluation its measures."""

    def __init__(self, request: RobotRequest) -> None:
        self._request = request
        self._sums: Weights = {}
        kind = KINDS[request.kind]
        self.kind = ReplyKind(check=kind.check, length=kind.length, use=self._use, means=kind.means)

    @contextmanager
    def closing(self, record: RoundRecord) -> Iterator[Update]:
        """As Building says; so are the others."""
        robots = [one for one in record.robots if one.accepted]
        examples = sum(one.weight for one in robots)
        weights, low = split(self._sums, examples)
        labels = self._request.labels
        yield Update(
            kind=self._request.kind,
            robot="",
            base_version=self._request.checkpoint.version,
            weights=weights,
            groups={LOW: low} if low else {},
            num_examples=examples,
            num_steps=round(sum(one.weight * one.num_steps for one in robots) / examples),
            label_counts=_in_order(record, labels),
            metrics=_metrics(record, sum(one.speaks_for for one in robots)),
        )

    def told(self, record: RoundRecord) -> RoundRecord:  # noqa: D102
        return record

    def _use(self, end: RoundEnd) -> Checkpoint:
        if self._request.kind == TRAIN:
            contributions = KeptContributions(end.journal, end.accepted, end.checkpoint)
            self._sums = exact_sums(contributions, sent_back(end.checkpoint.weights))[0]
        return end.checkpoint


class AddedSums:
    """Of features, for a head in closed form: all that robots of the building have ever told.

    As on the fleet's server a robot that is away counts with what it told before, none counts more
    than [checks] says, and one whose labels contradict the others' is left out.
    """

    def __init__(
        self,
        server_dir: ServerDirectory,
        spec: TrainerSpec,
        checks: CheckSettings,
        request: RobotRequest,
    ) -> None:
        self._head, self._space = space_of(spec)
        self._store, self._checks = SumsStore(server_dir.sums), checks
        self._register, self._request = Register(server_dir.robots), request
        self._end: RoundEnd | None = None
        self._doubts: Sequence[Doubt] = ()
        self._robots = 0
        self.kind = ReplyKind(
            check=self._check, length=lambda _: 0.0, use=self._use, means=lambda *_: {}
        )

    @contextmanager
    def closing(self, record: RoundRecord) -> Iterator[Update]:
        """As Building says; so are the others.

        What a robot told is kept only while it is in the register: see cloud_server/unlearning.py.
        """
        with self._store.changing():
            self._keep()
            robots = self._store.of(self._space)
            if not robots:
                raise RoundError("no robot of this building has told sums that can be added up")
            factors, _ = factors_of(robots, self._checks)
            self._doubts = doubts_of(robots, factors)
            tell_doubts(self._doubts)
            left_out = {doubt.robot for doubt in self._doubts}
            sums = added((robots[one], factors[one]) for one in robots if one not in left_out)
            self._robots = sums.robots
            tensors = pack_sums(sums)
            # As the fleet's server will read them.
            read = unpack_sums(tensors, len(self._head.classes), self._head.width)
            log.info("sums of %.0f frames of %d robots", read.frames, sums.robots)
            told = _in_order(record, self._request.labels)
            yield Update(
                kind=SUMS,
                robot="",
                base_version=self._request.checkpoint.version,
                weights={},
                groups={GROUP: tensors},
                num_examples=round(read.frames),
                num_steps=0,
                # Of robots that are away no more is known than what their sums count.
                label_counts=tuple(
                    max(known, math.ceil(count))
                    for known, count in zip(told, read.counts, strict=True)
                )
                if told
                else (),
                metrics=_metrics(record, sums.robots),
            )

    def told(self, record: RoundRecord) -> RoundRecord:  # noqa: D102
        return with_doubts(record, self._doubts, self._robots)

    def _check(
        self, update: Update, checkpoint: Checkpoint, asked_version: int, checks: CheckSettings
    ) -> None:
        """Raise UpdateError unless a reply holds exact sums of features."""
        if check_sums(update, asked_version, checks, self._head).within is None:
            raise UpdateError(
                "its sums have the leading directions of its scatter, and all of it was asked for: "
                "update the agent"
            )

    def _use(self, end: RoundEnd) -> Checkpoint:
        self._end = end  # folded in `closing`: nothing may be taken away between that and the reply
        return end.checkpoint

    def _keep(self) -> None:
        if self._end is None:
            raise RoundError("sums are asked for before they can be added up")
        known = {robot.name for robot in self._register.robots()}
        for share in self._end.accepted:
            if share.kept.robot in known:
                tensors = self._end.journal.read(share.kept).groups[GROUP]
                self._store.save(share.kept.robot, tensors, self._space)


def _in_order(record: RoundRecord, labels: Sequence[str]) -> tuple[int, ...]:
    """Return the examples of each label that robots told; none if they told nothing."""
    counts = record.label_counts
    return tuple(counts.get(name, 0) for name in labels) if counts else ()


def _metrics(record: RoundRecord, robots: int) -> Metrics:
    seen = sum(count > 0 for count in record.label_counts.values())
    counts: Mapping[str, float] = {
        **as_metrics(record.left_out, seen if record.label_counts else None),
        HELD_OUT: float(record.held_out),
        SPEAKS_FOR: float(robots),
    }
    if not record.label_counts:
        counts = {name: value for name, value in counts.items() if name != LABELS}
    return {**record.metrics, **counts}
