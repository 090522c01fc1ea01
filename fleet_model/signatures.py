"""Names of the files that robots train with, and of the tensors in the signatures of their graphs.

A graph that takes or gives one tensor calls it by its role ("features", "outputs"), as all graphs
of version 0.1.0 do. Of several, each is `role_name`, e.g. "outputs_boxes". Trained tensors have
paths with slashes, so they are numbered: w000, w001, ... and their gradients g000, g001, ...
Numbers have zeros in front because LiteRT returns outputs in string order.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

WEIGHTS, FROZEN = "weights.safetensors", "frozen.safetensors"
BASE = "base.safetensors"  # what adapters add to
TRUNK, TRUNK_INT8, TRAINER_GRAPH = "trunk.tflite", "trunk_int8.tflite", "trainer.tflite"
ANSWER = "answer.tflite"  # the stage that reads answers from maps, in float32 at every precision

SERVE, GRADIENT, INFER = "serving_default", "gradient", "infer"  # signatures
INPUTS, OUTPUTS, TARGETS = "inputs", "outputs", "targets"  # roles
MAPS = "maps"  # the role of what answers are read from
FEATURES = "features"  # a role, and the name of what passes from one stage to the next
SAMPLE_WEIGHT, LOSS = "sample_weight", "loss"


def weight_names(paths: Sequence[str]) -> dict[str, str]:
    """Return path -> w000, w001, ... in the order of TrainerSpec.tensors."""
    return {path: f"w{number:03d}" for number, path in enumerate(paths)}


def gradient_names(paths: Sequence[str]) -> dict[str, str]:
    """Return path -> g000, g001, ... in the order of TrainerSpec.tensors."""
    return {path: f"g{number:03d}" for number, path in enumerate(paths)}


def only(names: Collection[str]) -> str:
    """Return the one name there is; "" of none or several."""
    return next(iter(names)) if len(names) == 1 else ""


def signature_names(role: str, names: Iterable[str], default: str) -> dict[str, str]:
    """Return tensor name -> name in the signature.

    Args:
        role: INPUTS, OUTPUTS, FEATURES, MAPS or TARGETS.
        names: of the tensors.
        default: the tensor that the role alone names, "" for none.
    """
    listed = list(names)
    return {default: role} if listed == [default] else {n: f"{role}_{n}" for n in listed}


def tensor_names(role: str, found: Iterable[str], default: str) -> Mapping[str, str]:
    """Return tensor name -> name in the signature, of those of `found` that have this role."""
    names = {}
    for name in found:
        if name == role:
            names[default] = name
        elif name.startswith(f"{role}_"):
            names[name.removeprefix(f"{role}_")] = name
    return names
