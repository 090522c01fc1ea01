"""Which columns of a table hold the text and the label: named, or found out and told."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, NamedTuple

from fleet_model.errors import FrameError, SettingsError
from fleet_model.tables.rows import is_held_out

SAMPLE = 1000  # rows that columns are chosen by
# In this order, when they are words of a text; a ticket may also be a number.
TEXT_NAMES = (
    *("text", "sentence", "message", "body", "content", "review", "ticket", "description"),
    *("comment", "question", "utterance", "tweet"),
)
LABEL_NAMES = (
    *("label", "category", "class", "target", "sentiment", "department", "labels"),
    *("intent", "topic", "queue", "class_name", "label_name", "label_text"),
)
_ID_NAMES = ("id", "ticket_id", "message_id", "row_id", "uid", "uuid", "idx", "index")
_SPLIT_NAMES = ("split", "subset", "set", "fold")
_FEW = 50  # different values of a column of labels, at most; and half of its rows
_MOST_SHOWN = 12  # columns in an error
_WORDY = 0.2  # share of a column's values with white space, from which on it holds texts
_LEARNED = 0.5  # share of a column's values that are labels of the fleet: then it has the labels
_MOST_DIGITS = 19  # of a whole number that JSON writes as 1e3 or 1.0: those that 64 bits hold
NO_COLUMN, UNCLEAR = "no such column", "columns not clear"


class Columns(NamedTuple):
    """What the operator says about columns; empty: it is found out."""

    text: tuple[str, ...] = ()  # several are joined, each on a line of its own
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenColumns:
    """What is read of a table."""

    text: tuple[str, ...]
    label: str  # "": no column has labels
    split: str = ""  # says which rows are held out; "": none does
    id: str = ""  # names a row for people
    text_by: str  # why these, in words
    label_by: str = ""
    rest: tuple[str, ...] = ()  # the other columns
    # Of instructions, see instructions.py: "messages", "instruction", "prompt", "picture"
    form: str = ""
    image: str = ""  # names pictures; "": none does
    known: Mapping[str, str] = field(default_factory=dict)  # "source", "author", "topic" -> column

    @property
    def words(self) -> str:
        """Return it in a line for people."""
        text = " and ".join(map(shown, self.text))
        if self.form:
            answers = f", answers in {shown(self.label)} ({self.label_by})" if self.label else ""
            split = f", held out by {shown(self.split)}" if self.split else ""
            images = f", pictures in {shown(self.image)}" if self.image else ""
            return f"{self.form} in {text} ({self.text_by}){answers}{images}{split}"
        label = f"labels in {shown(self.label)} ({self.label_by})" if self.label else "no labels"
        split = f", held out by {shown(self.split)}" if self.split else ""
        return f"text in {text} ({self.text_by}), {label}{split}"

    @property
    def all(self) -> tuple[str, ...]:
        """Return the columns that are read."""
        names = (*self.text, self.label, self.split, self.id, self.image, *self.known.values())
        return tuple(name for name in dict.fromkeys(names) if name)


def columns_of_options(text: Any, label: Any) -> Columns:
    """Return what settings say; raises SettingsError for what is no name."""
    texts = [text] if isinstance(text, str) else text
    if not isinstance(texts, (list, tuple)) or not all(isinstance(one, str) for one in texts):
        raise SettingsError('the option text is no column; expected e.g. "body" or ["title", "b"]')
    if not isinstance(label, str):
        raise SettingsError('the option label is no column; expected e.g. "category"')
    return Columns(tuple(filter(None, texts)), label)


def choose_columns(
    sample: Sequence[Mapping[str, Any]], wanted: Columns, labels: Sequence[str], name: str
) -> ChosenColumns:
    """Return the columns of a table by its first rows.

    The text: the first of TEXT_NAMES whose values are words, else the column with the longest
    different texts. The label: the column whose values are mostly labels of the fleet, else the
    first of LABEL_NAMES, else the one column with few different values.

    Args:
        sample: SAMPLE rows at most, one at least: column -> value.
        wanted: what the operator says.
        labels: of the fleet; none if they are not known.
        name: of the table, for errors.

    Raises:
        FrameError: a named column is not there, or it is not clear which one has the text.
    """
    columns = {name: None for row in sample for name in row}
    look = Sampled(sample, list(columns))
    for one in (*wanted.text, wanted.label):
        if one and one not in columns:
            raise FrameError(f"{name}: has no column {one!r}; it has {listed(columns)}", NO_COLUMN)
    if strange := next((one for one in columns if one in labels and one not in wanted.text), None):
        raise FrameError(
            f"{name}: its first line has the label {strange!r}, so it is a row; expected the names "
            "of the columns there, e.g. text,label",
            "no names of columns",
        )
    text, text_by = wanted.text, "as named"
    if not text:
        one, text_by = _text_of(look, wanted.label, name)
        text = (one,)
    label, label_by = wanted.label, "as named"
    if not label:
        label, label_by = _label_of(look, text, labels)
    return replace(look.chosen(text, label, text_by), label_by=label_by)


def without_labels(columns: ChosenColumns, name: str) -> FrameError:
    """Return the error of a table that has to have labels, and no column of which is clear."""
    others = f"; it has {listed(columns.rest)}" if columns.rest else ""
    return FrameError(
        f"{name}: it is not clear which column has the labels; name it: examples.options = "
        f'{{label = "..."}} in agent.toml, or --label-column{others}',
        UNCLEAR,
    )


def label_of(value: Any) -> str | None:
    """Return the label that a cell holds, "" for none; None where it is nothing of the kind.

    Numbers are labels as well: 1, 1.0 and "1" are the same one. A list of one label is that label.
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list) and len(value) == 1:
        return None if isinstance(value[0], list) else label_of(value[0])
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or _is_whole(value):
        return str(int(value))
    return None if isinstance(value, (list, dict)) else str(value)


def text_of(value: Any) -> str | None:
    """Return the text of a cell, "" for none; None where it is nothing of the kind."""
    if isinstance(value, str):
        return value
    return None if isinstance(value, (list, dict)) else label_of(value)


class Sampled:
    """What the first rows tell of each column."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], names: Iterable[str]) -> None:
        self.values = {name: [row.get(name) for row in rows] for name in names}
        self.texts = {
            name: [value for value in map(text_of, values) if value and value.strip()]
            for name, values in self.values.items()
        }
        self.names = [name for name, found in self.texts.items() if found]

    def free(self, taken: Iterable[str]) -> list[str]:
        """Return the columns that hold something, but for some."""
        return [name for name in self.names if name not in set(taken)]

    def is_wordy(self, name: str) -> bool:
        """Return whether values are texts: of words with spaces, or of a script without any."""
        texts = self.texts[name]
        words = sum(" " in text.strip() or any(c > "\u2e7f" for c in text) for text in texts)
        return words >= _WORDY * len(texts) and not self.is_numeric(name)

    def is_numeric(self, name: str) -> bool:
        """Return whether all values are numbers."""
        return all(map(_is_number, self.texts[name]))

    def is_split(self, name: str) -> bool:
        """Return whether all values say which rows are held out."""
        found = {is_held_out(text) for text in self.texts[name]}
        return None not in found

    def is_single(self, name: str) -> bool:
        """Return whether no value comes twice."""
        return len(set(self.texts[name])) == len(self.texts[name])

    def length(self, name: str) -> float:
        """Return the mean length of a value, times the share of those that are different."""
        texts = self.texts[name]
        return sum(map(len, set(texts))) / len(texts)

    def has_few(self, name: str) -> bool:
        """Return whether a column may hold labels: values that come again, and are no numbers."""
        texts = self.texts[name]
        different = len(set(texts))
        fraction = any("." in text and _is_number(text) for text in texts)
        return 2 <= different <= min(_FEW, len(texts) / 2) and not fraction

    def chosen(self, text: tuple[str, ...], label: str, text_by: str) -> ChosenColumns:
        """Return these columns with those that say what is held out, and what a row is called."""
        free = self.free({*text, label})
        return ChosenColumns(
            text=text,
            label=label,
            split=first_named(_SPLIT_NAMES, free, self.is_split),
            id=first_named(_ID_NAMES, free, self.is_single),
            text_by=text_by,
            rest=tuple(one for one in self.values if one not in (*text, label)),
        )

    def learned(self, name: str, labels: Sequence[str]) -> float:
        """Return the share of the values that are labels of the fleet."""
        known = set(labels)
        found = [label_of(value) for value in self.values[name]]
        told = [label for label in found if label]
        return sum(label in known for label in told) / len(told) if told else 0.0


def _text_of(look: Sampled, label: str, name: str) -> tuple[str, str]:
    free = look.free({label})
    for wordy in (look.is_wordy, lambda one: not look.is_numeric(one)):
        if found := first_named(TEXT_NAMES, free, wordy) or first_named(
            TEXT_NAMES, free, wordy, parts=True
        ):
            return found, "by its name"
    texts = [one for one in free if look.is_wordy(one) and not look.has_few(one)]
    if not texts:
        raise FrameError(
            f"{name}: no column looks like texts among {listed(look.names)}; name it: "
            'examples.options = {text = "..."} in agent.toml, or --text-column',
            UNCLEAR,
        )
    return max(texts, key=look.length), "by its content"


def _label_of(look: Sampled, text: Sequence[str], labels: Sequence[str]) -> tuple[str, str]:
    """Return the column of labels, "" if there is none, or several may be it."""
    free = look.free(text)
    shares = {one: look.learned(one, labels) for one in free} if labels else {}
    best = max(shares.values(), default=0.0)
    if best >= _LEARNED:
        equal = [one for one in free if shares[one] == best]
        return first_named(LABEL_NAMES, equal) or equal[0], "by the fleet's labels"
    rest = [one for one in free if not look.is_split(one)]
    named = first_named(LABEL_NAMES, rest) or first_named(
        LABEL_NAMES, rest, look.has_few, parts=True
    )
    if named:
        return named, "by its name"
    few = [one for one in rest if look.has_few(one)]
    if len(few) > 1:
        few = [one for one in few if not look.is_numeric(one)] or few
    return (few[0], "by its content") if len(few) == 1 else ("", "")


def first_named(
    names: Sequence[str],
    columns: Sequence[str],
    suits: Callable[[str], bool] = lambda _: True,
    *,
    parts: bool = False,
) -> str:
    """Return the column with the first of some names, "" without one.

    Args:
        names: in their order.
        columns: that may be it.
        suits: whether a column's values are right.
        parts: a column counts, too, if one of its words is the name: ticket_text, "Message body".
    """
    for name in names:
        for column in columns:
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column).casefold()
            plain = re.sub(r"[\W_]+", "_", words).strip("_")
            if (plain == name or (parts and name in plain.split("_"))) and suits(column):
                return column
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ".", 1))
    except ValueError:
        return False
    return True


def _is_whole(value: Any) -> bool:
    if isinstance(value, Decimal) and value.adjusted() >= _MOST_DIGITS:
        return False  # 1e5000 has more digits than Python writes, 1e999999999 than a memory has
    try:
        return not isinstance(value, (list, dict)) and value == int(value)
    except (ValueError, TypeError, OverflowError):
        return False


def listed(names: Iterable[str]) -> str:
    """Return names of columns for an error, of many the first ones."""
    names = list(names)
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(map(shown, names[:_MOST_SHOWN])) + more


def shown(name: str) -> str:
    """Return a name as errors quote it."""
    return repr(name if len(name) <= 40 else name[:40] + "...")
