"""Causal language models in PyTorch: a base of Hugging Face's layout, adapters beside its layers.

Llama, Qwen, SmolLM2, Mistral, Gemma, Phi and what else transformers builds for causal language
modeling of linear layers. Of a folder config.json, its weights as safetensors, tokenizer.json and
tokenizer_config.json are read. Only code of transformers is run, none of a folder.

The base travels as one file, in the type that it computes with, and never changes; what is trained
and published are adapters (fleet_model/torch/adapters.py), in files as peft reads them.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fleet_model.bundle import TrainerSpec
from fleet_model.errors import BundleError, CheckpointError, SettingsError, TrainingError
from fleet_model.memory import available_mb
from fleet_model.torch.adapters import LayerAdapters
from fleet_model.torch.folder import CONFIG, model_config, quiet_transformers, words_of
from fleet_model.torch.model import Cut, Part
from fleet_model.types import Tensor, Tensors
from fleet_model.workloads.causal_lm.language_model import CausalLM
from fleet_model.workloads.causal_lm.memory import memory_mb
from fleet_model.workloads.causal_lm.peft_files import read_adapter
from fleet_model.workloads.causal_lm.scoring import pooled, scored

if TYPE_CHECKING:
    import torch
    from torch import nn

BASE_MODEL = "base_model.safetensors"
MASK, IDS, ANSWER = "attention_mask", "input_ids", "answer_mask"
NLL, COMPLETION, EMBEDDING = "nll", "completion", "embedding"
# Projections that LoRA's authors adapt (arXiv:2106.09685, section 7.1); some families have all
# three in one layer.
_ATTENTION = re.compile(r"/(q_proj|v_proj|qkv_proj|query_key_value)/kernel$")
_LAYER = re.compile(r"/(layers|h|blocks)/\d+/")
LORA, LORA_ALL = "lora", "lora-all"


class CausalLMModel:
    """`TorchModel` of causal language models."""

    files = (BASE_MODEL,)
    adapts = True

    def __init__(self, workload: CausalLM) -> None:
        self._workload = workload

    def family(self) -> Any:
        """Return what of transformers builds these models."""
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM

    def build(self, directory: Path) -> "nn.Module":
        """Return the base as it travels; see TorchModel."""
        from safetensors import SafetensorError, safe_open

        try:
            config = model_config(directory)
            model = self.family().from_config(config, dtype=self._dtype)
        except Exception as error:  # noqa: BLE001  (what a class raises at a wrong value)
            raise TrainingError(f"{CONFIG}: {words_of(error, directory)}") from None
        file = directory / BASE_MODEL
        found = _tensors(model)
        try:
            with safe_open(file, "pt") as tensors:
                names = set(tensors.keys())
                if strange := sorted(names ^ found.keys()):
                    raise TrainingError(
                        f"{BASE_MODEL}: {strange[0]} is in one of the file and {CONFIG} alone"
                    )
                for name in names:
                    _assign(name, found[name], tensors.get_tensor(name))
        except (SafetensorError, OSError) as error:
            raise TrainingError(f"{BASE_MODEL}: {words_of(error, directory)}") from None
        return self._checked(model, TrainingError)

    def load(self, directory: Path) -> "nn.Module":
        """Return the base with the weights of an operator's folder; see TorchModel."""
        if not (directory / CONFIG).is_file() or not any(directory.glob("*.safetensors")):
            raise CheckpointError(
                f"{directory.name}: has no {CONFIG}, or no .safetensors; expected a folder as "
                "Hugging Face's save_pretrained writes it"
            )
        if (directory / "adapter_config.json").exists():
            raise CheckpointError(
                f"{directory.name}: holds an adapter of peft; start from its base, or merge it "
                "first: model.merge_and_unload().save_pretrained(FOLDER)"
            )
        try:
            with quiet_transformers():
                model, about = self.family().from_pretrained(
                    directory,
                    config=model_config(directory),
                    dtype=self._dtype,
                    local_files_only=True,
                    use_safetensors=True,
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                )
        except Exception as error:  # noqa: BLE001  (as above)
            raise CheckpointError(f"{directory.name}: {words_of(error, directory)}") from None
        if lost := sorted([*about["missing_keys"], *(m[0] for m in about["mismatched_keys"])]):
            raise CheckpointError(
                f"{directory.name}: its weights have no {lost[0]} of the right shape, and "
                f"{len(lost) - 1} more are missing; are they of another model than {CONFIG}?"
            )
        return self._checked(model, CheckpointError)

    def save(self, model: "nn.Module", file: Path) -> int:
        """Write the base as it travels, a tied tensor once; return its bytes."""
        from safetensors.torch import save_file

        tensors = {name: t.detach().contiguous() for name, t in _tensors(model).items()}
        save_file(tensors, file, {"format": "pt"})
        return file.stat().st_size

    def path(self, name: str) -> str:
        """Return the path that a tensor travels by."""
        return name.replace(".", "/")

    def trainable(self, model: "nn.Module", scope: str) -> Sequence[str]:
        """Return the kernels that "lora" (queries and values), "lora-all" (all layers) adapt."""
        from torch import nn

        kernels = [
            path
            for name, layer in model.named_modules()
            if isinstance(layer, nn.Linear) and self.may_adapt(path := self.path(f"{name}.kernel"))
        ]
        if scope not in (LORA, LORA_ALL):
            raise SettingsError(
                f"unknown trainable {scope!r}; a language model trains adapters: choose {LORA} "
                f"(of queries and values) or {LORA_ALL} (of all linear layers)"
            )
        found = [path for path in kernels if scope == LORA_ALL or _ATTENTION.search(path)]
        if not found:
            raise SettingsError(
                f"--trainable {scope}: this model has no such layer among "
                f"{', '.join(sorted({path.split('/')[-2] for path in kernels})) or 'none'}"
                + (f"; try {LORA_ALL}" if kernels else "")
            )
        return found

    def may_adapt(self, path: str) -> bool:
        """Tell whether a linear layer may have an adapter: those of the last scores may not."""
        return bool(_LAYER.search(path))

    def cut(self, model: "nn.Module", trained: Collection[str]) -> Cut:
        """Return all of it: adapters lie from the first layer to the last."""
        del trained
        return Cut(None, self.part(model, completes=self._workload.exact_match))

    def part(self, model: "nn.Module", *, completes: bool) -> Part:
        """Return (ids, mask, answer), (batch, length) each -> what answers cost, completions."""
        made = scored(model, self._workload, completes=completes)
        return Part(made, (IDS, MASK, ANSWER), (NLL, COMPLETION), open_axes=(0,))

    def embedder(self, model: "nn.Module") -> Part:
        """Return what `cut` gives -> an embedding of question and answer, (batch, width)."""
        return Part(pooled(model), (IDS, MASK, ANSWER), (EMBEDDING,), open_axes=(0,))

    def compact(self, features: Tensors) -> Tensors:
        """Leave out the columns that only pad all rows of a batch."""
        used = max(1, int(np.count_nonzero(features[MASK], axis=1).max()))
        return {name: rows[:, :used] for name, rows in features.items()}

    def loss(
        self, targets: Mapping[str, Any], outputs: Mapping[str, Any], sample_weight: Any
    ) -> Any:
        """Return the mean over the tokens of all answers: rows weigh as many as they have."""
        rows = outputs[NLL] / targets["tokens"].clamp_min(1)
        return (sample_weight * rows).sum() / sample_weight.sum().clamp_min(1e-6)

    def memory_mb(self, spec: TrainerSpec, directory: Path, rows: int) -> float:
        """Return about how much memory a training takes, without loading anything.

        Args:
            spec: of the trainer.
            directory: holds the files of the base.
            rows: that are computed at once.
        """
        factors = sum(4 * int(np.prod(tensor.shape)) for tensor in spec.tensors.values())
        base = (directory / BASE_MODEL).stat().st_size
        return memory_mb(directory, base, factors, rows, self._workload.max_length)

    @property
    def _dtype(self) -> str:
        return self._workload.dtype

    def _checked(
        self, model: "nn.Module", error: type[CheckpointError | TrainingError]
    ) -> "nn.Module":
        """Return a module for inference; raise `error` for one that these texts do not fit."""
        config: Any = getattr(model.config, "text_config", model.config)
        room = getattr(config, "max_position_embeddings", None)
        asked = self._workload.max_length + self._workload.max_new_tokens
        if room is not None and room < asked:
            raise error(
                f"{CONFIG}: the model sees {room} tokens, max_length and max_new_tokens are "
                f"{asked} together; give smaller ones: --set max_length=N"
            )
        if self._workload.vocabulary > config.vocab_size:
            raise error(
                f"{CONFIG}: the model knows {config.vocab_size} tokens, tokenizer.json "
                f"{self._workload.vocabulary}; they do not belong together"
            )
        model.requires_grad_(requires_grad=False)
        return model.eval()


class LanguageEngine:
    """The files of a published adapter and its base, for one instruction at a time."""

    kind: ClassVar[type[CausalLMModel]] = CausalLMModel

    def __init__(self, workload: CausalLM, files: Sequence[Path], num_threads: int) -> None:
        """Load them.

        Args:
            workload: whose tokenizer was read.
            files: of one folder, with the base's config.json.
            num_threads: of an answer.

        Raises:
            BundleError: PyTorch is not installed here, there is not the memory, or the files do not
                belong together.
        """
        folder = files[0].parent
        needed, free = memory_mb(folder, (folder / BASE_MODEL).stat().st_size), available_mb()
        if needed > free:
            raise BundleError(
                f"the model takes about {needed:.0f} MB of memory, {free:.0f} MB are free; end "
                "other programs"
            )
        try:
            import torch
            import transformers  # noqa: F401
        except ImportError as error:
            raise BundleError(
                f"a language model needs {error.name}: pip install 'fleetlearn[torch]' here"
            ) from None
        torch.set_num_threads(num_threads)
        definition = self.kind(workload)
        spec, weights = read_adapter(folder, definition.path)
        try:
            self._model = definition.build(folder)
            adapters = LayerAdapters(self._model, definition.path, spec)
        except TrainingError as error:
            raise BundleError(str(error)) from None
        for name, slot in adapters.slots.items():
            slot.assign(weights[name])
        self._definition = definition
        self._parts = [definition.part(self._model, completes=c) for c in (False, True)]
        self._measured = workload.exact_match

    def __call__(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return what the model is measured by, for one instruction; no batch axis on either."""
        return self._run(tensors, completes=self._measured)

    def whole(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return the same with a completion."""
        return self._run(tensors, completes=True)

    def _run(self, tensors: Tensors, *, completes: bool) -> dict[str, Tensor]:
        import torch

        part = self._parts[completes]
        rows = self._definition.compact({name: tensors[name][None] for name in part.inputs})
        with torch.no_grad():
            found = part.module(*(torch.from_numpy(rows[name].copy()) for name in part.inputs))
        return {name: t.numpy()[0] for name, t in zip(part.outputs, found, strict=True)}


def _tensors(model: "nn.Module") -> dict[str, "torch.Tensor"]:
    """Return what a module keeps, by its own names; a tied tensor once, by the first."""
    found: dict[str, torch.Tensor] = {}
    seen = set[int]()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor
    return found


def _assign(name: str, to: "torch.Tensor", value: "torch.Tensor") -> None:
    import torch

    if to.shape != value.shape or to.dtype != value.dtype:
        raise TrainingError(
            f"{BASE_MODEL}: {name} is {tuple(value.shape)} {value.dtype}, expected "
            f"{tuple(to.shape)} {to.dtype}"
        )
    with torch.no_grad():
        to.copy_(value)
