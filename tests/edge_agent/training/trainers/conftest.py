"""A small image workload, exported for both trainers as the server does it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fleet_model.bundle import TrainerSpec, WorkloadSpec, parse_trainer
from fleet_model.errors import FrameError
from fleet_model.types import Checkpoint, Example, Frame
from fleet_model.weights import read_weights

LABELS, SIZE, BATCH = ["cup", "fork", "plate", "spoon"], 64, 32


@dataclass(frozen=True)
class Trainable:
    spec: TrainerSpec
    directory: Path
    checkpoint: Checkpoint


@pytest.fixture(scope="session")
def trainable(made_once):
    """Return what exports a scope, once for all test processes."""

    def exported(scope, name="", **plan):
        return _read(made_once(f"trainer-{scope}{name}", lambda into: _export(into, scope, plan)))

    return exported


def _export(directory, scope, plan):
    from cloud_server.models.adapters import AdapterPlan
    from cloud_server.models.export import InitJob, run_export
    from fleet_model.workloads.image_classifier import ImageClassifier

    workload = ImageClassifier(LABELS, "mobilenet-v2-035", SIZE)
    spec = WorkloadSpec(name="image-classifier", config=dict(workload.config))
    job = InitJob(workload=spec, trainable=scope, batch_size=BATCH, directory=directory)
    if plan:
        job = job.model_copy(update={"adapter": AdapterPlan(**plan)})
    run_export(job)


def _read(directory):
    weights = read_weights(directory / "weights.safetensors")
    trainer = parse_trainer((directory / "trainer.json").read_bytes())
    return Trainable(trainer, directory, Checkpoint(version=0, weights=weights))


@pytest.fixture(scope="session")
def head(trainable):
    return trainable("head")


@pytest.fixture(scope="session")
def last_block(trainable):
    return trainable("last-block")


@pytest.fixture(scope="session")
def whole_model(trainable):
    return trainable("all")


@pytest.fixture(scope="session")
def lora_head(trainable):
    return trainable("head", "-lora", rank=2, alpha=4)


@pytest.fixture(scope="session")
def lora_block(trainable):
    return trainable("last-block", "-lora", rank=4, alpha=8)


class Pictures:
    """Pictures of one colour for each label, with noise; counts what is decoded.

    `gone`: the recordings are no longer there, so nothing can be decoded.
    """

    def __init__(self, count, held_out_every=4, gone=False):
        self.decoded = 0
        self._gone = gone
        self._count, self._held_out_every = count, held_out_every

    def examples(self):
        colours = np.array([[220, 40, 40], [40, 200, 60], [50, 60, 220], [230, 220, 80]])
        for number in range(self._count):
            label = number % len(LABELS)
            yield Example(
                raw=self._frame(number, colours[label]),
                label=LABELS[label],
                key=f"bag/{number:04d}",
                held_out=number // len(LABELS) % self._held_out_every == 0,
            )

    def _frame(self, number, colour):
        def decode():
            self.decoded += 1
            if self._gone:
                raise FrameError(f"picture {number} is gone")
            noise = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3))
            return (0.8 * colour + 0.2 * noise).astype(np.uint8)

        return Frame(
            source="bag", topic="/camera", stamp_ns=number, data=b"", format="rgb8", decode=decode
        )


@pytest.fixture
def pictures():
    return Pictures
