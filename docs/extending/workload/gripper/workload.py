"""What grips mean: NumPy alone."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fleet_model.bundle import Task, TensorSpec
from fleet_model.errors import FrameError, SettingsError
from fleet_model.types import Encoded, Example, Metrics, Prediction, Target, Tensors, TrainConfig
from fleet_model.workload import Sample
from gripper.source import PADS, Grip, recorded


class Gripper:
    """Forces in newtons, and whether the thing slips."""

    def __init__(self, width: int, rate: float = 0.05) -> None:
        if not (isinstance(width, int) and 1 <= width <= 64):
            raise SettingsError(f"width is {width!r}, expected 1 to 64")
        self.width, self.rate = width, rate

    @property
    def task(self) -> Task:
        return Task(
            inputs={"touch": TensorSpec(shape=(PADS, PADS)), "pose": TensorSpec(shape=(3,))},
            targets={"force": TensorSpec(shape=(2,)), "slips": TensorSpec(shape=(), dtype="int32")},
            outputs={"force": TensorSpec(shape=(2,)), "slipping": TensorSpec(shape=(1,))},
            measures={"error": "lower", "slips_seen": "higher"},
            answer="text",
        )

    @property
    def config(self) -> Mapping[str, Any]:
        return {"width": self.width, "rate": self.rate}

    @property
    def training(self) -> TrainConfig:
        return TrainConfig(learning_rate=self.rate, epochs=3, batch_size=16)

    def encode(self, raw: Grip) -> Encoded:
        if not np.isfinite(raw.touch).all():
            raise FrameError("a touch sensor gave no number")
        return Encoded(inputs={"touch": raw.touch, "pose": raw.pose}, context=raw.pose)

    def target(self, example: Example) -> Target:
        grip = example.raw
        tensors = {"force": grip.force, "slips": np.array(grip.slips, np.int32)}
        return Target(tensors=tensors, weight=2.0 if grip.slips else 1.0)

    def samples(self, folder: Path | None) -> Iterator[Sample]:
        for number, grip in enumerate(recorded(seed=99, count=200)):
            example = Example(raw=grip, key=str(number))
            yield Sample(self.encode(grip), self.target(example))

    def decode(self, outputs: Tensors, context: Any) -> Sequence[Prediction]:
        """Say the forces of a grip that slips; of another there is nothing to say."""
        if outputs["slipping"][0] <= 0:
            return []
        left, right = outputs["force"]
        return [Prediction(text=f"{left:.2f} N, {right:.2f} N at {context[0]:.2f} rad", score=0.9)]

    def measure(self, outputs: Tensors, targets: Tensors) -> Metrics:
        slipping = outputs["slipping"][:, 0] > 0
        return {
            "error": float(np.abs(outputs["force"] - targets["force"]).mean()),
            "slips_seen": float((slipping == (targets["slips"] == 1)).mean()),
        }
