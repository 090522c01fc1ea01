"""One exchange of sums: check and keep what robots tell, make the head of all that is kept.

Sums of robots that told them earlier count as well, so who was away for one exchange is in the head
of the next, and who never comes back stays in it. See docs/decisions/0031-closed-form-heads.md.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cloud_server.closed_form.doubts import Doubt
from cloud_server.closed_form.solve import Solved, solve
from cloud_server.rounds.reply_kinds import ReplyKind, RoundEnd
from cloud_server.rounds.shares import counted
from cloud_server.rounds.update_checks import check_reply
from cloud_server.state.learning_settings import CheckSettings
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.sums.sums_store import ClosedForm, SumsSpace, SumsStore
from fleet_model.bundle import TrainerSpec
from fleet_model.errors import RoundError, UpdateError
from fleet_model.protocol.outcome import Outcome
from fleet_model.sums.class_sums import ClassSums
from fleet_model.sums.dense_head import DenseHead, dense_head, trunk_of
from fleet_model.sums.packing import GROUP, require_scatter, unpack_sums
from fleet_model.types import Checkpoint, Update
from fleet_model.workload import rebuild

SUMS_ROBOTS = "sums_robots"  # measure of a round that made a head of sums: of how many robots
log = logging.getLogger(__name__)


def space_of(spec: TrainerSpec) -> tuple[DenseHead, SumsSpace]:
    """Return the head of a trainer, and what sums for it must be of.

    Raises:
        SettingsError: it has no head that sums can make.
    """
    workload = rebuild(spec.workload)
    head = dense_head(spec, workload)
    former = spec.task.former if spec.task else {}
    return head, SumsSpace(trunk_of(spec, workload), head.classes, head.width, former)


def head_of(
    robots: Mapping[str, ClassSums], method: str, checks: CheckSettings, who: str
) -> Solved:
    """Return the head of robots' sums; no robot counts more than [checks] says.

    Raises:
        RoundError: there are no sums; `who` says of whom.
    """
    if not robots:
        raise RoundError(f"{who}: there are no sums of any robot to make a head of")
    factors, behind = factors_of(robots, checks)
    solved = replace(solve(robots, method, factors), behind=behind)
    tell_doubts(solved.doubts)
    return solved


def factors_of(
    robots: Mapping[str, ClassSums], checks: CheckSettings
) -> tuple[dict[str, float], dict[str, int]]:
    """Return (robot -> what each of its frames counts, site relay -> robots it speaks for)."""
    frames, behind = dict[str, int](), dict[str, int]()
    for name in sorted(robots):
        one = robots[name]  # read from the disk once
        frames[name], behind[name] = round(one.frames), one.robots
    counts = counted(list(frames.values()), checks, list(behind.values()))
    factors = {
        name: count / max(frames[name], 1) for name, count in zip(frames, counts, strict=True)
    }
    return factors, {name: many for name, many in behind.items() if many > 1}


def tell_doubts(doubts: Sequence[Doubt]) -> None:
    """Log whose sums are left out."""
    for doubt in doubts:
        log.warning("the sums of %s are left out: %s", doubt.robot, doubt.words)


def with_doubts(record: RoundRecord, doubts: Sequence[Doubt], robots: int) -> RoundRecord:
    """Return a round's record with what became of its sums.

    Args:
        record: of the exchange.
        doubts: whose sums are left out.
        robots: whose sums are not.
    """
    words = {doubt.robot: doubt.words for doubt in doubts}
    told = tuple(
        replace(one, outcome=Outcome("refused", words[one.name]), weight=0)
        if one.accepted and one.name in words
        else one
        for one in record.robots
    )
    metrics = {SUMS_ROBOTS: float(robots), "sums_left_out": float(len(words))}
    return replace(record, robots=told, metrics={**record.metrics, **metrics})


def check_sums(
    update: Update, asked_version: int, checks: CheckSettings, head: DenseHead
) -> ClassSums:
    """Return the sums of features that a reply holds.

    Raises:
        UpdateError: it holds none, or they cannot be of features for this head; says why.
    """
    check_reply(update, asked_version, checks)
    if update.weights or set(update.groups) != {GROUP}:
        raise UpdateError(
            f"sums are the group {GROUP!r} of tensors alone, this reply has "
            f"{len(update.weights)} trained tensors and {len(update.groups)} groups"
        )
    sums = unpack_sums(update.groups[GROUP], len(head.classes), head.width)
    require_scatter(sums)
    if round(sums.frames) != update.num_examples:
        raise UpdateError(
            f"its sums are of {sums.frames:.0f} frames, and it counts {update.num_examples}"
        )
    for count, known in zip(sums.counts, update.label_counts, strict=False):
        if count > known:
            raise UpdateError(
                f"its sums are of {count:.0f} frames of a label of which it has {known}"
            )
    return sums


def checkpoint_of(solved: Solved, head: DenseHead, before: Checkpoint, version: int) -> Checkpoint:
    """Return the checkpoint that begins with a head in closed form; a rule begins anew."""
    weights = {head.kernel: solved.kernel, head.bias: solved.bias}
    return Checkpoint(version=version, weights=weights, seed=before.seed)


def closed_form(solved: Solved, method: str, version: int, unlearned: str = "") -> ClosedForm:
    """Return what is written down of it."""
    return ClosedForm(
        version=version,
        method=method,
        strength=solved.strength,
        robots=tuple(solved.robots),
        left_out={doubt.robot: doubt.words for doubt in solved.doubts},
        behind=dict(solved.behind),
        unlearned=unlearned,
    )


@dataclass(slots=True)
class SumsExchange:
    """A round of kind `sums`; one object serves one round."""

    store: SumsStore
    head: DenseHead
    space: SumsSpace
    method: str
    checks: CheckSettings
    solved: Solved | None = field(default=None)

    @property
    def kind(self) -> ReplyKind:
        """Return how the round loop treats its replies."""
        return ReplyKind(
            check=self._check, length=lambda _: 0.0, use=self._use, means=lambda *_: {}
        )

    def told(self, record: RoundRecord) -> RoundRecord:
        """Return the round's record with what became of its sums."""
        if self.solved is None:
            return record
        told = with_doubts(record, self.solved.doubts, self.solved.number)
        return replace(told, metrics={**told.metrics, "sums_strength": self.solved.strength})

    def _check(
        self, update: Update, checkpoint: Checkpoint, asked_version: int, checks: CheckSettings
    ) -> None:
        check_sums(update, asked_version, checks, self.head)

    def _use(self, end: RoundEnd) -> Checkpoint:
        for share in end.accepted:
            tensors = end.journal.read(share.kept).groups[GROUP]
            self.store.save(share.kept.robot, tensors, self.space, share.kept.speaks_for)
        robots = self.store.of(self.space)
        self.solved = head_of(robots, self.method, self.checks, "this exchange")
        version = end.checkpoint.version + 1
        self.store.note(closed_form(self.solved, self.method, version))
        return checkpoint_of(self.solved, self.head, end.checkpoint, version)
