"""Train with PyTorch: texts, and whatever else has a torch model."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_agent.training.adapted_model import adapted, base_of
from edge_agent.training.feature_cache import FeatureCache, cache_of
from edge_agent.training.profiles.own_profile import profile_reply
from edge_agent.training.trainer import Learner, evaluate, fit
from edge_agent.training.trainers.hardware import (
    device_from_environment,
    rows_from_environment,
    threads_from_environment,
)
from fleet_model.adapters.spec import LoraSpec
from fleet_model.bundle import TRAINER, TrainerSpec
from fleet_model.errors import SettingsError, TrainingError
from fleet_model.memory import available_mb
from fleet_model.signatures import FROZEN
from fleet_model.torch.adapters import LayerAdapters, can_adapt
from fleet_model.torch.model import Cut, Part, TorchModel, torch_model
from fleet_model.torch.tensors import Slot, slots
from fleet_model.types import Checkpoint, Example, Tensor, Tensors, TrainConfig, Update, Weights
from fleet_model.weights import read_weights, require_same_tensors
from fleet_model.workload import Workload, rebuild, require_same_task

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


class TorchTrainer:
    """Train any scope of a workload that has a torch model.

    Steps are those of fleet_model/optimizer.py, in NumPy on the CPU, so that an update is
    comparable with that of any other trainer. On the CPU the same arguments give the same update,
    bit for bit; on a GPU products are in bfloat16.
    """

    def __init__(self, spec: TrainerSpec, directory: Path) -> None:
        """Build the model and load what is frozen.

        Args:
            spec: how clients train.
            directory: holds the verified files of the part "torch".

        Raises:
            SettingsError: PyTorch is not installed here, or there is no such device.
            TrainingError: the files do not fit the model that this workload builds, or there is
                not the memory for it.
        """
        workload = rebuild(spec.workload, directory)
        require_same_task(workload, spec.task, TRAINER)
        definition = torch_model(spec.workload, workload)
        _require_memory(spec, directory, definition)  # before torch: it counts the libraries, too
        device = _prepare_torch()
        learned = _TorchModel(spec, directory, definition, device)
        # Without a trunk the rows are inputs, which lie on this machine already.
        cache = FeatureCache()
        if learned.has_trunk:
            cache = cache_of(spec, workload, directory, "torch")
        model = learned if learned.adapts else adapted(spec, directory, learned)
        self._learner = Learner(spec, workload, model, cache)

    def fit(
        self,
        checkpoint: Checkpoint,
        examples: Iterable[Example],
        config: TrainConfig,
        correction: Weights | None = None,
    ) -> Update:
        """Return the update of one round; see `edge_agent.training.trainer.fit`."""
        try:
            return fit(self._learner, checkpoint, examples, config, correction)
        finally:
            _tell(self._learner.workload)

    def evaluate(self, checkpoint: Checkpoint, examples: Iterable[Example]) -> Update:
        """Return the measures of a checkpoint; see `edge_agent.training.trainer.evaluate`."""
        return evaluate(self._learner, checkpoint, examples)

    def profile(self, checkpoint: Checkpoint, examples: Iterable[Example], sent: Path) -> Update:
        """Return a profile of records; see `edge_agent.training.profiles.own_profile`."""
        return profile_reply(self._learner, checkpoint, examples, sent)


class _TorchModel:
    """`Differentiable` of a torch model, cut before what is trained where that is possible.

    Rows that only pad are left out of what is computed, so a batch is as small as its examples.
    """

    def __init__(
        self, spec: TrainerSpec, directory: Path, definition: TorchModel, device: "torch.device"
    ) -> None:
        model = self._whole = definition.build(directory)
        self._definition, self._device = definition, device
        self._rows_at_once = rows_from_environment()
        model.to(device)
        self._adapters: LayerAdapters | None = None
        if spec.adapter is not None and getattr(definition, "adapts", False):
            self._adapters = LayerAdapters(model, definition.path, spec.adapter)
            self._trained = dict(self._adapters.slots)
        else:
            self._trained = self._found(model, spec, directory)
            if spec.adapter is not None and can_adapt(model, definition.path, spec.adapter):
                self._adapters = self._beside(model, spec.adapter, directory)
        where = getattr(definition, "trainer_cut", definition.cut)
        cut: Cut = where(model, list(spec.variables))
        self._trunk, self._rest = cut.trunk, cut.rest
        for part in filter(None, cut):
            part.module.to(device)  # in place: the slots stay those of the model

    def _found(self, model: Any, spec: TrainerSpec, directory: Path) -> dict[str, Slot]:
        """Give a model what is frozen; return the tensors that are trained."""
        found = dict(slots(model, self._definition.path))
        if missing := sorted(spec.variables.keys() - found.keys()):
            raise TrainingError(
                f"the workload {spec.workload.name!r} builds no tensor {missing[0]} here; do "
                "client and server run the same version of fleetlearn?"
            )
        trained = {name: found.pop(name) for name in spec.variables}
        expected = {path: slot.value() for path, slot in found.items()}
        frozen = read_weights(directory / FROZEN)
        require_same_tensors(expected, frozen, sender=FROZEN, error=TrainingError)
        for path, slot in found.items():
            slot.assign(frozen[path])
            slot.tensor.requires_grad_(requires_grad=False)
        return trained

    def _beside(self, model: Any, adapter: LoraSpec, directory: Path) -> LayerAdapters:
        """Let layers keep their kernels and answer with A and B beside them.

        No step merges kernels or computes their gradients: a third of the step of two layers.
        """
        for path, kernel in base_of(adapter, directory).items():
            slot = self._trained.pop(path)
            slot.assign(kernel)
            slot.tensor.requires_grad_(requires_grad=False)
        adapters = LayerAdapters(model, self._definition.path, adapter)
        self._trained |= adapters.slots
        return adapters

    @property
    def adapts(self) -> bool:
        """Say whether it takes A and B itself, and no merged tensors."""
        return self._adapters is not None

    def set_residuals(self, residuals: Weights) -> None:
        """Take what a rule has added to the adapters; see adapted_model.started."""
        if self._adapters is not None:
            self._adapters.set_residuals(residuals)

    @property
    def has_trunk(self) -> bool:
        """Say whether features are computed once and kept."""
        return self._trunk is not None

    def features(self, inputs: Tensors) -> Tensors:
        if self._trunk is None:
            return {name: inputs[name] for name in self._rest.inputs}
        rows = {name: tensor[None] for name, tensor in inputs.items()}
        return {name: t[0] for name, t in self._answers(self._trunk, rows).items()}

    def gradient(
        self, weights: Weights, features: Tensors, targets: Tensors, sample_weight: Tensor
    ) -> tuple[float, Weights]:
        self._assign(weights)
        used = np.flatnonzero(sample_weight)
        total, loss = float(sample_weight.sum()), 0.0
        for slot in self._trained.values():
            slot.tensor.grad = None
        for rows in self._parts(used):
            weight = sample_weight[rows]
            part = self._loss(
                {name: tensor[rows] for name, tensor in features.items()},
                {name: tensor[rows] for name, tensor in targets.items()},
                weight,
            )
            part = part * (float(weight.sum()) / total)
            part.backward()  # gradients of parts add up
            loss += float(part.detach())
        return loss, {name: slot.gradient() for name, slot in self._trained.items()}

    def outputs(self, weights: Weights, features: Tensors) -> Tensors:
        self._assign(weights)
        return self._answers(self._rest, features)

    def embeddings(self, weights: Weights, features: Tensors) -> Tensors:
        """Return {"embedding": (batch, width)}; raises TrainingError where a model has none."""
        embedder = getattr(self._definition, "embedder", None)
        if embedder is None:
            raise TrainingError("this workload makes no embeddings of records, which a profile has")
        self._assign(weights)
        return self._answers(embedder(self._whole), features)

    def _parts(self, rows: Tensor) -> Iterator[Tensor]:
        size = self._rows_at_once or max(1, len(rows))
        for start in range(0, len(rows), size):
            yield rows[start : start + size]

    def _loss(self, features: Tensors, targets: Tensors, weight: Tensor) -> Any:
        outputs = self._computed(self._rest, features)
        truth = {name: self._given(tensor) for name, tensor in targets.items()}
        return self._definition.loss(truth, outputs, self._given(weight))

    def _answers(self, part: Part, rows: Tensors) -> dict[str, Tensor]:
        import torch

        with torch.no_grad():
            found = self._computed(part, rows)
        return {
            name: (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
            for name, tensor in found.items()
        }

    def _computed(self, part: Part, rows: Tensors) -> dict[str, Any]:
        import torch

        rows = self._definition.compact({name: rows[name] for name in part.inputs})
        given = [self._given(rows[name]) for name in part.inputs]
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type != "cpu"):
            answer = part.module(*given)
        several = answer if isinstance(answer, tuple) else (answer,)
        return dict(zip(part.outputs, several, strict=True))

    def _given(self, tensor: Tensor) -> Any:
        import torch

        # A copy: rows of the cache are views of a file that may not be written.
        return torch.from_numpy(np.array(tensor)).to(self._device)

    def _assign(self, weights: Weights) -> None:
        for name, slot in self._trained.items():
            slot.assign(weights[name])


def _prepare_torch() -> "torch.device":
    """Return where to compute; raises SettingsError."""
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f'trainer = "torch" needs {error.name}: pip install "fleetlearn[torch]" here'
        ) from None
    torch.set_num_threads(threads_from_environment())
    asked = device_from_environment()
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    if asked != "cpu" and not torch.cuda.is_available():
        raise SettingsError(
            f'training.device = "{asked}": torch sees no GPU here; set "auto" or "cpu"'
        )
    device = torch.device(asked)
    if device.index is not None and device.index >= (count := torch.cuda.device_count()):
        raise SettingsError(
            f'training.device = "{asked}": torch sees {count} GPU{"s" * (count != 1)} here, '
            'counted from "cuda:0"; set one of them, "auto" or "cpu"'
        )
    return device


# torch and transformers with a small batch, and copies of what is trained: its gradient in both
# forms, two moments, the checkpoint, and what a step makes of them. MiniLM (91 MB) took 692 MB with
# adapters, and 1,416 MB whole with momentum, which has one copy less (batches of 16, 64 tokens).
_LIBRARIES_MB, _COPIES = 600, 10


def _require_memory(spec: TrainerSpec, directory: Path, definition: TorchModel) -> None:
    """Raise TrainingError where there is clearly not the memory, before torch is imported."""
    free = available_mb()
    if takes := getattr(definition, "memory_mb", None):
        rows = min(rows_from_environment() or spec.batch_size, spec.batch_size)
        needed = takes(spec, directory, rows)
        log.info("training takes about %.0f MB of memory, %.0f MB are free", needed, free)
        if needed > free:
            raise TrainingError(
                f"training takes about {needed:.0f} MB of memory, {free:.0f} MB are free; end "
                "other programs, set training.rows_at_once = 1 in agent.toml, or take a base in "
                "bfloat16 or a smaller max_length at `cloud-server init`"
            )
        return
    trained = sum(4 * int(np.prod(tensor.shape)) for tensor in spec.variables.values())
    frozen = (directory / FROZEN).stat().st_size
    needed = _LIBRARIES_MB + (frozen + _COPIES * trained) / 1e6
    if needed > free:
        raise TrainingError(
            f"training {trained / 1e6:.0f} MB of {(trained + frozen) / 1e6:.0f} MB takes about "
            f"{needed:.0f} MB of memory, {free:.0f} MB are free; end other programs, or train "
            "fewer tensors (`cloud-server init --trainable head`, or --adapter lora)"
        )


def _tell(workload: Workload) -> None:
    """Log what of the inputs was left out, see Workload."""
    told = getattr(workload, "told", None)
    for sentence in told() if told else ():
        log.warning("%s", sentence)
