"""Run a bundle with tensors of a robot's own: the trunk as published, the rest with its weights.

A published head has its weights baked in. So what is trained runs by the trainer's graph, which
takes weights as inputs, on the shared weights of the same version with the robot's own over them.
With adapters the graph takes the kernels themselves: W0 + alpha / rank * A B, with the A of the
version and, where it is the robot's own, its B (FedSA-LoRA, arXiv:2410.01463).

  state/models/versions/000005-<manifest>/
    weights.safetensors              of the bundle: what was trained of this version
    .trainer.json, .trainer.tflite   of the trainer that the manifest names
    .base.safetensors                the same, with adapters: W0
    .personal-<sha256>.safetensors   the robot's own tensors
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fleet_model.adapters.lora import merged
from fleet_model.bundle import FileEntry, Manifest, TrainerSpec, parse_trainer, require_file
from fleet_model.errors import BundleError, CheckpointError
from fleet_model.litert.stage import Shapes, open_interpreter
from fleet_model.signatures import (
    BASE,
    FEATURES,
    INFER,
    OUTPUTS,
    TRAINER_GRAPH,
    WEIGHTS,
    only,
    signature_names,
    tensor_names,
    weight_names,
)
from fleet_model.types import Tensor, Tensors, Weights
from fleet_model.weights import read_weights, require_same_tensors
from fleet_model.workload import Workload

# In the bundle's folder.
SPEC, GRAPH, ADDED_TO = ".trainer.json", ".trainer.tflite", ".base.safetensors"
OWN, OWN_END = ".personal-", ".safetensors"


class OwnTensorsModel:
    """What is trained, with this robot's weights, behind the frozen trunk of a bundle."""

    def __init__(
        self,
        bundle: Path,
        manifest: Manifest,
        workload: Workload,
        own: str,
        trunk: Callable[[Tensors], dict[str, Tensor]],
        known: Shapes,
        num_threads: int,
    ) -> None:
        """Load the graph and the weights.

        Args:
            bundle: directory, with the files that are named above.
            manifest: of the bundle.
            workload: of the bundle.
            own: name of the file with the robot's own tensors.
            trunk: gives what the graph takes, beside the inputs.
            known: shapes of the inputs and of what the trunk gives.
            num_threads: of an answer.

        Raises:
            BundleError: a file is missing, damaged, or does not belong to the others.
        """
        spec = trainer_of(bundle, manifest)
        require_file(bundle / GRAPH, spec.files[TRAINER_GRAPH])
        self._trunk = trunk
        self._weights = overlaid(bundle, manifest, spec, own)
        interpreter = open_interpreter(bundle / GRAPH, num_threads)
        if INFER not in interpreter.get_signature_list():
            raise BundleError(f"{TRAINER_GRAPH} has no signature {INFER!r}")
        self._run = interpreter.get_signature_runner(INFER)
        details = self._run.get_input_details()
        self._features = tensor_names(FEATURES, details, FEATURES)
        self._batch = {name: details[s] for name, s in self._features.items()}
        self._names = weight_names(list(spec.variables))
        task = workload.task
        self._outputs = signature_names(OUTPUTS, task.outputs, only(task.outputs))
        for name, found in self._batch.items():
            if known.get(name) != (shape := tuple(int(n) for n in found["shape"][1:])):
                raise BundleError(
                    f"{TRAINER_GRAPH}: takes {name} {shape}, this bundle gives {known.get(name)}"
                )
        self._rows = self._fewest_rows()

    def __call__(self, inputs: Tensors) -> dict[str, Tensor]:
        """Return the outputs for one encoded input, and the features; no batch axis on either."""
        features = self._trunk(inputs)
        return {**features, **self._answered({**inputs, **features}, self._rows)}

    def _answered(self, values: Tensors, rows: int) -> dict[str, Tensor]:
        given = {self._names[path]: tensor for path, tensor in self._weights.items()}
        for name, signature in self._features.items():
            details = self._batch[name]
            # The rows after the first, if there are any, are zeros.
            given[signature] = np.zeros((rows, *details["shape"][1:]), details["dtype"])
            given[signature][0] = values[name]
        answer = self._run(**given)
        return {name: answer[signature][0] for name, signature in self._outputs.items()}

    def _fewest_rows(self) -> int:
        """Return how many rows the graph is given: one, if it then answers the same.

        It is exported with the batch of a training step, and LiteRT resizes it unless the batch is
        in its constants, too. An answer of the last block of EfficientNet-Lite0 took 46 ms with 32
        rows, 8.4 ms with one, and 4.9 ms without own tensors (shortest of 150 in turns, 128
        pixels): with 32 a trial would refuse the first version that runs with them as too slow.
        """
        batch = max(int(details["shape"][0]) for details in self._batch.values())
        random = np.random.default_rng(0)
        probe = {
            name: random.random(details["shape"][1:]).astype(details["dtype"])
            for name, details in self._batch.items()
        }
        try:
            one = self._answered(probe, 1)
        except (RuntimeError, ValueError):
            return batch
        whole = self._answered(probe, batch)
        alike = all(
            one[name].shape == expected.shape and np.allclose(one[name], expected, 1e-3, 1e-4)
            for name, expected in whole.items()
        )
        return 1 if alike else batch


def trainer_of(bundle: Path, manifest: Manifest) -> TrainerSpec:
    """Return the verified trainer specification beside a bundle; raises BundleError."""
    require_file(bundle / SPEC, manifest.trainer)
    spec = parse_trainer((bundle / SPEC).read_bytes())
    if TRAINER_GRAPH not in spec.parts.get("litert", ()):
        raise BundleError(f"what is trained of version {manifest.version} cannot run by LiteRT")
    if spec.adapter is not None and BASE not in spec.files:
        raise BundleError(f"the trainer of version {manifest.version} has adapters, and no {BASE}")
    return spec


def trainer_files(spec: TrainerSpec) -> dict[str, FileEntry]:
    """Return what of a trainer runs own tensors, by its name in the bundle's folder.

    Args:
        spec: as `trainer_of` returns it.
    """
    files = {GRAPH: spec.files[TRAINER_GRAPH]}
    return files if spec.adapter is None else {**files, ADDED_TO: spec.files[BASE]}


def overlaid(bundle: Path, manifest: Manifest, spec: TrainerSpec, own: str) -> Weights:
    """Return what the graph takes: the shared weights with a robot's own tensors over them.

    With adapters W is merged of what is then A and B, as the server merges what it publishes: with
    an own B that equals the shared one it is the published kernel, bit for bit.

    Returns:
        float32 by path, as and in the order of `spec.variables`.

    Raises:
        BundleError: a file is missing or damaged, or names or shapes do not fit.
    """
    if WEIGHTS not in manifest.files:
        raise BundleError(
            f"version {manifest.version} was published without {WEIGHTS}, by an older server"
        )
    require_file(bundle / WEIGHTS, manifest.files[WEIGHTS])
    try:
        shared, mine = read_weights(bundle / WEIGHTS), read_weights(bundle / own)
    except CheckpointError as error:
        raise BundleError(str(error)) from None
    weights = {**shared, **mine}
    shapes = {name: tensor.shape for name, tensor in spec.tensors.items()}
    if spec.adapter is not None:  # of a rule that the server had before it shared A alone
        shapes |= {name: s for name, s in spec.adapter.residuals.items() if name in shared}
    for name in (*shapes, *mine):
        expected, found = shapes.get(name), weights[name].shape if name in weights else None
        if found != expected:
            raise BundleError(f"{name} has shape {found}, version {manifest.version} {expected}")
    whole = {name: np.ascontiguousarray(weights[name], np.float32) for name in shapes}
    return whole if spec.adapter is None else merged(spec.adapter, whole, _base(bundle, spec))


def _base(bundle: Path, spec: TrainerSpec) -> Weights:
    """Return W0 of every tensor that has an adapter; raises BundleError."""
    assert spec.adapter is not None
    require_file(bundle / ADDED_TO, spec.files[BASE])
    try:
        base = read_weights(bundle / ADDED_TO)
    except CheckpointError as error:
        raise BundleError(str(error)) from None
    expected = {path: np.empty(shape, np.float32) for path, shape in spec.adapter.targets.items()}
    require_same_tensors(expected, base, sender=BASE, error=BundleError)
    return base
