"""Teach a text classifier what a larger one answers, or what people have said, in PyTorch."""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cloud_server.compression.teaching import UNLABELLED, Teaching, rate
from cloud_server.models.backend import Progress
from cloud_server.pipelines.resuming import TrainingState, read_state, write_state
from fleet_model.errors import CheckpointError, SettingsError, TrainingError
from fleet_model.types import Tensor
from fleet_model.weights import write_weights
from fleet_model.workloads.text_classifier import TextClassifier
from fleet_model.workloads.text_classifier.tokens import TOKENIZER, Tokenizer

if TYPE_CHECKING:
    import torch
    from torch import nn

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_CLIP = 1.0  # longest gradient
_NOT_DECAYED_BELOW = 2  # axes
# Batches of texts of like length: of these many, drawn at random, each takes its neighbors.
_SORTED_BATCHES = 16


class Lesson(NamedTuple):
    """Texts as numbers of tokens, by one tokenizer."""

    ids: Tensor  # (texts, length) int32, padded at the end
    lengths: Tensor  # (texts,) int32
    classes: Tensor  # (texts,) int64, index of the label; UNLABELLED: nobody has said


class Answers(NamedTuple):
    """What a teacher says of each text of a lesson."""

    logits: Tensor  # (texts, labels) float32
    features: Tensor  # (texts, width) float32: the first token's vector behind the last layer


def lesson(
    model: Path, texts: Sequence[str], labels: Sequence[str], known: Sequence[str], length: int
) -> Lesson:
    """Return texts as a model's own tokenizer sees them.

    Args:
        model: folder with tokenizer.json.
        texts: to learn from.
        labels: of each text; "" where nobody has said.
        known: all labels, in the order of the model's outputs.
        length: tokens of a text at most.

    Raises:
        SettingsError: a label is unknown.
        BundleError: the tokenizer cannot be read.
    """
    tokenizer, rank = Tokenizer(model, length), {label: n for n, label in enumerate(known)}
    if strange := sorted({*labels} - {*known, ""}):
        raise SettingsError(f"a text has the label {strange[0]!r}; known are {', '.join(known)}")
    found = [tokenizer.tokens(text) for text in texts]
    return Lesson(
        np.stack([one.ids for one in found]),
        np.array([int(one.mask.sum()) for one in found], np.int32),
        np.array([rank.get(label, UNLABELLED) for label in labels], np.int64),
    )


def answers(model: Path, what: Lesson, known: Sequence[str], batch_size: int = 64) -> Answers:
    """Return what a model says of each text, without dropout; raises CheckpointError."""
    torch = _torch()
    module = _load(model, known, what.ids.shape[1]).eval()
    order = np.argsort(what.lengths, kind="stable")
    logits = np.zeros((len(order), len(known)), np.float32)
    features: Tensor | None = None
    with torch.inference_mode():
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            said, vectors = _said(torch, module, what, rows)
            if features is None:
                features = np.zeros((len(order), vectors.shape[1]), np.float32)
            logits[rows], features[rows] = said.numpy(), vectors.numpy()
    if features is None or not np.isfinite(logits).all():
        raise CheckpointError(f"{model.name}: answers no numbers; it cannot teach")
    return Answers(logits, features)


def kl_loss(student: "torch.Tensor", teacher: "torch.Tensor", temperature: float) -> "torch.Tensor":
    """Return T^2 KL(teacher || student), both softened by T, the mean over rows in nats.

    arXiv:1503.02531, section 2: the factor keeps the gradient's size for any temperature.

    Args:
        student: (rows, labels) logits.
        teacher: (rows, labels) logits.
        temperature: above 0.
    """
    from torch.nn import functional

    soft = functional.log_softmax(teacher / temperature, dim=-1)
    own = functional.log_softmax(student / temperature, dim=-1)
    return temperature**2 * (soft.exp() * (soft - own)).sum(dim=-1).mean()


def distill(
    student: Path,
    what: Lesson,
    taught: Answers | None,
    known: Sequence[str],
    how: Teaching,
    into: Path,
    state_file: Path,
    progress: Progress,
) -> None:
    """Write the folder of a student that has learned.

    AdamW (arXiv:1711.05101), a rate that grows over a tenth of the steps and falls to zero in a
    line, the student's own dropout on. On a CPU with one thread the same arguments give the same
    bits, also where it was killed after an epoch and called again.

    Args:
        student: folder as Hugging Face's save_pretrained writes it; a new head is made if it has
            none. What is 0 in its kernels stays 0 (see pruning.py).
        what: by the student's own tokenizer.
        taught: by the teacher, of the same texts; None: it learns from the labels alone.
        known: all labels.
        how: to learn.
        into: an empty folder.
        state_file: what a killed call goes on from, kept after each epoch; removed at the end.
        progress: is told each epoch's loss.

    Raises:
        CheckpointError: the student's files do not fit each other.
        SettingsError: torch is missing, or there is nothing to learn from.
        TrainingError: the loss is no number any more.
    """
    torch = _torch()
    if taught is None and (what.classes == UNLABELLED).any():
        raise SettingsError("texts without a label need a teacher that answers them")
    if taught is not None and len(taught.logits) != len(what.classes):
        raise SettingsError(
            f"the teacher has answered {len(taught.logits)} texts, there are {len(what.classes)}"
        )
    torch.manual_seed(how.seed)
    module = _load(student, known, what.ids.shape[1])
    optimizer, device = _optimizer(torch, module, how), torch.device("cpu")
    zeros = [(t, t == 0) for t in module.parameters() if t.dim() > 1 and bool((t == 0).any())]
    an_epoch = math.ceil(len(what.classes) / how.batch_size)
    total = an_epoch * how.epochs
    begun = read_state(state_file, module, optimizer, device)
    done = begun.step if begun else 0
    if begun:
        progress(f"resumed after step {done} of {total}")
    module.train()
    for epoch in range(done // an_epoch, how.epochs):
        losses = []
        for number, rows in enumerate(_batches(what, how, epoch), start=epoch * an_epoch):
            for group in optimizer.param_groups:
                group["lr"] = how.learning_rate * rate(number, total)
            loss = _loss(torch, module, what, taught, how, rows)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), _CLIP)
            optimizer.step()
            with torch.no_grad():
                for tensor, mask in zeros:
                    tensor[mask] = 0
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise TrainingError(
                    f"the loss is {losses[-1]} in step {number + 1} of {total}: nothing is kept. "
                    f"Take a smaller learning rate than {how.learning_rate:g}"
                )
        progress(f"epoch {epoch + 1} of {how.epochs}: loss {np.mean(losses):.4f}")
        if epoch + 1 < how.epochs:
            write_state(
                state_file, TrainingState((epoch + 1) * an_epoch, [], []), module, optimizer, device
            )
    _save(module, student, known, into)
    state_file.unlink(missing_ok=True)


def _torch() -> Any:
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"distillation needs {error.name}, which is not installed here: "
            "pip install 'fleetlearn[torch-server]'"
        ) from None
    return torch


def _load(model: Path, known: Sequence[str], length: int) -> "nn.Module":
    from fleet_model.workloads.text_classifier.torch_model import TextClassifierModel

    workload = TextClassifier(known, length)
    workload.read_files(model)
    return TextClassifierModel(workload).load(model)


def _optimizer(torch: Any, module: "nn.Module", how: Teaching) -> Any:
    kernels = [t for t in module.parameters() if t.dim() >= _NOT_DECAYED_BELOW]
    others = [t for t in module.parameters() if t.dim() < _NOT_DECAYED_BELOW]
    groups = [
        {"params": kernels, "weight_decay": how.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=how.learning_rate)


def _batches(what: Lesson, how: Teaching, epoch: int) -> Iterator[Tensor]:
    """Yield the rows of each step, in an order drawn from seed and epoch."""
    random = np.random.default_rng((how.seed, epoch))
    order, batches = random.permutation(len(what.classes)), list[Tensor]()
    pool = how.batch_size * _SORTED_BATCHES
    for begin in range(0, len(order), pool):
        some = order[begin : begin + pool]
        some = some[np.argsort(what.lengths[some], kind="stable")]
        batches += [some[at : at + how.batch_size] for at in range(0, len(some), how.batch_size)]
    for at in random.permutation(len(batches)):
        yield batches[at]


def _said(
    torch: Any, module: "nn.Module", what: Lesson, rows: Tensor
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Return logits (rows, labels) and the first token's vectors (rows, width)."""
    longest = int(what.lengths[rows].max())
    mask = np.arange(longest)[None] < what.lengths[rows][:, None]
    found = module(
        input_ids=torch.from_numpy(what.ids[rows, :longest].astype(np.int64)),
        attention_mask=torch.from_numpy(mask.astype(np.int64)),
        output_hidden_states=True,
    )
    return found.logits, found.hidden_states[-1][:, 0]


def _loss(
    torch: Any, module: "nn.Module", what: Lesson, taught: Answers | None, how: Teaching,
    rows: Tensor,
) -> "torch.Tensor":  # fmt: skip
    """Return the mean loss of some rows: of those without a label the teacher's part alone."""
    from torch.nn import functional

    logits, vectors = _said(torch, module, what, rows)
    classes = torch.from_numpy(what.classes[rows])
    if taught is None:
        return functional.cross_entropy(logits, classes)
    labelled = classes != UNLABELLED
    loss = kl_loss(logits, torch.from_numpy(taught.logits[rows]), how.temperature)
    if how.hard and bool(labelled.any()):
        hard = functional.cross_entropy(logits[labelled], classes[labelled])
        share = how.hard * float(labelled.float().mean())
        loss = (1 - share) * loss + share * hard
    if how.features:
        own, theirs = vectors, torch.from_numpy(taught.features[rows])
        loss = loss + how.features * functional.mse_loss(own, theirs)
    return loss


def _save(module: "nn.Module", source: Path, known: Sequence[str], into: Path) -> None:
    config = json.loads((source / _CONFIG).read_text("utf-8"))
    config |= {
        "architectures": [type(module).__name__],
        "id2label": {str(number): label for number, label in enumerate(known)},
        "label2id": {label: number for number, label in enumerate(known)},
    }
    (into / _CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False), "utf-8")
    tensors = {name: t.detach().cpu().numpy() for name, t in module.state_dict().items()}
    write_weights(into / _WEIGHTS, tensors, {"format": "pt"})
    shutil.copyfile(source / TOKENIZER, into / TOKENIZER)
