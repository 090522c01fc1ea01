"""Answer a request for sums: counts, class means and a scatter of this robot's features.

Frames never leave the robot, and no sums of few of them either: a label is told only with at least
MIN_FRAMES training frames from MIN_SEGMENTS times, and of changes see sent_sums.py. Held-out frames
are never in the sums: models are measured with them.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edge_agent.training.adapted_model import tensors_of
from edge_agent.training.rows import Rows
from edge_agent.training.sent_sums import MIN_FRAMES, Sent, SentFile, about_of, choose, name_of
from edge_agent.training.trainer import Learner, NoExamplesError, encoded_rows
from fleet_model.errors import SettingsError, TrainingError
from fleet_model.protocol.example_counts import HELD_OUT, LEFT_OUT, UNREADABLE
from fleet_model.sums.class_sums import ClassSums, class_sums
from fleet_model.sums.dense_head import DenseHead, dense_head, trunk_of
from fleet_model.sums.packing import GROUP, MAX_RANK, pack_sums
from fleet_model.types import (
    NS_PER_S,
    SUMS,
    Checkpoint,
    Example,
    Tensor,
    TrainConfig,
    Update,
    Weights,
)

MIN_SEGMENTS, SEGMENT_NS = 2, 10 * NS_PER_S  # a robot sees nearly the same for seconds
log = logging.getLogger(__name__)


def sums_reply(
    learner: Learner,
    checkpoint: Checkpoint,
    examples: Iterable[Example],
    config: TrainConfig,
    sent: Path,
) -> Update:
    """Return the sums of this robot's training examples; the same data give the same bits.

    Args:
        learner: whose frozen trunk computes the features.
        checkpoint: whose head the sums are for.
        examples: all of this robot.
        config: how many directions are asked for.
        sent: folder of what was told before.

    Raises:
        NoExamplesError: no label has enough frames.
        TrainingError: this model's head is no dense layer, or what was told cannot be kept.
    """
    head = _head(learner)
    if not 0 <= config.sums_directions <= MAX_RANK:
        raise TrainingError(
            f"the server asks for {config.sums_directions} directions, expected 0 to {MAX_RANK}"
        )
    stamps: dict[str, int] = {}
    training, held_out, *_, unreadable = encoded_rows(learner, _noting(examples, stamps))
    learner.cache.end()
    _require_linear(learner, head, tensors_of(learner.spec, checkpoint), training)
    (target,) = learner.workload.task.targets
    classes = [int(one.tensors[target]) for one in training.targets]
    if any(one.weight != 1 for one in training.targets):
        raise TrainingError("sums count every example once, and these have weights of their own")
    enough, few = with_enough(training.keys, classes, head.classes, stamps)
    if few:
        log.warning(
            "not in the sums: labels with fewer than %d frames or %d times of %d s: %s",
            MIN_FRAMES, MIN_SEGMENTS, SEGMENT_NS // NS_PER_S,
            ", ".join(f"{label} {count}" for label, count in sorted(few.items())),
        )  # fmt: skip
    file = SentFile(sent, trunk_of(learner.spec, learner.workload))
    before, about = file.load(), about_of(head.classes, config.sums_directions)
    choice = choose(enough, before, about)
    if before is not None and choice.again:
        tensors = before.tensors
    elif not choice.frames:
        raise NoExamplesError(
            f"no label has {MIN_FRAMES} training examples from {MIN_SEGMENTS} times, which sums "
            "need",
            unreadable,
        )
    else:
        picked = [
            index
            for index, key in enumerate(training.keys)
            if name_of(key, label := head.classes[classes[index]]) in choice.frames.get(label, ())
        ]
        tensors = pack_sums(_sums(training, classes, picked, head, config.sums_directions))
        file.save(Sent(about, choice.frames, tensors))
    counted = round(float(tensors["counts"].sum()))
    log.info("sums of %d frames%s", counted, " as told before" if choice.again else "")
    left_out = {"too_few": sum(few.values()), "waiting": choice.waiting}
    return Update(
        kind=SUMS,
        robot="",
        base_version=checkpoint.version,
        weights={},
        groups={GROUP: tensors},
        num_examples=counted,
        num_steps=0,
        metrics={
            HELD_OUT: float(len(held_out)),
            UNREADABLE: float(unreadable),
            **{LEFT_OUT + kind: float(count) for kind, count in left_out.items() if count},
        },
    )


def _head(learner: Learner) -> DenseHead:
    try:
        return dense_head(learner.spec, learner.workload)
    except SettingsError as error:
        raise TrainingError(str(error)) from None


def _noting(examples: Iterable[Example], stamps: dict[str, int]) -> Iterator[Example]:
    """Pass examples on; remember when they were taken, where that is known."""
    for example in examples:
        stamps[example.key] = int(getattr(example.raw, "stamp_ns", 0))
        yield example


def with_enough(
    keys: Sequence[str], classes: Sequence[int], labels: Sequence[str], stamps: Mapping[str, int]
) -> tuple[dict[str, list[str]], Counter[str]]:
    """Return (label -> names of its frames, where they are enough), (label -> frames elsewhere)."""
    frames: dict[str, list[str]] = {}
    segments: dict[str, set[int]] = {}
    for key, index in zip(keys, classes, strict=True):
        label = labels[index]
        frames.setdefault(label, []).append(name_of(key, label))
        # Of a picture without a time nothing is known: it counts as one of its own.
        time = stamps.get(key, 0)
        segments.setdefault(label, set()).add(time // SEGMENT_NS if time else -len(frames[label]))
    enough = {
        label: names
        for label, names in frames.items()
        if len(names) >= MIN_FRAMES and len(segments[label]) >= MIN_SEGMENTS
    }
    few = Counter({label: len(names) for label, names in frames.items() if label not in enough})
    return enough, few


def _sums(
    training: Rows, classes: Sequence[int], picked: Sequence[int], head: DenseHead, directions: int
) -> ClassSums:
    rows = [_row(training, index) for index in picked]
    chosen = np.array([classes[index] for index in picked])
    return class_sums(rows, chosen, len(head.classes), directions)


def _row(training: Rows, index: int) -> Tensor:
    """Return the features of one example, (width,)."""
    (features,) = training.features[index].values()
    return features.reshape(-1)


def _require_linear(learner: Learner, head: DenseHead, weights: Weights, training: Rows) -> None:
    """Raise TrainingError unless outputs are features @ kernel + bias: else sums fit nothing."""
    if not len(training):
        return
    first = training.features[0]
    (output,) = learner.workload.task.outputs
    batch = next(training.batches(range(1), learner.spec.batch_size))
    answer = learner.model.outputs(weights, batch.features)[output][0]
    if len(first) == 1 and next(iter(first.values())).size == head.width:
        row = next(iter(first.values())).reshape(-1).astype(np.float64)
        expected = row @ weights[head.kernel] + weights[head.bias]
        if np.allclose(answer, expected, rtol=1e-3, atol=1e-3 * (1 + np.abs(expected).max())):
            return
    raise TrainingError(
        f"the head of {learner.spec.workload.name!r} is more than a dense layer on the features, "
        "so sums cannot make it; train with gradients"
    )
