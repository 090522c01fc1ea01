"""Turn a text into the numbers of its tokens, as the tokenizer's own file says."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fleet_model.errors import BundleError
from fleet_model.types import Tensor

TOKENIZER = "tokenizer.json"  # as Hugging Face's tokenizers write it
_MOST = 2**31  # numbers travel as int32
_PADDING = ("[PAD]", "<pad>")  # where the file does not say what pads


class Tokens(NamedTuple):
    """One text."""

    ids: Tensor  # (length,) int32, padded
    mask: Tensor  # (length,) int32: 1 for a token, 0 for padding
    cut: int  # tokens that did not fit, and are left out at the end
    known: int  # tokens of the text itself that the tokenizer has a number for
    unknown: int  # those that it has none for


class Tokenizer:
    """A tokenizer's file, for texts of a fixed length; for any number of threads."""

    def __init__(self, directory: Path, length: int) -> None:
        """Read it.

        Args:
            directory: holds TOKENIZER.
            length: tokens of each text, with those that begin and end it.

        Raises:
            BundleError: the file is missing, or none of a tokenizer.
        """
        import tokenizers

        path = directory / TOKENIZER
        try:
            text = path.read_text(encoding="utf-8")
            about = json.loads(text)
            opened = tokenizers.Tokenizer.from_str(text)
        except (FileNotFoundError, NotADirectoryError):
            raise BundleError(
                f"{TOKENIZER}: missing; save it beside the model: tokenizer.save_pretrained(FOLDER)"
            ) from None
        except Exception as error:  # noqa: BLE001  (the library raises Exception itself)
            why = str(error).partition("\n")[0][:200]
            raise BundleError(f"{TOKENIZER}: no tokenizer can be read from it: {why}") from None
        self._length, self._padding = length, _padding(opened)
        if not 0 <= self._padding < _MOST:
            raise BundleError(f"{TOKENIZER}: pads with number {self._padding}, which is none")
        self._unknown = _unknown(about, opened)
        opened.no_padding()
        opened.enable_truncation(length)
        # A vocabulary may have gaps, and what begins and ends a text numbers of its own.
        numbers = (*opened.get_vocab(with_added_tokens=True).values(), *opened.encode("").ids)
        self.size: int = 1 + max((self._padding, *numbers))  # the highest number that it may give
        self._tokenizer = opened

    def tokens(self, text: str) -> Tokens:
        """Return a text as numbers."""
        encoded = self._tokenizer.encode(text)
        ids = np.full(self._length, self._padding, np.int32)
        mask = np.zeros(self._length, np.int32)
        count = len(encoded.ids)
        ids[:count], mask[:count] = encoded.ids, 1
        own = [i for i, s in zip(encoded.ids, encoded.special_tokens_mask, strict=True) if not s]
        unknown = own.count(self._unknown)
        cut = sum(sum(1 for s in rest.special_tokens_mask if not s) for rest in encoded.overflowing)
        return Tokens(ids, mask, cut, len(own) - unknown, unknown)


def _padding(tokenizer: Any) -> int:
    if tokenizer.padding:
        return int(tokenizer.padding["pad_id"])
    numbers = (tokenizer.token_to_id(name) for name in _PADDING)
    return next((number for number in numbers if number is not None), 0)


def _unknown(about: Any, tokenizer: Any) -> int:
    """Return the number that stands for what is unknown; -1 of a tokenizer that knows all bytes."""
    model = about.get("model", {})
    if isinstance(number := model.get("unk_id"), int):
        return number
    number = tokenizer.token_to_id(model.get("unk_token") or "")
    return -1 if number is None else int(number)
