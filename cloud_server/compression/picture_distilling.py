"""Teach a Keras network of pictures what a larger one answers, or what people have said.

The teacher answers once (`answers`), so a student's epoch costs the student alone.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cloud_server.compression.teaching import UNLABELLED, Teaching, rate
from cloud_server.models.backend import Progress
from fleet_model.errors import CheckpointError, SettingsError, TrainingError
from fleet_model.types import Tensor
from fleet_model.weights import read_metadata, read_weights, write_weights

if TYPE_CHECKING:
    import keras

_CLIP = 1.0  # longest gradient
_STEP = "step"
_MODEL, _OPTIMIZER = "model.", "optimizer."


class Pictures(NamedTuple):
    """What a student looks at, as the network takes it, and what people have said of it."""

    inputs: Tensor  # (pictures, S, S, 3), any number type: turned into float32 batch by batch
    classes: Tensor  # (pictures,) int64, index of the label; UNLABELLED: nobody has said


def answers(model: "keras.Model", inputs: Tensor, batch_size: int = 64) -> Tensor:
    """Return (pictures, labels) float32, the logits of a teacher in inference.

    Raises:
        CheckpointError: it answers no numbers.
    """
    parts = [
        np.asarray(model(inputs[at : at + batch_size].astype(np.float32), training=False))
        for at in range(0, len(inputs), batch_size)
    ]
    logits = np.concatenate(parts).astype(np.float32)
    if not np.isfinite(logits).all():
        raise CheckpointError(f"{model.name}: answers no numbers; it cannot teach")
    return logits


def distill_pictures(
    student: "keras.Model",
    what: Pictures,
    taught: Tensor | None,
    how: Teaching,
    state_file: Path,
    progress: Progress,
) -> None:
    """Train a student in place.

    AdamW and rates as for texts (see distilling.py); normalizations learn from each batch. The loss
    of a picture is T^2 KL(teacher || student), both softened by T (arXiv:1503.02531, section 2),
    and for the share `hard` of it the cross entropy with its label, where it has one. On a CPU
    with one thread the same arguments give the same bits, also where it was killed after an epoch
    and called again.

    Args:
        student: answers logits (pictures, labels). What is 0 in its kernels stays 0.
        what: to learn from.
        taught: (pictures, labels) logits of the teacher, of the same pictures; None: it learns from
            the labels alone.
        how: to learn; `features` is 0.
        state_file: what a killed call goes on from, kept after each epoch; removed at the end.
        progress: is told each epoch's loss.

    Raises:
        SettingsError: there is nothing to learn from, or `how` asks for features.
        TrainingError: the loss is no number any more.
    """
    import keras

    _require(what, taught, how)
    keras.utils.set_random_seed(how.seed)
    student.compile(
        optimizer=keras.optimizers.AdamW(
            how.learning_rate, weight_decay=how.weight_decay, clipnorm=_CLIP
        ),
        loss=_Loss(how, has_teacher=taught is not None),
        jit_compile=False,
    )
    student.optimizer.exclude_from_weight_decay(
        [v for v in student.trainable_variables if len(v.shape) < 2]
    )
    student.optimizer.build(student.trainable_variables)
    zeros = [
        (v, (v.numpy() != 0).astype(np.float32))
        for v in student.trainable_variables
        if len(v.shape) > 1 and bool((v.numpy() == 0).any())
    ]
    targets = _targets(what, taught, student.output_shape[-1])
    an_epoch = math.ceil(len(what.classes) / how.batch_size)
    total = an_epoch * how.epochs
    done = _resumed(state_file, student)
    if done:
        progress(f"resumed after step {done} of {total}")
    for epoch in range(done // an_epoch, how.epochs):
        losses = []
        for number, rows in enumerate(_batches(what, how, epoch), start=epoch * an_epoch):
            student.optimizer.learning_rate.assign(how.learning_rate * rate(number, total))
            pictures = what.inputs[rows].astype(np.float32)
            losses.append(float(student.train_on_batch(pictures, targets[rows])))
            student.reset_metrics()  # else Keras returns the mean of all steps
            for variable, mask in zeros:
                variable.assign(variable * mask)
            if not math.isfinite(losses[-1]):
                raise TrainingError(
                    f"the loss is {losses[-1]} in step {number + 1} of {total}: nothing is kept. "
                    f"Take a smaller learning rate than {how.learning_rate:g}"
                )
        progress(f"epoch {epoch + 1} of {how.epochs}: loss {np.mean(losses):.4f}")
        if epoch + 1 < how.epochs:
            _keep(state_file, student, (epoch + 1) * an_epoch)
    state_file.unlink(missing_ok=True)


def _require(what: Pictures, taught: Tensor | None, how: Teaching) -> None:
    if how.features:
        raise SettingsError("distillation: features are of texts; pictures teach by logits alone")
    if taught is None and (what.classes == UNLABELLED).any():
        raise SettingsError("pictures without a label need a teacher that answers them")
    if taught is not None and len(taught) != len(what.classes):
        raise SettingsError(
            f"the teacher has answered {len(taught)} pictures, there are {len(what.classes)}"
        )


def _targets(what: Pictures, taught: Tensor | None, labels: int) -> Tensor:
    """Return (pictures, 2 labels) float32: the teacher's logits, and the label as 1 among 0.

    A picture without a label has zeros alone there.
    """
    hard = np.zeros((len(what.classes), labels), np.float32)
    labelled = np.flatnonzero(what.classes != UNLABELLED)
    hard[labelled, what.classes[labelled]] = 1
    soft = np.zeros_like(hard) if taught is None else taught
    return np.concatenate([soft, hard], axis=1).astype(np.float32)


class _Loss:
    """A loss as Keras calls it: targets as of `_targets`, logits -> (pictures,)."""

    name = "distillation"

    def __init__(self, how: Teaching, *, has_teacher: bool) -> None:
        self._how, self._has_teacher = how, has_teacher

    def __call__(self, targets: Any, logits: Any, sample_weight: Any = None) -> Any:
        from keras import ops

        labels, temperature = logits.shape[-1], self._how.temperature
        taught, hard = targets[:, :labels], targets[:, labels:]
        entropy = -ops.sum(hard * ops.log_softmax(logits), axis=-1)
        if not self._has_teacher:
            return ops.mean(entropy)
        soft = ops.log_softmax(taught / temperature)
        own = ops.log_softmax(logits / temperature)
        divergence = temperature**2 * ops.sum(ops.exp(soft) * (soft - own), axis=-1)
        share = self._how.hard * ops.sum(hard, axis=-1)  # 0 where nobody has said
        return ops.mean((1 - share) * divergence + share * entropy)


def _batches(what: Pictures, how: Teaching, epoch: int) -> Iterator[Tensor]:
    """Yield the rows of each step, in an order drawn from seed and epoch.

    All have the same number, so that the graph is made once: the last ones take some of the first.
    """
    order = np.random.default_rng((how.seed, epoch)).permutation(len(what.classes))
    for at in range(0, len(order), how.batch_size):
        yield np.resize(order, len(order) + how.batch_size)[at : at + how.batch_size]


def _variables(student: "keras.Model") -> dict[str, Any]:
    """Return everything that a step changes, by a name of its own."""
    named = {f"{_MODEL}{n}": v for n, v in enumerate(student.variables)}
    return named | {f"{_OPTIMIZER}{n}": v for n, v in enumerate(student.optimizer.variables)}


def _keep(file: Path, student: "keras.Model", step: int) -> None:
    tensors = {name: np.asarray(v.numpy()) for name, v in _variables(student).items()}
    write_weights(file, tensors, {_STEP: json.dumps(step)})


def _resumed(file: Path, student: "keras.Model") -> int:
    """Set what was kept; return the steps that were taken, 0 if nothing of use is there."""
    if not file.is_file():
        return 0
    variables = _variables(student)
    try:
        tensors, step = read_weights(file), int(json.loads(read_metadata(file)[_STEP]))
    except (CheckpointError, KeyError, ValueError, TypeError):
        return 0
    if {n: tuple(t.shape) for n, t in tensors.items()} != {
        n: tuple(v.shape) for n, v in variables.items()
    }:
        return 0
    for name, variable in variables.items():
        variable.assign(tensors[name])
    return step
