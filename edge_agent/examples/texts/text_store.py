"""Labelled texts in tables on this machine; they never leave it."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from edge_agent.examples.left_out import (
    CONTRADICTED,
    HELD_COPY,
    MOST_TOLD,
    UNLABELLED,
    unknown_label,
)
from edge_agent.examples.texts.told import write_told
from fleet_model.errors import FrameError, SettingsError
from fleet_model.files.damage import DamageLog
from fleet_model.tables.columns import Columns, columns_of_options, without_labels
from fleet_model.tables.split import TextSplit, digest_of
from fleet_model.tables.texts import UNREADABLE, TextRow, TextTables
from fleet_model.types import Example

_LONGEST_LABEL = 64  # characters; what is longer may be a text, and is not told
_MOST_LABELS = 200  # different unknown ones that are told by name
LONG_LABEL = f"labelled with more than {_LONGEST_LABEL} characters"
MORE_LABELS = "labelled otherwise"
WITHOUT_ANSWER = "without an answer"
log = logging.getLogger(__name__)


class TextStore:
    """The examples in tables, read again at every call; see fleet_model.tables.

    Every call goes over the rows twice, in memory that grows by 13 bytes a row: first to see which
    texts are held out and which have several labels, then to yield them. Rows without a label of
    `labels` are skipped and counted, and so are those of a text that has several. A copy with the
    same label is an example of its own.

    `Example.raw` is the text. `Example.key` is table, row and a digest of the text: it stays the
    same as long as the row does.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        labels: Iterable[str] = (),
        *,
        columns: Columns = Columns(),  # noqa: B008  (it cannot be changed)
        aliases: Mapping[str, str] | None = None,
        held_out: float = 0.2,
        encoding: str = "",
        told: Path | None = None,
        answers: bool = False,
    ) -> None:
        """Keep what to read; nothing is opened yet.

        Args:
            paths: tables, folders of tables, what `datasets` has saved.
            labels: those of the workload; none takes every text, with a label or without.
            columns: that the operator has named.
            aliases: other word for a label -> the label.
            held_out: share of the texts to measure with, 0 to 0.5, where the tables do not say it.
            encoding: of text files; "" finds it out.
            told: file that gets what was found, for `edge-agent status`.
            answers: whether rows are instructions with answers, which have no labels.

        Raises:
            SettingsError: held_out is out of its range, or there is no such encoding.
        """
        self._labels, self._aliases = tuple(labels), dict(aliases or {})
        self._held_out, self._told = held_out, told
        self._skipped, self._renamed = DamageLog(), Counter[str]()
        self._reported: set[str] = set()
        TextSplit(held_out)  # raises before the first round, not in it
        known = [*self._labels, *(w for w, name in self._aliases.items() if name in self._labels)]
        self._tables = [
            TextTables(
                path,
                columns,
                known,
                encoding=encoding,
                shown=shown,
                instructions="answered" if answers else "none",
            )
            for path, shown in _shown(paths)
        ]

    def examples(self) -> Iterator[Example]:
        """Yield the examples, table by table.

        Raises:
            FrameError: there are tables, and none of them can be read.
        """
        split = TextSplit(self._held_out)
        for row in self._rows(DamageLog(), DamageLog()):
            label = self._label(row)
            if not self._refusal(label):
                split.add(digest_of(row.text), label, row.held_out)
        split.decide()
        skipped = self._skipped = DamageLog()
        self._renamed = Counter[str]()
        guessed, counts = DamageLog(), Counter[bool]()
        for row in self._rows(skipped, guessed):
            label, digest = self._label(row), digest_of(row.text)
            if row.instruction and not row.label.strip():
                self._skip(WITHOUT_ANSWER, row)
                continue
            if reason := self._refusal(label) or self._conflict(split, digest, row):
                self._skip(reason, row)
                continue
            if not row.instruction and label != row.label:
                self._renamed[f"{row.label!r} as {label!r}"] += 1
            held_out = split.holds_out(digest, row.held_out)
            counts[held_out] += 1
            yield Example(
                raw=row.instruction or row.text,
                label=label or None,
                key=key_of(row),
                held_out=held_out,
                targets=row.known,
            )
        self._tell(counts, guessed)

    @property
    def left_out(self) -> Mapping[str, int]:
        """Reason -> rows that the last listing has left out, tables for an unreadable one."""
        return {loss.kind: loss.count for loss in self._skipped.all()}

    @property
    def places(self) -> Mapping[str, str]:
        """Reason -> the first row that the last listing has left out for it."""
        return {loss.kind: loss.begins for loss in self._skipped.all()}

    @property
    def renamed(self) -> Mapping[str, int]:
        """Return what the last listing has taken for another label -> rows."""
        return dict(self._renamed)

    @property
    def words(self) -> str:
        """Return which columns are read, for people; raises FrameError."""
        told = [(tables.shown, tables.columns.words) for tables in self._tables]
        return told[0][1] if len(told) == 1 else "; ".join(": ".join(one) for one in told)

    def _rows(self, damage: DamageLog, guessed: DamageLog) -> Iterator[TextRow]:
        failures = list[FrameError]()
        for tables in self._tables:
            try:
                if self._labels and not tables.columns.label:
                    raise without_labels(tables.columns, tables.shown)
                yield from tables.rows(damage, guessed)
            except FrameError as error:
                failures.append(error)
                damage.add(UNREADABLE, str(error))
        if failures and len(failures) == len(self._tables):
            raise failures[0]

    def _label(self, row: TextRow) -> str:
        """Return the label of a row; the answer of an instruction is none: there may be others."""
        return "" if row.instruction else self._aliases.get(row.label, row.label)

    def _refusal(self, label: str) -> str:
        """Return why a row with this label is no example; "" where it is one."""
        if not self._labels or label in self._labels:
            return ""
        if not label:
            return UNLABELLED
        return LONG_LABEL if len(label) > _LONGEST_LABEL else unknown_label(label, self._labels)

    def _conflict(self, split: TextSplit, digest: int, row: TextRow) -> str:
        if split.is_contradicted(digest):
            return CONTRADICTED
        return HELD_COPY if split.is_held_copy(digest, row.held_out) else ""

    def _skip(self, reason: str, row: TextRow) -> None:
        is_new = reason not in self._skipped
        if is_new and len(self._skipped) > _MOST_LABELS and reason.startswith("labelled "):
            reason = MORE_LABELS  # a column of numbers would fill the memory
        self._skipped.add(reason, row.place)

    def _tell(self, counts: Mapping[bool, int], guessed: DamageLog) -> None:
        told = [{"name": t.shown, "columns": t.columns.words} for t in self._readable()]
        for one in told:
            self._report(f"{one['name']}: {one['columns']}", logging.INFO)
        for loss in guessed.all():
            self._report(f"{loss.count} lines: {loss.kind}, first {loss.begins}")
        for loss in self._skipped.all()[:MOST_TOLD]:
            self._report(f"{loss.kind}: first {loss.begins}")
        if self._told is not None:
            sides = {"training": counts[False], "held_out": counts[True]}
            write_told(self._told, told, sides, self.left_out)

    def _readable(self) -> Iterator[TextTables]:
        for tables in self._tables:
            try:
                _ = tables.columns
            except FrameError:
                continue
            yield tables

    def _report(self, text: str, level: int = logging.WARNING) -> None:
        """Log once: the same tables are read in every round."""
        if text not in self._reported:
            self._reported.add(text)
            log.log(level, "%s", text)


def open_texts(
    paths: Sequence[str],
    labels: Sequence[str],
    *,
    boxes: bool = False,
    answers: bool = False,
    aliases: Mapping[str, str] | None = None,
    held_out: float = 0.2,
    told: str = "",
    text: Any = "",
    label: Any = "",
    encoding: str = "",
) -> TextStore:
    """Open tables from JSON values; "" is no file, and no name of a column.

    Raises:
        SettingsError: as TextStore, or a column's name is none, or boxes are learned.
    """
    if boxes:
        raise SettingsError('examples.source is "texts", and this fleet learns boxes in pictures')
    return TextStore(
        [Path(path) for path in paths],
        labels,
        columns=columns_of_options(text, label),
        aliases=aliases,
        held_out=held_out,
        encoding=encoding,
        told=Path(told) if told else None,
        answers=answers,
    )


def key_of(row: TextRow) -> str:
    """Return the key of a row: "tickets.csv/17-" and 16 digits.

    It changes with the file of a picture, by size and time: features are kept by it.
    """
    whole = f"{row.text}\0{row.label}" if row.instruction else row.text
    if row.instruction and row.instruction.image:
        asked = row.instruction
        whole = f"{whole}\0{asked.prompt}\0{asked.turns}\0{_version(asked.image)}"
    digest = blake2b(whole.encode(), digest_size=8).hexdigest()
    return f"{row.table}/{row.number}-{digest}"


def _version(image: str) -> str:
    try:
        found = Path(image).stat()
    except (OSError, ValueError):
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def row_of_key(key: str) -> tuple[str, int | None]:
    """Return table and row of a key; of any other key the whole and None."""
    table, _, rest = key.rpartition("/")
    number, _, digest = rest.partition("-")
    is_key = table and number.isdecimal() and len(digest) == 16
    return (table, int(number)) if is_key else (key, None)


def _shown(paths: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Yield paths with names of which no two are equal: keys must differ."""
    seen = Counter[str]()
    for path in paths:
        seen[path.name] += 1
        yield path, f"{path.name}-{seen[path.name]}" if seen[path.name] > 1 else path.name
