"""Encode what is asked about pictures, with the answers; measures are those of a language model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fleet_model.bundle import Task, TensorSpec
from fleet_model.errors import BundleError, FrameError, SettingsError
from fleet_model.types import Encoded, Example, Instruction, Target, Tensor, Tensors
from fleet_model.workload import Sample
from fleet_model.workloads import image_classifier
from fleet_model.workloads.causal_lm.conversation import TOKENIZER, Numbers
from fleet_model.workloads.causal_lm.language_model import LEAST_LENGTH, CausalLM
from fleet_model.workloads.vision_language.layout import (
    PREPROCESSOR,
    Layout,
    Preparation,
    layout_of,
    preparation_of,
    write_preparation,
)
from fleet_model.workloads.vision_language.pixels import is_there, pixels_of, read_picture

PIXELS = "pixels"
SMALLEST, LARGEST = 8, 2048  # pixels of a side
# Exports are checked with them, too.
_SHIPPED = sorted((Path(image_classifier.__file__).parent / "pictures").glob("*.jpg"))
NOT_THERE = "with a picture that is not there"


class VisionLanguage(CausalLM):
    """What a text goes on with, or how a question is answered, about a picture or without one.

    A picture stands in the text as as many tokens as the tower makes of it, where the mark of the
    tokenizer is (`<image>`), or at the beginning of what is first asked. Learned are the tokens of
    answers alone; a picture with a text and no question is learned as what goes on behind it.
    """

    files = (*CausalLM.files, PREPROCESSOR)
    packages: ClassVar[Mapping[str, str]] = {**CausalLM.packages}

    def __init__(
        self,
        max_length: int = 1024,
        max_new_tokens: int = 64,
        exact_match: bool = False,
        dtype: str = "float32",
        image_size: int = 336,
    ) -> None:
        """Say what is asked.

        Args:
            max_length: tokens of an instruction with its answer and its picture's; longer ones
                are left out.
            max_new_tokens: as of CausalLM.
            exact_match: as of CausalLM.
            dtype: as of CausalLM.
            image_size: pixels of a side of what the vision tower takes, by its config.json.

        Raises:
            SettingsError: one of them is wrong.
        """
        super().__init__(max_length, max_new_tokens, exact_match, dtype)
        if not (isinstance(image_size, int) and SMALLEST <= image_size <= LARGEST):
            raise SettingsError(
                f"image_size is {image_size!r}, expected {SMALLEST} to {LARGEST} pixels"
            )
        self.image_size = image_size
        self._layout: Layout | None = None
        self._how: Preparation | None = None
        self._mark = ""

    @property
    def task(self) -> Task:
        """A picture and numbers of tokens go in; what the answer costs, and a completion, out."""
        task = super().task
        pixels = TensorSpec(shape=(3, self.image_size, self.image_size), dtype="float32")
        return task.model_copy(update={"inputs": {**task.inputs, PIXELS: pixels}})

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the keyword arguments that rebuild this workload."""
        return {**super().config, "image_size": self.image_size}

    @property
    def layout(self) -> Layout:
        """Return what the model makes of a picture; `read_files` must have read it."""
        if self._layout is None:
            raise BundleError("config.json has not been read: a picture cannot be encoded")
        return self._layout

    def read_files(self, directory: Path) -> None:
        """Read the tokenizer and what the model takes; raises BundleError. See Workload."""
        super().read_files(directory)
        layout = layout_of(directory)
        if layout.size != self.image_size:
            raise BundleError(
                f"config.json: the vision tower takes pictures of {layout.size} pixels, image_size "
                f"is {self.image_size}: --set image_size={layout.size}"
            )
        if self.max_length < layout.tokens + LEAST_LENGTH:
            raise BundleError(
                f"a picture takes {layout.tokens} tokens, and max_length is {self.max_length} with "
                f"the text: give more than {layout.tokens + LEAST_LENGTH}: --set max_length=N"
            )
        self._how = preparation_of(directory, layout.size)
        mark = self._open().token(layout.token)
        if mark is None or self._open().ids(mark) != [layout.token]:
            raise BundleError(
                f"{TOKENIZER}: has no token {layout.token}, which stands for a picture by "
                "config.json (image_token_index); do they belong together?"
            )
        self._layout, self._mark = layout, mark

    def write_files(self, source: Path, into: Path) -> None:
        """Write the files that travel; raises BundleError. See Workload."""
        super().write_files(source, into)
        write_preparation(source, into)

    def open_files(self, files: Sequence[Path], num_threads: int) -> Callable[[Tensors], Any]:
        """Return what the files of an engine compute together; raises BundleError. See Workload."""
        from fleet_model.workloads.vision_language.torch_model import VisionLanguageEngine

        return VisionLanguageEngine(self, files, num_threads)

    def encode(self, raw: Instruction | str) -> Encoded:
        """Return tokens as CausalLM does, and the picture's pixels, zeros where there is none.

        Raises:
            FrameError: as CausalLM, or the picture cannot be read.
        """
        encoded = super().encode(raw)
        return Encoded(inputs={**encoded.inputs, PIXELS: self._pixels(raw)})

    def target(self, example: Example) -> Target:
        """Return the answer; the picture is looked for, and not read.

        Raises:
            FrameError: no answer is known, or there is no such picture.
        """
        image = getattr(example.raw, "image", "")
        if image and "://" not in image and not is_there(image):
            raise FrameError(f"{Path(image).name}: there is no such picture", NOT_THERE)
        return super().target(example)

    def _sample(self, one: Instruction, number: int) -> Sample:
        """Return a text behind one of the shipped pictures."""
        shown = replace(one, image=str(_SHIPPED[number % len(_SHIPPED)]))
        return super()._sample(shown, number)

    def _pixels(self, raw: Instruction | str) -> Tensor:
        if isinstance(raw, str) or not raw.image:
            return np.zeros(self.task.inputs[PIXELS].shape, np.float32)
        assert self._how is not None
        return pixels_of(read_picture(raw.image), self._how)

    def _numbers(self, raw: Any) -> Numbers:
        """Return the numbers of an instruction, those of a picture in the place of its mark."""
        raw = Instruction(prompt=raw) if isinstance(raw, str) else raw
        if not isinstance(raw, Instruction):
            return super()._numbers(raw)  # which says what it is
        token, told = self.layout.token, raw.answer and not (raw.image or raw.turns or raw.prompt)
        if told:  # a text alone: it goes on from nothing
            found = self._open().numbers(raw)
            found = found._replace(asked=found.asked or [self.end])
        else:
            found = super()._numbers(self._marked(raw))
        marks, wanted = found.asked.count(token), int(bool(raw.image))
        if marks != wanted or token in found.answer:
            raise FrameError(
                f"pictures: {wanted}, marks {self._mark} for them: "
                f"{marks + found.answer.count(token)}",
                "with another number of pictures than marks",
            )
        if not marks:
            return found
        at = found.asked.index(token)
        picture = [token] * self.layout.tokens
        return Numbers([*found.asked[:at], *picture, *found.asked[at + 1 :]], found.answer)

    def _marked(self, one: Instruction) -> Instruction:
        """Return an instruction with a mark for its picture."""
        if not one.image or self._mark in "\0".join((one.prompt, *(text for _, text in one.turns))):
            return one
        if not one.turns:
            return replace(one, prompt=f"{self._mark}\n{one.prompt}")
        turns = list(one.turns)
        first = next((n for n, (role, _) in enumerate(turns) if role == "user"), 0)
        turns[first] = (turns[first][0], f"{self._mark}\n{turns[first][1]}")
        return replace(one, turns=tuple(turns))
