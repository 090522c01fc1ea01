"""The steps in which a network learns: from folders to a folder with model.keras."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cloud_server.compression.channels import narrow_channels
from cloud_server.compression.picture_distilling import Pictures, answers, distill_pictures
from cloud_server.compression.pruning import prune
from cloud_server.compression.recipes.network import (
    Classifier,
    read_classifier,
    student_of,
    write_classifier,
)
from cloud_server.compression.recipes.pictures import TRAIN, part_of
from cloud_server.compression.recipes.recipe import Data, Distill, Prune, Teacher
from cloud_server.models.backend import Progress
from fleet_model.errors import ExportError
from fleet_model.types import Tensor

if TYPE_CHECKING:
    import keras

NETWORK, ABOUT = "model.keras", "about.json"
_ANSWERS = "answers.npy"


class Lesson(NamedTuple):
    """Folders of what there is to learn from, and of what a killed step has kept."""

    pictures: Path  # see pictures.py
    answers: Path | None  # see `answer`; None: there are the labels alone
    state: Path  # a file


def read_checkpoint(file: Path, data: Data, how: Teacher, into: Path) -> None:
    """Fill a folder with the network of a checkpoint, and with its labels and size.

    Raises:
        CheckpointError: it is no classifier of pictures.
        SettingsError: its labels are not known.
    """
    made = read_classifier(file, data.labels, new_head=how.new_head)
    write_classifier(made, into / NETWORK)
    about = {"labels": made.labels, "size": made.size}
    (into / ABOUT).write_text(json.dumps(about), "utf-8")


def answer(teacher: Path, pictures: Path, into: Path, *, mirrored: bool) -> None:
    """Fill a folder with the teacher's logits of each training picture.

    Args:
        teacher: folder of its network.
        pictures: see pictures.py.
        into: an empty folder.
        mirrored: of each mirror image, too.

    Raises:
        CheckpointError: it answers no numbers.
    """
    model = read_classifier(teacher / NETWORK).model
    inputs = part_of(pictures, TRAIN).inputs
    asked = (inputs, inputs[:, :, ::-1]) if mirrored else (inputs,)
    np.save(into / _ANSWERS, np.stack([answers(model, one) for one in asked]))


def train_teacher(
    network: Path, lesson: Lesson, how: Teacher, into: Path, progress: Progress
) -> None:
    """Fill a folder with the checkpoint's network, trained on the labels; see `distill`."""
    _learn(read_classifier(network / NETWORK), lesson, how, into, progress)


def distill(network: Path, lesson: Lesson, how: Distill, into: Path, progress: Progress) -> None:
    """Fill a folder with a student that has learned what the teacher answers.

    Args:
        network: folder of the network as it is by now.
        lesson: to learn from.
        how: to learn.
        into: an empty folder.
        progress: is told each epoch's loss.

    Raises:
        SettingsError: the network has no layer `how.until`.
        ExportError: the student is larger than the network.
        TrainingError: the loss is no number any more.
    """
    before = read_classifier(network / NETWORK)
    numbers = before.model.count_params()
    student = student_of(before, how)
    _require_fewer(numbers, student.model.count_params(), "distill", or_equal=student is before)
    _learn(student, lesson, how, into, progress)


def prune_round(
    network: Path, lesson: Lesson, how: Prune, number: int, into: Path, progress: Progress
) -> None:
    """Fill a folder with a network after round `number` (from 0) of pruning; see `distill`.

    Channels that go make the file smaller; numbers that are zero (magnitude) do not.

    Raises:
        CheckpointError: the network has no channels that can be left out.
        ExportError: none of them goes.
        TrainingError: the loss is no number any more.
    """
    made, shares = read_classifier(network / NETWORK), how.shares()
    if how.kind == "channels":
        before = shares[number - 1] if number else 0.0
        share = 1 - (1 - shares[number]) / (1 - before)
        model, _ = narrow_channels(made.model, share, how.among)
        numbers = made.model.count_params(), model.count_params()
        _require_fewer(*numbers, "prune", or_equal=how.rounds > 1)
        made = Classifier(model, made.labels)
    else:
        _prune_numbers(made.model, shares[number], how)
    _learn(made, lesson, how, into, progress)


def _require_fewer(before: int, after: int, step: str, *, or_equal: bool) -> None:
    """Raise ExportError before a network learns whose file would be no smaller."""
    if after > before or (after == before and not or_equal):
        raise ExportError(
            f"{step}: the network would have {after:,} numbers, and has {before:,}: nothing is won"
        )


def _prune_numbers(model: "keras.Model", share: float, how: Prune) -> None:
    named = {variable.path: variable for variable in model.trainable_variables}
    pruned, _ = prune({path: v.numpy() for path, v in named.items()}, share, how.among)
    for path, variable in named.items():
        variable.assign(pruned[path])


def _learn(
    made: Classifier, lesson: Lesson, how: Teacher | Distill | Prune, into: Path, progress: Progress
) -> None:
    made.model.trainable = True
    what, taught = _material(lesson, mirrored=how.mirrored)
    distill_pictures(made.model, what, taught, how.teaching(), lesson.state, progress)
    write_classifier(made, into / NETWORK)


def _material(lesson: Lesson, *, mirrored: bool) -> tuple[Pictures, Tensor | None]:
    inputs, classes = part_of(lesson.pictures, TRAIN)
    taught = None if lesson.answers is None else np.load(lesson.answers / _ANSWERS)
    if not mirrored:
        return Pictures(inputs, classes), None if taught is None else taught[0]
    both = np.concatenate([inputs, inputs[:, :, ::-1]])
    twice = Pictures(both, np.concatenate([classes, classes]))
    return twice, None if taught is None else np.concatenate([*taught])
