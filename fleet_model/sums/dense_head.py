"""What a head in closed form can be of: one dense layer from frozen features to class logits."""

import hashlib
import json
from dataclasses import dataclass

from fleet_model.bundle import TrainerSpec
from fleet_model.errors import SettingsError
from fleet_model.signatures import FROZEN, TRUNK
from fleet_model.workload import Workload, config_without_classes


@dataclass(frozen=True, slots=True)
class DenseHead:
    """The two trained tensors, by name, and their sizes."""

    kernel: str  # (width, classes)
    bias: str  # (classes,)
    width: int
    classes: tuple[str, ...]  # names, in the order of the columns


def dense_head(spec: TrainerSpec, workload: Workload) -> DenseHead:
    """Return the head of a trainer.

    Raises:
        SettingsError: it has none that sums can make; says why.
    """
    bias, classes = getattr(workload, "class_bias", None), workload.task.learned
    kernels = [name for name in spec.tensors if name != bias]
    shapes = {name: tensor.shape for name, tensor in spec.tensors.items()}
    if not bias or not classes:
        why = f"the workload {spec.workload.name!r} answers no classes with a bias of their own"
    elif bias not in shapes or len(kernels) != 1:
        why = f"robots train {len(shapes)} tensors ({spec.trainable!r})"
    elif shapes[bias] != (len(classes),) or shapes[kernels[0]][1:] != (len(classes),):
        why = f"{kernels[0]} has shape {shapes[kernels[0]]}"
    else:
        return DenseHead(kernels[0], bias, int(shapes[kernels[0]][0]), tuple(classes))
    raise SettingsError(
        f"a head in closed form needs one dense layer on frozen features, and {why}; train with "
        "gradients: leave out --closed-form, and start.closed_form in server.toml"
    )


def trunk_of(spec: TrainerSpec, workload: Workload) -> str:
    """Return a name for what computes the features, 64 hex digits.

    Other labels do not change it: sums stay of use when a fleet gets a new one.
    """
    frozen = {name: spec.files[name].sha256 for name in (TRUNK, FROZEN) if name in spec.files}
    about = [spec.workload.name, config_without_classes(workload), spec.trainable, frozen]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
