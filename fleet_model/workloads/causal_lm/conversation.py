"""An instruction as numbers of tokens: what is asked, and the answer with its end."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from fleet_model.errors import BundleError, FrameError, one_line
from fleet_model.types import Instruction

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
# Where newer versions of transformers keep it, and where older ones keep a processor's.
CHAT_TEMPLATE, PROCESSOR_TEMPLATE = "chat_template.jinja", "chat_template.json"
_TEMPLATE = "chat_template"
PICTURE = "<image>"  # in a text that a template takes in parts: a picture belongs here
_PROBE = "said 7 times"  # a text that no template has
_LONGEST_TEMPLATE = 200_000  # characters
# What an instruction looks like where the tokenizer has no chat template (Taori et al. 2023,
# github.com/tatsu-lab/stanford_alpaca, with an input and without).
_ASKED = "### Instruction:\n{}\n\n### Response:\n"


class Numbers(NamedTuple):
    """One instruction."""

    asked: list[int]
    answer: list[int]  # with the token that ends it; empty: the answer is not known


class Conversation:
    """The tokenizer's files of a folder, for any number of threads."""

    def __init__(self, directory: Path) -> None:
        """Read them.

        Args:
            directory: holds TOKENIZER and TOKENIZER_CONFIG; CHAT_TEMPLATE, too, if it is a folder
                that transformers has written.

        Raises:
            BundleError: a file is missing or is something else, or nothing says what ends a text.
        """
        import tokenizers

        about = _about(directory)
        try:
            text = (directory / TOKENIZER).read_text(encoding="utf-8")
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
        except FileNotFoundError:
            raise BundleError(
                f"{TOKENIZER}: missing; save it beside the model: tokenizer.save_pretrained(FOLDER)"
            ) from None
        except Exception as error:  # noqa: BLE001  (the library raises Exception itself)
            why = str(error).partition("\n")[0][:200]
            raise BundleError(f"{TOKENIZER}: no tokenizer can be read from it: {why}") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        numbers = self._tokenizer.get_vocab(with_added_tokens=True).values()
        self.size: int = 1 + max(numbers, default=0)  # numbers that it may give
        self._special = {name: _token(about.get(f"{name}_token")) for name in ("bos", "eos", "pad")}
        end = self._tokenizer.token_to_id(self._special["eos"])
        if end is None:
            raise BundleError(
                f"{TOKENIZER_CONFIG}: its eos_token {self._special['eos']!r} is no token of "
                f"{TOKENIZER}; expected the one that ends a text"
            )
        self.end: int = end
        padding = self._tokenizer.token_to_id(self._special["pad"])
        self.padding: int = end if padding is None else padding
        self._template = _compiled(template_of(directory, about))
        self._in_parts = self._template is not None and self._wants_parts()

    @property
    def has_template(self) -> bool:
        """Return whether turns can be written: the tokenizer has a chat template."""
        return self._template is not None

    def numbers(self, one: Instruction) -> Numbers:
        """Return an instruction as numbers.

        Raises:
            FrameError: it has turns, and there is no chat template, or that refuses them.
        """
        if not one.turns:
            asked = self._tokenizer.encode(one.prompt).ids
            return Numbers(asked, self._ended(one.answer) if one.answer else [])
        if self._template is None:
            return self._plain(one)
        asked_text = self._written(one.turns, more=True)
        answer = one.answer and self._answer(one, asked_text)
        asked = self._tokenizer.encode(asked_text, add_special_tokens=False).ids
        return Numbers(asked, self._ended(answer) if answer else [])

    def text(self, numbers: list[int]) -> str:
        """Return numbers as a text, without special tokens."""
        text: str = self._tokenizer.decode(numbers)
        return text

    def token(self, number: int) -> str | None:
        """Return the token of a number; None where there is none."""
        found: str | None = self._tokenizer.id_to_token(number)
        return found

    def ids(self, text: str) -> list[int]:
        """Return the numbers of a text alone."""
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def _plain(self, one: Instruction) -> Numbers:
        if len(one.turns) > 1:
            raise FrameError(
                f"a conversation of {len(one.turns) + 1} messages, and {TOKENIZER_CONFIG} has no "
                "chat_template to write it with",
                "no chat template",
            )
        asked = self._tokenizer.encode(_ASKED.format(one.turns[0][1])).ids
        return Numbers(asked, self._ended(one.answer) if one.answer else [])

    def _answer(self, one: Instruction, asked: str) -> str:
        """Return the text of the answer as the template writes it behind what was asked.

        A template may write what was asked otherwise once there is an answer; then the answer is
        the text itself.
        """
        whole = self._written((*one.turns, ("assistant", one.answer)), more=False)
        return whole[len(asked) :] if whole.startswith(asked) else one.answer

    def _ended(self, answer: str) -> list[int]:
        """Return an answer up to the first token that ends it, which is added where it has none."""
        found = self.ids(answer)
        return [*(found[: found.index(self.end)] if self.end in found else found), self.end]

    def _written(self, turns: tuple[tuple[str, str], ...], *, more: bool) -> str:
        assert self._template is not None
        messages = [{"role": role, "content": self._content(text)} for role, text in turns]
        special = {f"{name}_token": token for name, token in self._special.items()}
        try:
            text: str = self._template.render(
                messages=messages, add_generation_prompt=more, **special
            )
        except Exception as error:  # noqa: BLE001  (a template raises what its author wants)
            why = one_line(str(error)[:200]) or type(error).__name__
            raise FrameError(
                f"the chat template refuses a conversation: {why}", "refused by the chat template"
            ) from None
        return text

    def _content(self, text: str) -> Any:
        """Return what was said as the template takes it: a text, or parts with their types."""
        if not self._in_parts:
            return text
        before, mark, after = text.partition(PICTURE)
        if not mark:
            return [{"type": "text", "text": text}]
        rest = (before + after.removeprefix("\n")).strip("\n")
        return [{"type": "image"}, {"type": "text", "text": rest}]

    def _wants_parts(self) -> bool:
        """Tell whether a template drops what is said as a text, and writes it in parts."""
        for self._in_parts in (False, True):
            try:
                written = self._written((("user", _PROBE),), more=False)
            except FrameError:
                continue
            if _PROBE in written:
                return self._in_parts
        return False


def template_of(directory: Path, about: dict[str, Any] | None = None) -> str:
    """Return the chat template of a folder; "" without one. Raises BundleError."""
    about = _about(directory) if about is None else about
    try:
        found: Any = (directory / CHAT_TEMPLATE).read_text(encoding="utf-8")
    except FileNotFoundError:
        found = about.get(_TEMPLATE) or _of_processor(directory)
    except (OSError, UnicodeDecodeError):
        raise BundleError(f"{CHAT_TEMPLATE}: cannot be read as a text in UTF-8") from None
    if isinstance(found, list):  # several by name: the one for plain conversations
        named = [one for one in found if isinstance(one, dict) and one.get("name") == "default"]
        found = named[0].get("template", "") if named else ""
    if not isinstance(found, str) or len(found) > _LONGEST_TEMPLATE:
        raise BundleError(f"{TOKENIZER_CONFIG}: its {_TEMPLATE} is no text of a usual length")
    return found


def _of_processor(directory: Path) -> str:
    try:
        about = json.loads((directory / PROCESSOR_TEMPLATE).read_text(encoding="utf-8"))
        return str(about[_TEMPLATE])
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        raise BundleError(f"{PROCESSOR_TEMPLATE}: holds no {_TEMPLATE}") from None


def write_tokenizer_files(source: Path, into: Path) -> None:
    """Write TOKENIZER as it is, and TOKENIZER_CONFIG with what clients need of it alone.

    Raises:
        BundleError: as Conversation.
    """
    Conversation(source)
    about = _about(source)
    kept: dict[str, Any] = {
        f"{name}_token": token
        for name in ("bos", "eos", "pad")
        if (token := _token(about.get(f"{name}_token")))
    }
    if template := template_of(source, about):
        kept[_TEMPLATE] = template
    (into / TOKENIZER).write_bytes((source / TOKENIZER).read_bytes())
    (into / TOKENIZER_CONFIG).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _about(directory: Path) -> dict[str, Any]:
    try:
        about = json.loads((directory / TOKENIZER_CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"{TOKENIZER_CONFIG}: missing; save it beside the model: "
            "tokenizer.save_pretrained(FOLDER)"
        ) from None
    except (OSError, ValueError, RecursionError):
        raise BundleError(f"{TOKENIZER_CONFIG}: is no JSON; save it again") from None
    if not isinstance(about, dict):
        raise BundleError(f"{TOKENIZER_CONFIG}: is no JSON object; save it again")
    return about


def _token(value: Any) -> str:
    """Return a special token, which is a text or an object that holds one."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else ""


def _compiled(template: str) -> Any:
    """Return a template that can be rendered; None without one.

    It comes with the model, so it runs in a sandbox that reads and changes nothing else.
    """
    if not template:
        return None
    import jinja2
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generated(Extension):
        """What stands between generation and endgeneration, as it is: it says what is learned."""

        tags = {"generation"}  # noqa: RUF012  (as its base has it)

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generated]
    )
    environment.globals["raise_exception"] = refuse
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    try:
        return environment.from_string(template)
    except jinja2.TemplateError as error:
        why = one_line(str(error)[:200])
        raise BundleError(f"{TOKENIZER_CONFIG}: its {_TEMPLATE} is no template: {why}") from None
