"""Encode instructions with their answers, tell what answers cost, read completions."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from fleet_model.bundle import Task, TensorSpec
from fleet_model.errors import BundleError, FrameError, SettingsError
from fleet_model.torch.folder import CONFIG, needed_config
from fleet_model.types import (
    Encoded,
    Example,
    Instruction,
    Metrics,
    Prediction,
    Target,
    Tensor,
    Tensors,
    TrainConfig,
)
from fleet_model.workload import INSTRUCTION, Sample
from fleet_model.workloads.causal_lm.conversation import (
    TOKENIZER,
    TOKENIZER_CONFIG,
    Conversation,
    Numbers,
    write_tokenizer_files,
)
from fleet_model.workloads.text_classifier.sentences import sentences

DTYPES = ("float32", "bfloat16")  # of the base; adapters are always float32
LEAST_LENGTH, MOST_LENGTH, MOST_NEW = 8, 8192, 1024  # tokens
NOTHING = -1  # in the place of a token: there is none
_FOUR_BITS = ("4bit", "4-bit", "int4", "nf4", "8bit", "int8")


class CausalLM:
    """What a text goes on with: adapters of a causal language model.

    Learned are the tokens of answers alone. An example counts as many as its answer has, so that
    a mean over examples, batches and clients is one over tokens.
    """

    raw_kind = INSTRUCTION
    files: tuple[str, ...] = (CONFIG, TOKENIZER, TOKENIZER_CONFIG)
    packages: ClassVar[Mapping[str, str]] = {"tokenizers": "text", "jinja2": "torch"}

    def __init__(
        self,
        max_length: int = 512,
        max_new_tokens: int = 64,
        exact_match: bool = False,
        dtype: str = "float32",
    ) -> None:
        """Say what instructions are.

        Args:
            max_length: tokens of an instruction with its answer; longer ones are left out.
            max_new_tokens: of a completion, at most.
            exact_match: rounds and trials complete the held-out instructions, too, and tell which
                share of completions is the answer; it takes a pass of the model for each token.
            dtype: of the base: "float32", or "bfloat16", which takes half of the memory.

        Raises:
            SettingsError: one of them is wrong.
        """
        for name, value, least, most in (
            ("max_length", max_length, LEAST_LENGTH, MOST_LENGTH),
            ("max_new_tokens", max_new_tokens, 1, MOST_NEW),
        ):
            if not (isinstance(value, int) and least <= value <= most):
                raise SettingsError(f"{name} is {value!r}, expected {least} to {most} tokens")
        if not isinstance(exact_match, bool):
            raise SettingsError(f"exact_match is {exact_match!r}, expected true or false")
        if dtype in _FOUR_BITS:
            raise SettingsError(
                f"dtype is {dtype!r}: a base of so few bits is not trained. On processors with "
                "AVX512-BF16 bitsandbytes packs its numbers anew at the first evaluation, and what "
                "is saved or merged afterwards answers something else, without an error. Take "
                "bfloat16"
            )
        if dtype not in DTYPES:
            raise SettingsError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
        self.max_length, self.max_new_tokens = max_length, max_new_tokens
        self.exact_match, self.dtype = exact_match, dtype
        self._conversation: Conversation | None = None
        self._lock = threading.Lock()  # instructions are encoded in several threads
        self._encoded = self._too_long = 0

    @property
    def task(self) -> Task:
        """Numbers of tokens go in; what the answer costs, and a completion, come out."""
        row = TensorSpec(shape=(self.max_length,), dtype="int32")
        new = TensorSpec(shape=(self.max_new_tokens,), dtype="int32")
        measures: dict[str, Literal["higher", "lower"]] = {"loss": "lower", "perplexity": "lower"}
        if self.exact_match:
            measures["exact_match"] = "higher"
        return Task(
            # 1 in answer_mask: a token of the answer
            inputs={"answer_mask": row, "attention_mask": row, "input_ids": row},
            # the answer's first tokens; how many it has
            targets={"answer": new, "tokens": TensorSpec(shape=(), dtype="int32")},
            # minus the log probability of the answer's tokens, summed
            outputs={"completion": new, "nll": TensorSpec(shape=())},
            measures=measures,
            answer="text",
        )

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the keyword arguments that rebuild this workload."""
        return {
            "max_length": self.max_length,
            "max_new_tokens": self.max_new_tokens,
            "exact_match": self.exact_match,
            "dtype": self.dtype,
        }

    @property
    def training(self) -> TrainConfig:
        """Return how adapters train well.

        SmolLM2 after ten steps of four film reviews to be called good or bad, one seed: a loss of
        0.50 on others with 3e-4, 1.05 with 1e-3, 0.83 with 3e-3, of 7.4 before.
        """
        return TrainConfig(
            epochs=1, batch_size=4, learning_rate=3e-4, adaptive=0.999, clip_norm=1.0
        )

    @property
    def vocabulary(self) -> int:
        """Return how many numbers its tokenizer may give; `read_files` must have read it."""
        return self._open().size

    @property
    def end(self) -> int:
        """Return the number of the token that ends an answer."""
        return self._open().end

    @property
    def padding(self) -> int:
        """Return the number that stands behind the end of an answer."""
        return self._open().padding

    def read_files(self, directory: Path) -> None:
        """Read the tokenizer; raises BundleError. See Workload."""
        self._conversation = Conversation(directory)

    def write_files(self, source: Path, into: Path) -> None:
        """Write the files that travel, from those of a folder; raises BundleError. See Workload."""
        write_tokenizer_files(source, into)
        try:
            (into / CONFIG).write_bytes(needed_config((source / CONFIG).read_bytes()))
        except (OSError, ValueError, AttributeError):
            raise BundleError(f"{CONFIG}: is missing, or no JSON object") from None

    def open_files(self, files: Sequence[Path], num_threads: int) -> Callable[[Tensors], Any]:
        """Return what the files of an engine compute together; raises BundleError. See Workload."""
        from fleet_model.workloads.causal_lm.torch_model import LanguageEngine

        return LanguageEngine(self, files, num_threads)

    def encode(self, raw: Instruction | str) -> Encoded:
        """Return the numbers of what is asked and of the answer, (max_length,) int32 each.

        Raises:
            FrameError: it is no instruction, nothing is asked, or it is too long.
        """
        numbers = self._numbers(raw)
        count, whole = len(numbers.asked), [*numbers.asked, *numbers.answer]
        with self._lock:
            self._encoded += 1
            self._too_long += len(whole) > self.max_length
        if len(whole) > self.max_length:
            raise FrameError(
                f"an instruction of {len(whole)} tokens with its answer, at most "
                f"{self.max_length} are taken (max_length of the workload)",
                "too long",
            )
        ids = np.full(self.max_length, self._open().padding, np.int32)
        mask, answer = np.zeros_like(ids), np.zeros_like(ids)
        ids[: len(whole)], mask[: len(whole)], answer[count : len(whole)] = whole, 1, 1
        return Encoded(inputs={"answer_mask": answer, "attention_mask": mask, "input_ids": ids})

    def from_bytes(self, content: bytes) -> Instruction:
        """Return what a client asks, a text in UTF-8; raises FrameError."""
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            raise FrameError("a text that is not UTF-8", "no text") from None
        if self._open().has_template:
            return Instruction(turns=(("user", text),))
        return Instruction(prompt=text)

    def told(self) -> Sequence[str]:
        """Return what to say of the instructions that were encoded since it was last asked."""
        with self._lock:
            encoded, too_long = self._encoded, self._too_long
            self._encoded = self._too_long = 0
        if not too_long:
            return []
        return [
            f"{too_long} of {encoded} instructions have more than {self.max_length} tokens with "
            "their answer: they are left out (max_length of the workload)"
        ]

    def target(self, example: Example) -> Target:
        """Return the answer's first tokens and their number, which is the example's weight.

        Raises:
            FrameError: no answer is known.
        """
        answer = self._numbers(example.raw).answer
        if not answer:
            raise FrameError("an instruction without an answer", "no answer")
        first = np.full(self.max_new_tokens, NOTHING, np.int32)
        first[: len(answer)] = answer[: self.max_new_tokens]
        tokens = np.array(len(answer), np.int32)
        return Target(tensors={"answer": first, "tokens": tokens}, weight=float(len(answer)))

    def samples(self, folder: Path | None) -> Iterator[Sample]:
        """Yield the halves of texts of a folder, or of the shipped ones, with their targets."""
        known = 0
        for number, text in enumerate(sentences(folder)):
            words = text.split(" ")
            half = max(1, len(words) // 2)
            one = Instruction(prompt=" ".join(words[:half]), answer=" ".join(["", *words[half:]]))
            with suppress(FrameError):  # too long for this workload: it would check nothing
                yield self._sample(one, number)
                known += 1
        if not known:
            raise SettingsError(
                f"no text that exports are checked with has an answer within {self.max_length} "
                "tokens; texts of your own: --calibration FOLDER"
            )

    def _sample(self, one: Instruction, number: int) -> Sample:
        del number
        return Sample(self.encode(one), self.target(Example(raw=one, key="")))

    def decode(self, outputs: Tensors, context: object) -> Sequence[Prediction]:
        """Return the completion as a text; nothing where none was made."""
        del context
        found = self._text(outputs["completion"])
        return [] if found is None else [Prediction(text=found[0])]

    def measure(self, outputs: Tensors, targets: Tensors) -> Metrics:
        """Return loss (nats a token) and perplexity, and where there are completions exact match.

        A completion is exact if it has come to its end within max_new_tokens and is the answer but
        for white space around it; 0..1.
        """
        loss = float(np.sum(outputs["nll"], dtype=np.float64) / targets["tokens"].sum())
        found = {"loss": loss, "perplexity": float(np.exp(min(loss, 700.0)))}
        completions = [self._text(row) for row in outputs["completion"]]
        if None not in completions:
            pairs = zip(completions, map(self._text, targets["answer"]), strict=True)
            same = [ours == theirs and theirs is not None and theirs[1] for ours, theirs in pairs]
            found["exact_match"] = float(np.mean(same))
        return found

    def _text(self, row: Tensor) -> tuple[str, bool] | None:
        """Return the text of a row of tokens, and whether it ends; None of an empty row."""
        numbers = [int(number) for number in row if number != NOTHING]
        if not numbers:
            return None
        ends = self.end in numbers
        text = numbers[: numbers.index(self.end)] if ends else numbers
        return self._open().text(text).strip(), ends

    def _numbers(self, raw: Any) -> Numbers:
        if isinstance(raw, str):
            raw = Instruction(prompt=raw)
        if not isinstance(raw, Instruction):
            raise FrameError(f"a {type(raw).__name__}, expected an instruction", "no instruction")
        if not raw.turns and not raw.prompt.strip():
            raise FrameError("an instruction that asks nothing", "empty text")
        numbers = self._open().numbers(raw)
        if not numbers.asked:
            raise FrameError("an instruction of which the tokenizer knows nothing", "empty text")
        return numbers

    def _open(self) -> Conversation:
        if self._conversation is None:
            raise BundleError(f"{TOKENIZER} has not been read: a text cannot be encoded")
        return self._conversation
