"""Third step, in PyTorch: fine-tune an encoder on tokens, measuring while it trains."""

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cloud_server.models.backend import Progress
from cloud_server.pipelines.options import PipelineOptions
from cloud_server.pipelines.prepare import TRAINING, VALIDATION
from cloud_server.pipelines.results import measured, require_finite, write_results
from cloud_server.pipelines.resuming import TrainingState, read_state, write_state
from cloud_server.pipelines.tokens import CONFIG, Part, read_labels, read_tokens
from fleet_model.errors import SettingsError, TrainingError
from fleet_model.types import Metrics, Tensor
from fleet_model.workloads.text_classifier import TextClassifier
from fleet_model.workloads.text_classifier.tokens import TOKENIZER

if TYPE_CHECKING:
    import torch
    from torch import nn

MODEL = "model"  # folder of the result, as Hugging Face's save_pretrained writes it
# Of a tokenizer, beside tokenizer.json, for programs that read them.
_BESIDE = (
    *("tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json"),
    *("merges.txt", "sentencepiece.bpe.model", "added_tokens.json"),
)
_CLIP = 1.0  # longest gradient; the first steps of a new head are long
# Biases and the scales of norms are not drawn to zero, as nearly everywhere.
_NOT_DECAYED_BELOW = 2  # axes


class _Run(NamedTuple):
    """What does not change while it trains."""

    options: PipelineOptions
    module: "nn.Module"
    optimizer: "torch.optim.Optimizer"
    device: "torch.device"
    parts: Mapping[str, Part]
    state_file: Path


def train(
    tokens: Path,
    model: Path,
    options: PipelineOptions,
    into: Path,
    state_file: Path,
    progress: Progress,
) -> None:
    """Write model/, metrics.json and confusion_matrix.png.

    AdamW with decoupled weight decay (arXiv:1711.05101) and a learning rate that falls to zero in a
    line; the model's own dropout is on. On the CPU the same arguments give the same bits, also when
    it was killed in between and resumed.

    Args:
        tokens: what `tokenize` has written.
        model: folder with config.json, model.safetensors, tokenizer.json.
        options: how to train and measure.
        into: an empty folder.
        state_file: gets what a killed training resumes from; removed by the caller.
        progress: is told epochs and scores.

    Raises:
        CheckpointError: the model's files do not fit.
        SettingsError: torch is missing, or there is no such device.
        TrainingError: the loss or a score is no number any more.
    """
    torch, device = _prepare(options)
    labels, parts = read_labels(tokens), read_tokens(tokens)
    workload = TextClassifier(labels, options.max_length)
    workload.read_files(model)
    from fleet_model.workloads.text_classifier.torch_model import TextClassifierModel

    module = TextClassifierModel(workload).load(model).to(device)
    run = _Run(options, module, _optimizer(torch, module, options), device, parts, state_file)
    history = _trained(torch, run, progress)
    found, loss = _answers(torch, run)
    truth = parts[VALIDATION].labels
    metrics = {**measured(found, truth, loss), "history": history}
    require_finite(metrics, history, options.learning_rate)
    _save(module, model, labels, into / MODEL)
    write_results(into, labels, truth, found, metrics, parts)


def _prepare(options: PipelineOptions) -> tuple[Any, "torch.device"]:
    """Return torch and where to compute, both set up for the same bits at every call."""
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"the pipeline needs {error.name}, which is not installed here: "
            "pip install 'fleetlearn[torch-server]'"
        ) from None
    wanted = options.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise SettingsError(f"--device {wanted}: torch cannot compute there; try cpu") from None
    torch.manual_seed(options.seed)
    return torch, device


def _optimizer(torch: Any, module: "nn.Module", options: PipelineOptions) -> Any:
    tensors = [t for t in module.parameters() if t.requires_grad]
    kernels = [t for t in tensors if t.dim() >= _NOT_DECAYED_BELOW]
    others = [t for t in tensors if t.dim() < _NOT_DECAYED_BELOW]
    groups = [
        {"params": kernels, "weight_decay": options.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate)


def _trained(torch: Any, run: _Run, progress: Progress) -> list[dict[str, Any]]:
    """Train from the beginning, or where a killed process was; return the scores on the way."""
    options, rows = run.options, len(run.parts[TRAINING].labels)
    an_epoch = math.ceil(rows / options.batch_size)
    total = an_epoch * options.epochs
    begun = read_state(run.state_file, run.module, run.optimizer, run.device)
    done, history, losses = (begun.step, begun.history, begun.losses) if begun else (0, [], [])
    if begun:
        progress(f"resumed after step {done} of {total}")
    run.module.train()
    for number, batch in enumerate(_batches(options, rows, done), start=done + 1):
        losses.append(_stepped(torch, run, batch, number, total))
        ends = number % an_epoch == 0
        if _is_due(options.evaluate, number, options.every, ends) and number < total:
            history.append(_scores(torch, run, number, number / an_epoch, losses))
            progress(_line(history[-1], options.epochs))
            losses = []
        if _is_due(options.save, number, options.every, ends) and number < total:
            state = TrainingState(number, history, losses)
            write_state(run.state_file, state, run.module, run.optimizer, run.device)
    history.append(_scores(torch, run, total, float(options.epochs), losses))
    progress(_line(history[-1], options.epochs))
    return history


def _is_due(strategy: str, number: int, every: int, ends: bool) -> bool:
    return ends if strategy == "epoch" else strategy == "steps" and number % every == 0


def _batches(options: PipelineOptions, rows: int, done: int) -> Iterator[Tensor]:
    """Yield the rows of each step that is left; an epoch's order is drawn from seed and epoch."""
    number = 0
    for epoch in range(options.epochs):
        order = np.random.default_rng((options.seed, epoch)).permutation(rows)
        for start in range(0, rows, options.batch_size):
            number += 1
            if number > done:
                yield order[start : start + options.batch_size]


def _stepped(torch: Any, run: _Run, rows: Tensor, number: int, total: int) -> float:
    """Take one step; return the mean loss of its rows before it."""
    options = run.options
    for group in run.optimizer.param_groups:
        group["lr"] = options.learning_rate * (1 - (number - 1) / total)
    ids, mask, labels = _given(torch, run, TRAINING, rows)
    with torch.autocast(run.device.type, torch.bfloat16, enabled=run.device.type != "cpu"):
        logits = run.module(input_ids=ids, attention_mask=mask).logits
    loss = torch.nn.functional.cross_entropy(logits.float(), labels)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(run.module.parameters(), _CLIP)
    run.optimizer.step()
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(
            f"the loss is {value} in step {number} of {total}: nothing is kept of it. Take a "
            f"smaller --learning-rate than {options.learning_rate:g}"
        )
    return value


def _given(torch: Any, run: _Run, side: str, rows: Tensor) -> tuple[Any, Any, Any]:
    """Return ids, mask, labels of rows on the device, as short as the longest text allows."""
    part = run.parts[side]
    lengths = part.lengths[rows]
    longest = int(lengths.max())
    mask = np.arange(longest)[None] < lengths[:, None]
    return tuple(
        torch.from_numpy(array.astype(np.int64)).to(run.device)
        for array in (part.ids[rows, :longest], mask, part.labels[rows])
    )


def _answers(torch: Any, run: _Run) -> tuple[Tensor, float]:
    """Return the class that is found for each row of validation, and the mean loss."""
    rows = len(run.parts[VALIDATION].labels)
    found, loss = np.zeros(rows, np.int64), 0.0
    run.module.eval()
    with torch.no_grad():
        for start in range(0, rows, run.options.eval_batch_size):
            chosen = np.arange(start, min(rows, start + run.options.eval_batch_size))
            ids, mask, labels = _given(torch, run, VALIDATION, chosen)
            logits = run.module(input_ids=ids, attention_mask=mask).logits.float()
            losses = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            loss += float(losses)
            found[chosen] = logits.argmax(dim=-1).cpu().numpy()
    run.module.train()
    return found, loss / rows


def _scores(
    torch: Any, run: _Run, number: int, epoch: float, losses: Sequence[float]
) -> dict[str, Any]:
    found, loss = _answers(torch, run)
    scores: Metrics = measured(found, run.parts[VALIDATION].labels, loss)
    mean = float(np.mean(losses)) if losses else None
    return {"step": number, "epoch": round(epoch, 4), "training_loss": mean, **scores}


def _line(scores: Mapping[str, Any], epochs: int) -> str:
    return (
        f"epoch {scores['epoch']:g} of {epochs}: accuracy {scores['accuracy']:.3f}, macro F1 "
        f"{scores['macro_f1']:.3f}, loss {scores['loss']:.3f}"
    )


def _save(module: "nn.Module", model: Path, labels: Sequence[str], into: Path) -> None:
    """Write what `cloud-server init --checkpoint` and transformers read."""
    config: Any = module.config
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    module.eval().to("cpu").save_pretrained(into)
    written = json.loads((into / CONFIG).read_text("utf-8"))
    (into / CONFIG).write_text(json.dumps(written, indent=2, ensure_ascii=False), "utf-8")
    for name in (TOKENIZER, *_BESIDE):
        if (model / name).is_file():
            shutil.copyfile(model / name, into / name)
