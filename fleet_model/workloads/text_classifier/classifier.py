"""Encode a text, know its class, rank the classes that a model answers."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fleet_model.bundle import Task, TensorSpec
from fleet_model.errors import BundleError, FrameError, SettingsError
from fleet_model.types import (
    Encoded,
    Example,
    Metrics,
    Prediction,
    Target,
    Tensor,
    Tensors,
    TrainConfig,
)
from fleet_model.workload import Certainty, OwnTruth, Sample
from fleet_model.workloads.class_names import checked_names
from fleet_model.workloads.classes import (
    accuracy,
    class_certainty,
    class_own_truth,
    class_target,
    cross_entropy,
    ranked,
)
from fleet_model.workloads.text_classifier.sentences import sentences
from fleet_model.workloads.text_classifier.stage import TextStage
from fleet_model.workloads.text_classifier.tokens import TOKENIZER, Tokenizer

LEAST_LENGTH, MOST_LENGTH = 8, 4096  # tokens


class TextClassifier:
    """The class of a text: one of a few names."""

    classes_setting = "labels"
    class_bias = "head/bias"
    # Of 720 sentences, 270 steps, adapters on the last two of MiniLM's six layers: macro F1 .77 at
    # 1e-3 and 2e-3, a guess at 5e-3. MiniLM cut to two layers wants 5e-3 where there are 40 steps
    # only (.69; nothing at 2e-3): too small a rate takes more rounds, too large a one never learns.
    adapter_rate = 1e-3
    files = (TOKENIZER,)
    packages: ClassVar[Mapping[str, str]] = {"tokenizers": "text"}

    def __init__(self, labels: Sequence[str], max_length: int = 128) -> None:
        """Say what texts are.

        Args:
            labels: at least two class names; their order is the order of the logits.
            max_length: tokens of a text that the model sees; the rest of a longer one is left out.

        Raises:
            SettingsError: one of them is wrong.
        """
        if not (isinstance(max_length, int) and LEAST_LENGTH <= max_length <= MOST_LENGTH):
            raise SettingsError(
                f"max_length is {max_length!r}, expected {LEAST_LENGTH} to {MOST_LENGTH} tokens"
            )
        self.labels = checked_names(labels, 2)
        self.max_length = max_length
        self._tokenizer: Tokenizer | None = None
        self._lock = threading.Lock()  # texts are encoded in several threads
        self._encoded = self._cut = self._known = self._unknown = 0

    @property
    def task(self) -> Task:
        """The numbers of tokens go in, one logit for each label comes out."""
        row = TensorSpec(shape=(self.max_length,), dtype="int32")
        return Task(
            inputs={"attention_mask": row, "input_ids": row},
            targets={"class": TensorSpec(shape=(), dtype="int32")},  # index in labels
            outputs={"logits": TensorSpec(shape=(len(self.labels),))},
            measures={"accuracy": "higher", "macro_f1": "higher", "loss": "lower"},
            answer="class",
            classes=self.labels,
        )

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the keyword arguments that rebuild this workload."""
        return {"labels": list(self.labels), "max_length": self.max_length}

    @property
    def training(self) -> TrainConfig:
        """Return how an encoder trains well; clipping keeps the first steps of a new head short."""
        return TrainConfig(
            epochs=1, batch_size=16, learning_rate=5e-4, adaptive=0.999, clip_norm=1.0
        )

    @property
    def vocabulary(self) -> int:
        """Return how many numbers its tokenizer may give; `read_files` must have read it."""
        return self._open().size

    def read_files(self, directory: Path) -> None:
        """Read the tokenizer; raises BundleError. See Workload."""
        self._tokenizer = Tokenizer(directory, self.max_length)

    def open_stage(self, path: Path, num_threads: int) -> TextStage:
        """Return a file of an engine as a stage; raises BundleError. See Workload."""
        return TextStage(path, num_threads, self.max_length)

    def encode(self, raw: str) -> Encoded:
        """Return the numbers of a text's tokens, (max_length,) int32, and the mask of padding.

        Raises:
            FrameError: it is no text, it is empty, or the tokenizer knows nothing of it.
        """
        if not isinstance(raw, str):
            raise FrameError(f"a {type(raw).__name__}, expected a text", "no text")
        tokens = self._open().tokens(raw)
        if not tokens.known:
            what = "holds no token that the tokenizer knows" if tokens.unknown else "is empty"
            raise FrameError(f"a text of {len(raw)} characters {what}", "empty text")
        with self._lock:
            self._encoded += 1
            self._cut += tokens.cut > 0
            self._known += tokens.known
            self._unknown += tokens.unknown
        return Encoded(inputs={"attention_mask": tokens.mask, "input_ids": tokens.ids})

    def from_bytes(self, content: bytes) -> str:
        """Return a text from the bytes of a client; raises FrameError."""
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            raise FrameError("a text that is not UTF-8", "no text") from None

    def told(self) -> Sequence[str]:
        """Return what to say of the texts that were encoded since it was last asked."""
        with self._lock:
            encoded, cut, known, unknown = self._encoded, self._cut, self._known, self._unknown
            self._encoded = self._cut = self._known = self._unknown = 0
        notes = []
        if cut:
            notes.append(
                f"{cut} of {encoded} texts are longer than {self.max_length} tokens: their ends "
                "are left out (max_length of the workload)"
            )
        if unknown > (known + unknown) / 200:
            share = unknown / (known + unknown)
            notes.append(f"{share:.1%} of the tokens of {encoded} texts are unknown")
        return notes

    def target(self, example: Example) -> Target:
        """Return the index of the example's label."""
        return class_target(self.labels, example)

    def samples(self, folder: Path | None) -> Iterator[Sample]:
        """Yield texts of a folder, or the shipped ones."""
        known = 0
        for text in sentences(folder):
            with suppress(FrameError):  # not a token of it is known: it would check nothing
                yield Sample(self.encode(text))
                known += 1
        if not known:
            raise SettingsError(
                f"{TOKENIZER} knows no token of the texts that exports are checked with: is it "
                "of the same model? Texts of your own: --calibration FOLDER"
            )

    def decode(self, outputs: Tensors, context: object) -> Sequence[Prediction]:
        """Rank the classes by their softmax probability."""
        return ranked(self.labels, outputs["logits"])

    def measure(self, outputs: Tensors, targets: Tensors) -> Metrics:
        """Return accuracy and macro F1 (0..1), and the mean cross entropy in nats."""
        return {
            "accuracy": accuracy(outputs, targets),
            "macro_f1": _macro_f1(outputs["logits"].argmax(axis=-1), targets["class"]),
            "loss": cross_entropy(outputs, targets),
        }

    def certainty(self, outputs: Tensors, targets: Tensors) -> Certainty:
        """Return the best class of each row with its probability; see Workload."""
        return class_certainty(outputs, targets)

    def own_truth(self, outputs: Tensors, least: Tensor) -> OwnTruth | None:
        """Return the best class if its probability is enough; see Workload."""
        return class_own_truth(outputs, least)

    def _open(self) -> Tokenizer:
        if self._tokenizer is None:
            raise BundleError(f"{TOKENIZER} has not been read: a text cannot be encoded")
        return self._tokenizer


def _macro_f1(found: Tensor, classes: Tensor) -> float:
    """Return the mean F1 of the classes that a row has or was given; both are (rows,)."""
    scores = []
    for one in np.union1d(found, classes):
        right = np.sum((found == one) & (classes == one))
        scores.append(2 * right / (np.sum(found == one) + np.sum(classes == one)))
    return float(np.mean(scores))
