"""The gripper in Keras: a frozen look at the touch sensors, a small head beside the pose."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fleet_model.errors import SettingsError
from gripper.source import PADS
from gripper.workload import Gripper

SCOPES = {"grip": ("blend", "force", "slipping"), "all": ("look", "blend", "force", "slipping")}


class GripperModel:
    """`KerasModel` of the gripper."""

    litert_scopes = frozenset(SCOPES)

    def __init__(self, workload: Gripper) -> None:
        self._width = workload.width

    def build(self, *, initial_weights: bool = True) -> Any:
        import keras
        from keras import layers

        touch = keras.Input((PADS, PADS), name="touch")
        pose = keras.Input((3,), name="pose")
        seen = layers.Dense(self._width, "tanh", name="look")(layers.Flatten(name="flat")(touch))
        x = layers.Concatenate(name="beside")([seen, pose])
        x = layers.Dense(self._width, "tanh", name="blend")(x)
        outputs = {
            "slipping": layers.Dense(1, name="slipping")(x),
            "force": layers.Dense(2, name="force")(x),
        }
        model = keras.Model({"pose": pose, "touch": touch}, outputs, name="gripper")
        if initial_weights:
            rng = np.random.default_rng(0)
            for variable in model.variables:
                variable.assign(rng.normal(0, 0.3, variable.shape))
        return model

    def trainable(self, model: Any, scope: str) -> Sequence[str]:
        if scope not in SCOPES:
            raise SettingsError(f"unknown trainable {scope!r}; choose {', '.join(SCOPES)}")
        return [v.path for name in SCOPES[scope] for v in model.get_layer(name).variables]

    def loss(
        self, targets: Mapping[str, Any], outputs: Mapping[str, Any], sample_weight: Any
    ) -> Any:
        from keras import ops

        off = ops.mean(ops.square(outputs["force"] - targets["force"]), axis=-1)  # (batch,)
        chance = ops.sigmoid(ops.squeeze(outputs["slipping"], axis=-1))  # (batch,)
        rows = off + ops.square(chance - ops.cast(targets["slips"], "float32"))
        return ops.sum(sample_weight * rows) / ops.maximum(ops.sum(sample_weight), 1e-6)
