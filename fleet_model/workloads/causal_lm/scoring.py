"""What answers cost, and completions, of any model of transformers that goes on with texts."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fleet_model.workloads.causal_lm.language_model import NOTHING, CausalLM

if TYPE_CHECKING:
    from torch import nn


def pooled(model: Any, embed: Callable[..., Any] | None = None) -> "nn.Module":
    """Return (ids, mask, answer) -> mean over tokens of what the last layer says, (batch, width).

    Args:
        model: of transformers.
        embed: as of `scored`.
    """
    from torch import nn

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *given: Any) -> Any:
            *more, ids, mask, _ = given
            ids, mask = ids.long(), mask.long()
            seen = {"inputs_embeds": embed(ids, *more)} if embed else {"input_ids": ids}
            found = self.model.base_model(attention_mask=mask, use_cache=False, **seen)
            weights = mask[..., None].float()
            told = (found.last_hidden_state.float() * weights).sum(1)
            return (told / weights.sum(1).clamp_min(1),)

    return Pooled().eval()


def scored(
    model: Any,
    workload: CausalLM,
    *,
    completes: bool,
    embed: Callable[..., Any] | None = None,
) -> "nn.Module":
    """Return (ids, mask, answer) -> minus log probabilities of answers (batch,), completions.

    Completions are (batch, max_new_tokens) int32, the most likely token at each place; NOTHING
    everywhere in training, and where none are asked for.

    Args:
        model: of transformers.
        workload: whose tokenizer was read.
        completes: whether completions are asked for.
        embed: (ids, *more) -> (batch, length, width), what the first layer sees; the module then
            takes what `more` is before the ids. None: the model's own.
    """
    import torch
    from torch import nn
    from torch.nn import functional
    from transformers import GenerationConfig

    most, end, padding = workload.max_new_tokens, workload.end, workload.padding
    model.generation_config = GenerationConfig(
        max_new_tokens=most, do_sample=False, num_beams=1, eos_token_id=end, pad_token_id=padding
    )

    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *given: Any) -> Any:
            *more, ids, mask, answer = given
            ids, mask, answer = ids.long(), mask.long(), answer.bool()
            nothing = torch.full((len(ids), most), NOTHING, dtype=torch.int32, device=ids.device)
            seen = {"inputs_embeds": embed(ids, *more)} if embed else {"input_ids": ids}
            costs = self._costs(ids, mask, answer, seen)
            if not completes or torch.is_grad_enabled():
                return costs, nothing
            return costs, self._completed(seen, mask * ~answer, nothing)

        def _costs(self, ids: Any, mask: Any, answer: Any, seen: Any) -> Any:
            told = answer[:, 1:]  # of each place: whether the next token is of an answer
            kept = told.any(0).nonzero()[:, 0]
            if not len(kept):
                return torch.zeros(len(ids), device=ids.device)
            scores = self.model(
                attention_mask=mask, logits_to_keep=kept, use_cache=False, **seen
            ).logits.float()  # (batch, kept, words)
            costs = functional.cross_entropy(
                scores.transpose(1, 2), ids[:, 1:][:, kept], reduction="none"
            )
            return (costs * told[:, kept]).sum(1)

        def _completed(self, seen: Any, asked: Any, found: Any) -> Any:
            ((name, rows),) = seen.items()
            counts = asked.sum(1).clamp_min(1)  # a row of padding alone has one token
            width = int(counts.max())
            at = torch.arange(width, device=rows.device) - (width - counts)[:, None]
            places = at.clamp_min(0).view(*at.shape, *(1,) * (rows.dim() - 2))
            before = rows.gather(1, places.expand(*at.shape, *rows.shape[2:]))
            whole = self.model.generate(**{name: before}, attention_mask=(at >= 0).long())
            new = (whole if embed else whole[:, width:]).to(found.dtype)
            ended = (new == end).cumsum(1) - (new == end).to(torch.int64)  # ends before this place
            found[:, : new.shape[1]] = torch.where(ended == 0, new, NOTHING)
            return found

    return Scored().eval()
