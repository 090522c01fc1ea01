"""What of a table is asked, and what is answered: its columns, and a row as an instruction.

Four forms are known: messages (a list of objects with role and content, or from and value, the last
one the answer), instruction with input and output, prompt with completion, and a picture with its
text, which is what is learned. A row of the others may have a picture, too.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fleet_model.errors import FrameError
from fleet_model.tables.columns import (
    NO_COLUMN,
    UNCLEAR,
    ChosenColumns,
    Columns,
    Sampled,
    first_named,
    listed,
    shown,
    text_of,
)
from fleet_model.types import Instruction

MESSAGES = ("messages", "conversations", "conversation", "chat")
INSTRUCTION, INPUT = ("instruction",), ("input", "context")
PROMPT = ("prompt", "question", "query", "text", "request")
ANSWER = ("completion", "output", "response", "answer", "reply", "target", "label")
IMAGE = ("image", "image_path", "picture", "photo", "img", "image_file", "image_url", "picture_url")
CAPTION = ("text", "caption", "description", "content", "body")
PICTURE = "picture"  # a form
KNOWN = {  # what else may be known of a row, for profiles -> names of its column
    "source": ("source", "platform", "network", "channel"),
    "author": ("author", "author_id", "user", "user_id", "username"),
    "topic": ("topic", "category", "label", "class", "queue"),
}
_ROLES = ("system", "user", "assistant")
_FROM = {"human": "user", "gpt": "assistant", "system": "system"}  # of LLaVA's own data
_IS_IMAGE = re.compile(r"(?i)[^\n]+\.(jpe?g|png|webp|bmp|tiff?|gif)(\?[^\n]*)?|https?://\S+")
_MOST_TURNS = 1000


def choose_instruction_columns(
    sample: Sequence[Mapping[str, Any]], wanted: Columns, name: str, *, answered: bool
) -> ChosenColumns:
    """Return the columns of a table of instructions by its first rows.

    Args:
        sample: as choose_columns.
        wanted: what the operator says: `text` is what is asked, `label` what is answered.
        name: of the table, for errors.
        answered: whether there must be answers.

    Raises:
        FrameError: a named column is not there, or it is not clear which ones there are.
    """
    look = Sampled(sample, list({one: None for row in sample for one in row}))
    columns = list(look.values)
    for one in (*wanted.text, wanted.label):
        if one and one not in columns:
            raise FrameError(f"{name}: has no column {one!r}; it has {listed(columns)}", NO_COLUMN)
    messages = [one for one in columns if any(map(_is_messages, look.values[one]))]
    chosen = first_named(MESSAGES, messages) or (messages[0] if len(messages) == 1 else "")
    if wanted.text and wanted.text[0] in messages:
        chosen = wanted.text[0]
    image = first_named(IMAGE, columns, lambda one: _names_images(look, one))
    if chosen and not (wanted.text and wanted.text[0] != chosen):
        return replace(_chosen(look, (chosen,), "", "messages"), image=image)
    text, by = wanted.text, "as named"
    if not text:
        free = look.free({wanted.label, image})
        if image and (caption := wanted.label or _caption(free)):
            found = _chosen(look, (caption,), "", PICTURE, "by its name")
            return replace(found, label=caption, image=image)
        text, by = _asked(free), "by its name"
    if not text:
        raise _unclear(name, columns, "what is asked", 'text = "..."', "--text-column")
    label = wanted.label or first_named(ANSWER, look.free(text))
    if answered and not label:
        raise _unclear(name, look.free(text), "the answers", 'label = "..."', "--label-column")
    form = "instruction" if first_named(INSTRUCTION, text) == text[0] else "prompt"
    return replace(_chosen(look, text, label, form, by), image=image)


def instruction_of(
    cells: Mapping[str, Any], columns: ChosenColumns
) -> tuple[Instruction, str] | None:
    """Return what a row asks and answers, with the text that names it; None where it asks nothing.

    An answer that is no text is none. Rows about one picture have one name, that of its file: so
    they are on one side of a split.
    """
    image = (text_of(cells.get(columns.image)) or "").strip() if columns.image else ""
    if columns.form == PICTURE:
        answer = text_of(cells.get(columns.label)) or ""
        return Instruction(answer=answer, image=image), image or answer
    found = _asks(cells, columns)
    if found is None or not image:
        return found
    return replace(found[0], image=image), image


def _asks(cells: Mapping[str, Any], columns: ChosenColumns) -> tuple[Instruction, str] | None:
    if columns.form == "messages":
        return _of_messages(cells.get(columns.text[0]))
    parts = [text_of(cells.get(one)) or "" for one in columns.text]
    asked = [part for part in parts if part.strip()]
    if not asked or not parts[0].strip():
        return None
    answer = text_of(cells.get(columns.label)) or "" if columns.label else ""
    if columns.form == "instruction":
        text = "\n\n".join(asked)
        return Instruction(turns=(("user", text),), answer=answer), text
    text = "\n".join(asked)
    return Instruction(prompt=text, answer=answer), text


def _of_messages(value: Any) -> tuple[Instruction, str] | None:
    if not _is_messages(value):
        return None
    turns = tuple(map(_turn, value))
    answer = ""
    if turns[-1][0] == "assistant":
        *before, (_, answer) = turns
        turns = tuple(before)
    if not any(content.strip() for role, content in turns if role != "system"):
        return None
    text = "\n".join(f"{role}: {content}" for role, content in turns)
    return Instruction(turns=turns, answer=answer), text


def _is_messages(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= _MOST_TURNS
        and all(isinstance(one, dict) and _turn(one)[0] for one in value)
    )


def _turn(one: Mapping[str, Any]) -> tuple[str, str]:
    """Return who says what; "" for what is no role."""
    role, content = one.get("role"), one.get("content")
    if role is None and "from" in one:
        role, content = _FROM.get(str(one["from"]), ""), one.get("value")
    return (role, content) if role in _ROLES and isinstance(content, str) else ("", "")


def _names_images(look: Sampled, name: str) -> bool:
    texts = look.texts[name]
    return sum(bool(_IS_IMAGE.fullmatch(text.strip())) for text in texts) * 2 > len(texts)


def _caption(columns: Sequence[str]) -> str:
    """Return the column of texts that belong to pictures; "" where something is asked of them."""
    if first_named((*INSTRUCTION, *PROMPT[:3], *ANSWER, "request"), columns):
        return ""
    return first_named(CAPTION, columns)


def _asked(columns: Sequence[str]) -> tuple[str, ...]:
    if found := first_named(INSTRUCTION, columns):
        more = first_named(INPUT, [one for one in columns if one != found])
        return (found, more) if more else (found,)
    found = first_named(PROMPT, columns) or first_named(INPUT, columns)
    return (found,) if found else ()


def _chosen(
    look: Sampled, text: tuple[str, ...], label: str, form: str, by: str = "by its content"
) -> ChosenColumns:
    plain = look.chosen(text, label, by)
    free = [one for one in look.values if one not in (*text, label)]
    known = {what: first_named(names, free) for what, names in KNOWN.items()}
    return ChosenColumns(
        text=text,
        label=label,
        split=plain.split,
        id=plain.id,
        text_by=by,
        label_by="as named" if by == "as named" else "by its name",
        rest=plain.rest,
        form=form,
        known={what: column for what, column in known.items() if column},
    )


def _unclear(name: str, columns: Sequence[str], what: str, option: str, flag: str) -> FrameError:
    return FrameError(
        f"{name}: it is not clear which column has {what}; expected messages, instruction and "
        f"output, or prompt and completion; name it: examples.options = {{{option}}} in "
        f"agent.toml, or {flag}; it has {', '.join(map(shown, columns)) or 'no other'}",
        UNCLEAR,
    )
