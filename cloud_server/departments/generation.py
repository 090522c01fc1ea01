"""Texts that go on by one token after the other: one base, for each row an adapter of its own.

The base is loaded once and never changes. An adapter is A and B beside some of its linear layers;
which ones count is said for each group of rows before each step. So a group goes on with the
adapters that it has begun with, whatever has been loaded meanwhile.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fleet_model.adapters.spec import A, B
from fleet_model.errors import BundleError
from fleet_model.workloads.causal_lm.peft_files import read_adapter

if TYPE_CHECKING:
    import torch
    from torch import nn

# Path of a layer -> A (fan_in, rank) and B (rank, fan_out), float32, the scale in B; of a group
# with several adapters (rows, fan_in, rank) and (rows, rank, fan_out).
Factors: TypeAlias = "Mapping[str, tuple[torch.Tensor, torch.Tensor]]"


@dataclass(eq=False, slots=True, kw_only=True)
class Ask:
    """One text that is to go on."""

    number: int  # names it
    ids: Sequence[int]
    most: int  # new tokens
    factors: Factors
    temperature: float = 0.0  # 0: the most likely token each time
    top_p: float = 1.0
    seed: int | None = None
    found: int = 0  # tokens until now
    gone: bool = False  # nobody waits for it
    generator: "torch.Generator | None" = field(default=None, init=False)


@dataclass(frozen=True, slots=True)
class Step:
    """What one step has given one text."""

    ask: Ask
    token: int | None  # None: it has ended
    ends: str = ""  # "stop" or "length" with the last one


class Layers:
    """The linear layers of a base that adapters may stand beside."""

    def __init__(self, model: "nn.Module", path: Callable[[str], str]) -> None:
        from torch import nn

        self._now: Factors = {}
        self._path = path
        self._layers = {
            path(f"{name}.kernel"): layer
            for name, layer in model.named_modules()
            if isinstance(layer, nn.Linear)
        }
        for target, layer in self._layers.items():
            layer.register_forward_hook(self._adding(target))

    def read(self, folder: Path) -> Factors:
        """Return an adapter as peft's files have it, where its layers are.

        Raises:
            BundleError: it is damaged, or of another base.
        """
        import torch

        spec, weights = read_adapter(folder, self._path)
        found = {}
        for target, shape in spec.targets.items():
            layer = self._layers.get(target)
            there = None if layer is None else (layer.in_features, layer.out_features)
            if layer is None or there != shape:
                raise BundleError(
                    f"{target} of shape {shape} has an adapter; the base here has "
                    f"{there or 'no such layer'}"
                )
            a, b = (torch.from_numpy(weights[target + end].astype("float32")) for end in (A, B))
            at = layer.weight.device
            found[target] = (a.to(at), (spec.scale * b).to(at))
        return found

    def use(self, factors: Factors) -> None:
        """Answer with these until the next call."""
        self._now = factors

    def _adding(self, target: str) -> Callable[..., Any]:
        def hook(layer: Any, given: Any, answer: Any) -> Any:
            del layer
            pair = self._now.get(target)
            if pair is None:
                return answer
            change = given[0].to(pair[0].dtype) @ pair[0] @ pair[1]
            return answer + change.to(answer.dtype)

        return hook


def together(rows: Sequence[Factors]) -> Factors:
    """Return the factors of several rows as one; of equal rows those of the first."""
    import torch
    from torch.nn import functional

    if all(one is rows[0] for one in rows):
        return rows[0]
    found = {}
    for target in sorted({target for one in rows for target in one}):
        pairs = [one.get(target) for one in rows]
        known = next(pair for pair in pairs if pair is not None)
        rank = max(pair[0].shape[1] for pair in pairs if pair is not None)
        none = (
            known[0].new_zeros(known[0].shape[0], rank),
            known[1].new_zeros(rank, known[1].shape[1]),
        )
        wide = []
        for pair in pairs:
            a, b = pair or none
            more = rank - a.shape[1]
            wide.append((functional.pad(a, (0, more)), functional.pad(b, (0, 0, 0, more))))
        found[target] = torch.stack([a for a, _ in wide]), torch.stack([b for _, b in wide])
    return found


class Group:
    """Texts that have begun together and go on together; each leaves when it has ended."""

    def __init__(
        self, model: Any, layers: Layers, asks: Sequence[Ask], end: int, padding: int
    ) -> None:
        """Compute nothing yet.

        Args:
            model: a causal language model of transformers, in eval mode.
            layers: of this model.
            asks: at least one, each with a token at least.
            end: the token that ends a text.
            padding: the one in front of the shorter texts.
        """
        import torch

        self._model, self._layers, self._end = model, layers, end
        self.asks = list(asks)
        width = max(len(ask.ids) for ask in asks)
        lacking = [width - len(ask.ids) for ask in asks]
        at = next(model.parameters()).device
        rows = [[padding] * n + list(ask.ids) for n, ask in zip(lacking, asks, strict=True)]
        self._next = torch.tensor(rows, device=at)  # (rows, width), then (rows, 1)
        mask = [[0] * n + [1] * (width - n) for n in lacking]
        self._mask = torch.tensor(mask, device=at)  # (rows, all tokens until now)
        self._past: Any = None
        self._factors = together([ask.factors for ask in asks])

    def step(self) -> list[Step]:
        """Give each text its next token; those that have ended leave.

        Raises:
            BundleError: an adapter makes numbers that are none.
        """
        import torch

        self._leave([ask.gone for ask in self.asks])
        if not self.asks:
            return []
        self._layers.use(self._factors)
        width = self._next.shape[1]
        places = (self._mask.cumsum(1) - 1).clamp_min(0)[:, -width:]
        with torch.inference_mode():
            made = self._model(
                input_ids=self._next,
                attention_mask=self._mask,
                position_ids=places,
                past_key_values=self._past,
                use_cache=True,
                logits_to_keep=1,
            )
            scores = made.logits[:, -1].float()  # (rows, words)
            if not torch.isfinite(scores).all():
                raise BundleError("the model's scores are NaN or infinite with this adapter")
            found = [_chosen(ask, row) for ask, row in zip(self.asks, scores, strict=True)]
            self._past = made.past_key_values
            self._next = self._next.new_tensor(found)[:, None]
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(found), 1)], 1)
        steps = [self._told(ask, token) for ask, token in zip(self.asks, found, strict=True)]
        self._leave([bool(step.ends) for step in steps])
        return steps

    def _told(self, ask: Ask, token: int) -> Step:
        if token == self._end:
            return Step(ask, None, "stop")
        ask.found += 1
        return Step(ask, token, "length" if ask.found >= ask.most else "")

    def _leave(self, leaving: Sequence[bool]) -> None:
        if not any(leaving):
            return
        kept = [row for row, leaves in enumerate(leaving) if not leaves]
        self.asks = [self.asks[row] for row in kept]
        if not kept:
            self._past = None
            return
        rows = self._next.new_tensor(kept)
        self._next, self._mask = self._next[rows], self._mask[rows]
        if self._past is not None:
            self._past.batch_select_indices(rows)
        self._factors = together([ask.factors for ask in self.asks])


def _chosen(ask: Ask, scores: "torch.Tensor") -> int:
    """Return the next token of one text; scores are (words,)."""
    import torch

    if ask.temperature <= 0:
        return int(scores.argmax())
    if ask.generator is None:
        ask.generator = torch.Generator(scores.device)
        if ask.seed is None:
            ask.generator.seed()
        else:
            ask.generator.manual_seed(ask.seed)
    shares, order = torch.softmax(scores / ask.temperature, 0).sort(descending=True, stable=True)
    shares[shares.cumsum(0) - shares >= ask.top_p] = 0  # the first one always stays
    place = torch.multinomial(shares, 1, generator=ask.generator)
    return int(order[place])
