"""A text's model cut between two layers of its encoder: the lower ones are frozen, in PyTorch."""

import copy
from typing import TYPE_CHECKING, Any

from fleet_model.torch.model import Cut, Part
from fleet_model.workloads.text_classifier.stage import MASK

if TYPE_CHECKING:
    from torch import nn

IDS, BETWEEN, LOGITS = "input_ids", "between", "logits"
TOLERANCE = 1e-4  # of logits, relative to the largest


def cut_between(model: "nn.Module", encoder: str, layers: str, frozen: int) -> Cut | None:
    """Return a model in two parts that share its tensors; None if they would compute another thing.

    That is so where an encoder has more than embeddings and layers, as a norm behind the last one.

    Args:
        model: of transformers, for sequence classification.
        encoder: its name in the model.
        layers: the name of the list of layers in the encoder.
        frozen: layers in the lower part, which answers what is between: (batch, length, width), and
            the mask.
    """
    import torch
    from torch import nn

    inner: Any = getattr(model, encoder)
    if not isinstance(inner.get_submodule(layers), nn.ModuleList) or not hasattr(
        inner, "embeddings"
    ):
        return None
    every = inner.get_submodule(layers)

    class Lower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = _with(inner, layers, every[:frozen])

        def forward(self, mask: Any, ids: Any) -> Any:
            return self.encoder(input_ids=ids.long(), attention_mask=mask.long())[0], mask

    class Given(nn.Module):
        def forward(
            self, input_ids: Any = None, inputs_embeds: Any = None, *_: Any, **__: Any
        ) -> Any:
            del input_ids
            return inputs_embeds

    class Upper(nn.Module):
        def __init__(self, trained: nn.ModuleList) -> None:
            super().__init__()
            upper = _with(_with(inner, layers, trained), "embeddings", Given())
            self.model = _with(model, encoder, upper)

        def forward(self, between: Any, mask: Any) -> Any:
            return self.model(inputs_embeds=between, attention_mask=mask.long()).logits

    lower = Lower().eval()
    ids = torch.arange(16).reshape(2, 8) % inner.config.vocab_size
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    own = every[frozen:]
    for trained in (*_first_alone(inner.config.model_type, own), own):
        upper = Upper(trained).eval()
        try:
            with torch.no_grad():
                whole = model(input_ids=ids, attention_mask=mask).logits
                parts = upper(*lower(mask, ids))
        except Exception:  # noqa: BLE001, S112  (of a class that is built in another way)
            continue
        if (whole - parts).abs().max() <= TOLERANCE * whole.abs().max():
            trunk = Part(lower, (MASK, IDS), (BETWEEN, MASK), open_axes=(0,))
            return Cut(trunk, Part(upper, (BETWEEN, MASK), (LOGITS,), open_axes=(0,)))
    return None


def _first_alone(kind: str, layers: "nn.ModuleList") -> "list[nn.ModuleList]":
    """Return layers of which the last answers the first token alone; none where unknown how.

    The head sees no other token. The last layer then computes keys and values of all tokens, and
    all the rest of one: a sixth of its products.
    """
    from torch import nn
    from torch.nn import functional

    if kind != "distilbert":
        return []

    class First(nn.Module):
        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, hidden_states: Any, attention_mask: Any = None, **_: Any) -> Any:
            layer, own, first = self.layer, self.layer.attention, hidden_states[:, :1]

            def heads(found: Any) -> Any:  # (batch, length, width) -> (batch, heads, length, part)
                return found.unflatten(-1, (own.n_heads, -1)).transpose(1, 2)

            seen = functional.scaled_dot_product_attention(
                heads(own.q_lin(first)),
                heads(own.k_lin(hidden_states)),
                heads(own.v_lin(hidden_states)),
                None if attention_mask is None else attention_mask[..., :1, :],
            )
            seen = own.out_lin(seen.transpose(1, 2).flatten(-2))
            seen = layer.sa_layer_norm(seen + first)
            return layer.output_layer_norm(layer.ffn(seen) + seen)

    return [nn.ModuleList([*layers[:-1], First(layers[-1])])]


def _with(module: "nn.Module", name: str, other: "nn.Module") -> "nn.Module":
    """Return a module that shares all but one of its modules with another."""
    first, _, rest = name.partition(".")
    changed = copy.copy(module)
    own: Any = module._modules[first]
    changed._modules = {**module._modules, first: _with(own, rest, other) if rest else other}
    return changed
