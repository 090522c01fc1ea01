"""The text classifier in PyTorch: an encoder of Hugging Face's layout and its head.

A folder has config.json, model.safetensors and tokenizer.json, as `save_pretrained` writes them:
DistilBERT, BERT (MiniLM), RoBERTa, CamemBERT and what else transformers builds as a model for
sequence classification with the answer in the first token. Only code of transformers is run, none
of a folder.
"""

import copy
import re
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fleet_model.errors import CheckpointError, SettingsError, TrainingError
from fleet_model.torch.folder import (
    CHECKPOINT,
    CONFIG,
    model_config,
    needed_config,
    quiet_transformers,
    words_of,
)
from fleet_model.torch.model import Cut, Part
from fleet_model.torch.tensors import slots
from fleet_model.types import Tensors
from fleet_model.workloads.text_classifier.classifier import TextClassifier
from fleet_model.workloads.text_classifier.frozen_layers import IDS, LOGITS, cut_between
from fleet_model.workloads.text_classifier.stage import MASK

if TYPE_CHECKING:
    from torch import nn

HIDDEN = "hidden"
HEAD = "head"
# What makes the head in transformers' classes, the longest name first: the layer of the answer is
# "head" in all of them, and one before it "head.dense".
_HEADS = {
    "classifier.out_proj": HEAD,
    "classifier.dense": f"{HEAD}.dense",
    "pre_classifier": f"{HEAD}.dense",
    "classifier": HEAD,
}
# Projections of attention that LoRA's authors adapt (arXiv:2106.09685, section 7.1), as
# transformers' classes name them.
_ATTENTION = re.compile(r"/(q|query|v|value)(_lin|_proj)?/kernel$")
_LAYER = re.compile(r"/layers?/(\d+)/")
_LAST = re.compile(r"last-([1-9]\d*)")
NEW = 0.02  # standard deviation of the numbers that a new head begins with, as transformers has it


class TextClassifierModel:
    """`TorchModel` of the text classifier."""

    files = (CONFIG,)
    class_axes: ClassVar[Mapping[str, int]] = {f"{HEAD}/kernel": 1, f"{HEAD}/bias": 0}

    def __init__(self, workload: TextClassifier) -> None:
        self._labels, self._length = len(workload.labels), workload.max_length
        self._workload = workload

    def build(self, directory: Path) -> "nn.Module":
        """Return the module with arbitrary weights; see TorchModel."""
        import torch
        from transformers import AutoModelForSequenceClassification

        try:
            config = model_config(directory, num_labels=self._labels)
            model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
        except Exception as error:  # noqa: BLE001  (what a class raises at a wrong value)
            raise TrainingError(f"{CONFIG}: {words_of(error, directory)}") from None
        return self._checked(model, TrainingError)

    def load(self, directory: Path) -> "nn.Module":
        """Return the module with the weights of a folder; what it has no weights for is new."""
        from transformers import AutoModelForSequenceClassification

        if missing := [n for n in (CONFIG, CHECKPOINT) if not (directory / n).is_file()]:
            raise CheckpointError(
                f"{directory.name}: has no {missing[0]}; expected a folder as Hugging Face's "
                "save_pretrained writes it, with safetensors"
            )
        try:
            with quiet_transformers():
                model, about = AutoModelForSequenceClassification.from_pretrained(
                    directory,
                    config=model_config(directory, num_labels=self._labels),
                    dtype="float32",
                    local_files_only=True,
                    use_safetensors=True,
                    ignore_mismatched_sizes=True,
                    output_loading_info=True,
                )
        except Exception as error:  # noqa: BLE001  (as above)
            raise CheckpointError(f"{directory.name}: {words_of(error, directory)}") from None
        model = self._checked(model, CheckpointError)
        new = {*about["missing_keys"], *(one[0] for one in about["mismatched_keys"])}
        self._begin(directory, model, new)
        return model

    def shared(self, name: str, content: bytes) -> bytes:
        """Return config.json without what robots need not know; see TorchModel."""
        del name  # there is one file
        return needed_config(content)

    def path(self, name: str) -> str:
        """Return the path of a tensor; that of the head is the same for all encoders."""
        for theirs, ours in _HEADS.items():
            if name.startswith(f"{theirs}."):
                name = f"{ours}{name.removeprefix(theirs)}"
                break
        return name.replace(".", "/")

    def trainable(self, model: "nn.Module", scope: str) -> Sequence[str]:
        """Return the paths of "head", "attention" (for adapters), "last-N" layers, or "all"."""
        paths = [p for p, slot in slots(model, self.path).items() if slot.tensor.requires_grad]
        layers = {int(found[1]) for p in paths if (found := _LAYER.search(p))}
        last = _LAST.fullmatch(scope)
        if scope == "all":
            return paths
        if scope == "attention":
            chosen = {p for p in paths if _ATTENTION.search(p)}
        elif last and int(last[1]) <= len(layers):
            names = sorted(layers)[-int(last[1]) :]
            chosen = {p for p in paths if (f := _LAYER.search(p)) and int(f[1]) in names}
        elif scope == HEAD:
            chosen = set()
        else:
            raise SettingsError(
                f"unknown trainable {scope!r}; choose head, attention (for adapters), last-1 to "
                f"last-{len(layers)} (layers), or all"
            )
        return [p for p in paths if p in chosen or p.startswith(f"{HEAD}/")]

    def cut(self, model: "nn.Module", trained: Collection[str]) -> Cut:
        """Cut before the head where it alone is trained."""
        if all(path.startswith(f"{HEAD}/") for path in trained):
            trunk = Part(_trunk(model), (MASK, IDS), (HIDDEN,), open_axes=(0,))
            return Cut(trunk, Part(_head(model), (HIDDEN,), (LOGITS,)))
        return Cut(None, Part(_whole(model), (MASK, IDS), (LOGITS,), open_axes=(0,)))

    def trainer_cut(self, model: "nn.Module", trained: Collection[str]) -> Cut:
        """Cut between two layers where the lower ones are frozen; see TorchModel."""
        cut = self.cut(model, trained)
        if cut.trunk is not None:
            return cut
        found = {p: _LAYER.search(p) for p in trained if not p.startswith(f"{HEAD}/")}
        layers = {p[: f.start(1) - 1] if f else "" for p, f in found.items()}
        lowest = min(int(f[1]) if f else 0 for f in found.values())
        encoder = f"{model.base_model_prefix}/"
        if lowest == 0 or len(layers) != 1 or not (name := layers.pop()).startswith(encoder):
            return cut
        inside = name.removeprefix(encoder).replace("/", ".")
        return cut_between(model, encoder[:-1], inside, lowest) or cut

    def compact(self, features: Tensors) -> Tensors:
        """Leave out the columns that only pad all texts of a batch."""
        if MASK not in features:
            return features
        used = max(1, int(np.count_nonzero(features[MASK], axis=1).max()))
        return {name: rows[:, :used] for name, rows in features.items()}

    def loss(
        self, targets: Mapping[str, Any], outputs: Mapping[str, Any], sample_weight: Any
    ) -> Any:
        """Return sum(w * cross entropy) / sum(w): a row of weight 0 changes nothing."""
        from torch.nn import functional

        rows = functional.cross_entropy(
            outputs[LOGITS].float(), targets["class"].long(), reduction="none"
        )
        return (sample_weight * rows).sum() / sample_weight.sum().clamp_min(1e-6)

    def _checked(
        self, model: "nn.Module", error: type[CheckpointError | TrainingError]
    ) -> "nn.Module":
        """Return a module for inference; raise `error` for one that these texts do not fit."""
        config: Any = model.config
        room = getattr(config, "max_position_embeddings", self._length)
        room -= 2 if "roberta" in config.model_type or config.model_type == "camembert" else 0
        if room < self._length:
            raise error(
                f"{CONFIG}: the encoder sees {room} tokens of a text, max_length is "
                f"{self._length}; give a smaller one: --set max_length={room}"
            )
        if self._workload.vocabulary > config.vocab_size:
            raise error(
                f"{CONFIG}: the encoder knows {config.vocab_size} tokens, tokenizer.json "
                f"{self._workload.vocabulary}; they do not belong together"
            )
        if not hasattr(model, "classifier"):
            raise error(
                f"{CONFIG}: {config.model_type} has its answer elsewhere than in a layer named "
                "classifier; take a model such as DistilBERT, BERT, RoBERTa or CamemBERT"
            )
        return model.eval()

    def _begin(self, directory: Path, model: "nn.Module", new: Collection[str]) -> None:
        """Set what a folder has no weights for: numbers drawn from the name, biases of zero.

        A vector of weights scales, as that of a norm does: it begins with ones.
        """
        if strange := sorted(n for n in new if not self.path(n).startswith(f"{HEAD}/")):
            raise CheckpointError(
                f"{directory.name}: {CHECKPOINT} has no {strange[0]} of the right shape, and "
                f"{len(strange) - 1} more are missing; is it of another model than {CONFIG}?"
            )
        found = slots(model, self.path)
        kernels = {name.removesuffix("weight") + "kernel": name for name in new}
        for name in sorted(self.path(n) for n in (*new, *kernels)):
            if name not in found:
                continue
            shape = found[name].shape
            random = np.random.default_rng(zlib.crc32(name.encode()))
            if len(shape) > 1:
                value = NEW * random.standard_normal(shape)
            else:
                value = np.full(shape, float(name.endswith("/weight")))
            found[name].assign(value.astype(np.float32))


def _whole(model: "nn.Module") -> "nn.Module":
    """Return (mask, ids), (batch, length) each -> logits (batch, labels)."""
    from torch import nn

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, mask: Any, ids: Any) -> Any:
            return self.model(input_ids=ids.long(), attention_mask=mask.long()).logits

    return Whole().eval()


def _trunk(model: "nn.Module") -> "nn.Module":
    """Return (mask, ids) -> what a head sees: (batch, 1 or 2, width).

    The first token's vector, and the pooler's of an encoder that has one.
    """
    import torch
    from torch import nn

    class Trunk(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = getattr(model, model.base_model_prefix)

        def forward(self, mask: Any, ids: Any) -> Any:
            found = self.encoder(input_ids=ids.long(), attention_mask=mask.long())
            first = found[0][:, :1]
            pooled = getattr(found, "pooler_output", None)
            return first if pooled is None else torch.cat([first, pooled[:, None]], dim=1)

    return Trunk().eval()


def _head(model: "nn.Module") -> "nn.Module":
    """Return what `_trunk` gives -> logits: the module itself, its encoder answering from there."""
    from torch import nn
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    class Seen(nn.Module):
        def forward(self, *_: Any, inputs_embeds: Any = None, **__: Any) -> Any:
            pooled = inputs_embeds[:, 1] if inputs_embeds.shape[1] > 1 else None
            return BaseModelOutputWithPooling(
                last_hidden_state=inputs_embeds[:, :1], pooler_output=pooled
            )

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = copy.copy(model)  # shares the tensors
            modules = {**model._modules, model.base_model_prefix: Seen()}
            self.model._modules = modules

        def forward(self, hidden: Any) -> Any:
            return self.model(inputs_embeds=hidden).logits

    return Head().eval()
