"""Models of LLaVA's layout in PyTorch: a vision tower, a projector, a language model with adapters.

As fleet_model/workloads/causal_lm/torch_model.py, whose base, files and adapters they have. The
tower never learns: what it makes of a picture is computed once and kept from round to round, as
it comes out of the layer that the projector takes. That is a fourth of what the projector makes of
it in the model of 7 B parameters, and exactly what a step would compute anew.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fleet_model.errors import CheckpointError
from fleet_model.torch.model import Cut, Part
from fleet_model.types import Tensors
from fleet_model.workloads.causal_lm.scoring import pooled, scored
from fleet_model.workloads.causal_lm.torch_model import (
    ANSWER,
    COMPLETION,
    EMBEDDING,
    IDS,
    MASK,
    NLL,
    CausalLMModel,
    LanguageEngine,
)
from fleet_model.workloads.vision_language.vision_language import PIXELS, VisionLanguage

if TYPE_CHECKING:
    from torch import nn

TOWER = "tower"  # what it makes of a picture: (tokens, width)
_TEXTS = (IDS, MASK, ANSWER)
_LANGUAGE = "language_model/"  # in the paths of what may have adapters


class VisionLanguageModel(CausalLMModel):
    """`TorchModel` of models of LLaVA's layout."""

    _workload: VisionLanguage

    def __init__(self, workload: VisionLanguage) -> None:
        super().__init__(workload)

    def family(self) -> Any:
        """Return what of transformers builds these models."""
        from transformers import LlavaForConditionalGeneration

        return _Llava(LlavaForConditionalGeneration)

    def load(self, directory: Path) -> "nn.Module":
        """Return the base with the weights of an operator's folder; see TorchModel."""
        import torch

        model = super().load(directory)
        layout = self._workload.layout
        pixels = torch.zeros(1, 3, layout.size, layout.size)
        try:
            with torch.no_grad():
                made = _tower(model, pixels).shape[1]
        except (IndexError, TypeError):
            raise CheckpointError(
                f"{directory.name}: config.json: its tower has no vision_feature_layer "
                f"{model.config.vision_feature_layer}"
            ) from None
        if made != layout.tokens:
            raise CheckpointError(
                f"{directory.name}: its tower makes {made} tokens of a picture, expected "
                f"{layout.tokens} by vision_config"
            )
        return model

    def may_adapt(self, path: str) -> bool:
        """Tell whether a linear layer may have an adapter: those of the tower may not."""
        return _LANGUAGE in path and super().may_adapt(path)

    def cut(self, model: "nn.Module", trained: Collection[str]) -> Cut:
        """Return the tower, and what takes its features."""
        del trained
        kept = (TOWER, *_TEXTS)
        return Cut(
            Part(_seeing(model, self._workload), (PIXELS, *_TEXTS), kept),
            Part(self._rest(model, completes=self._workload.exact_match), kept, (NLL, COMPLETION)),
        )

    def part(self, model: "nn.Module", *, completes: bool) -> Part:
        """Return (pixels, ids, mask, answer) -> what answers cost, completions."""
        from torch import nn

        trunk, rest = _seeing(model, self._workload), self._rest(model, completes=completes)

        class Whole(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.rest = rest

            def forward(self, *given: Any) -> Any:
                return self.rest(*trunk(*given))

        return Part(Whole().eval(), (PIXELS, *_TEXTS), (NLL, COMPLETION))

    def compact(self, features: Tensors) -> Tensors:
        """Leave out the columns that only pad all rows of a batch, and nothing of pictures."""
        used = max(1, int(np.count_nonzero(features[MASK], axis=1).max()))
        return {n: rows[:, :used] if n in _TEXTS else rows for n, rows in features.items()}

    def embedder(self, model: "nn.Module") -> Part:
        """Return what the tower and a text give -> an embedding of both, (batch, width)."""
        return Part(pooled(model, self._embed(model)), (TOWER, *_TEXTS), (EMBEDDING,))

    def _rest(self, model: Any, *, completes: bool) -> "nn.Module":
        embed = self._embed(model)
        return scored(model, self._workload, completes=completes, embed=embed)

    def _embed(self, model: Any) -> Callable[[Any, Any], Any]:
        """Return (ids, tower) -> what the language model's first layer sees."""
        token = self._workload.layout.token

        def embed(ids: Any, tower: Any) -> Any:
            words = model.get_input_embeddings()(ids)
            places = ids == token
            seen = places.any(1)
            if not seen.any():
                return words
            projector = model.model.multi_modal_projector
            pictures = projector(tower[seen].to(projector.linear_1.weight.dtype))
            return words.masked_scatter(places[..., None], pictures.to(words.dtype))

        return embed


class VisionLanguageEngine(LanguageEngine):
    """The files of a published adapter and its base, for one instruction at a time."""

    kind: ClassVar[type[CausalLMModel]] = VisionLanguageModel


class _Llava:
    """The class of transformers with the two ways in that its automatic classes have."""

    def __init__(self, kind: Any) -> None:
        self.from_config, self.from_pretrained = kind._from_config, kind.from_pretrained


def _tower(model: Any, pixels: Any) -> Any:
    """Return what the projector takes of pictures: (pictures, tokens, width)."""
    import torch

    config, tower = model.config, model.model.vision_tower
    found = tower(pixels.to(tower.dtype), output_hidden_states=True, return_dict=True).hidden_states
    layers = config.vision_feature_layer
    layers = [layers] if isinstance(layers, int) else layers
    chosen = torch.cat([found[layer] for layer in layers], dim=-1)
    return chosen[:, 1:] if config.vision_feature_select_strategy == "default" else chosen


def _seeing(model: Any, workload: VisionLanguage) -> "nn.Module":
    """Return (pixels, ids, mask, answer) -> (tower, ids, mask, answer).

    A row without a picture has zeros beside others, and alone nothing: (1, 0, width).
    """
    from torch import nn

    layout, config = workload.layout, model.config
    layers = config.vision_feature_layer
    width = config.vision_config.hidden_size * (1 if isinstance(layers, int) else len(layers))

    class Seeing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixels: Any, ids: Any, mask: Any, answer: Any) -> Any:
            shown = (ids == layout.token).any(1)
            found = pixels.new_zeros(len(ids), layout.tokens * bool(shown.any()), width)
            if found.shape[1]:
                found[shown] = _tower(self.model, pixels[shown]).to(found.dtype)
            return found, ids, mask, answer

    return Seeing().eval()
