"""The texts at a path that a person has named: every row is answered, with a label or without."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edge_agent.examples.source import SourceSpec
from edge_agent.examples.texts.text_store import key_of
from edge_agent.robot.settings import TEXTS
from fleet_model.files.damage import DamageLog
from fleet_model.tables.columns import ChosenColumns, Columns, columns_of_options
from fleet_model.tables.texts import TextTables
from fleet_model.types import Example


def columns_for(source: SourceSpec | None, text: Sequence[str], label: str) -> tuple[Columns, str]:
    """Return which columns are read, and in which encoding: as typed, else as in agent.toml.

    Raises:
        SettingsError: agent.toml names a column by what is no name.
    """
    options = source.options if source is not None and source.name == TEXTS else {}
    columns = columns_of_options(list(text) or options.get("text", ""), options.get("label", ""))
    encoding = options.get("encoding", "")
    return Columns(columns.text, label or columns.label), encoding


class TextReading:
    """The rows of tables, once: nothing is held out, and nothing left out for its label."""

    def __init__(
        self,
        path: Path,
        columns: Columns,
        labels: Sequence[str],
        aliases: Mapping[str, str],
        encoding: str = "",
        *,
        answers: bool = False,
    ) -> None:
        """Keep what to read; nothing is opened yet.

        Args:
            path: see tables_at.
            columns: that the operator has named.
            labels: of the model: they tell which column holds labels.
            aliases: other word for a label -> the label.
            encoding: of text files; "" finds it out.
            answers: whether rows are instructions, with answers or without.

        Raises:
            SettingsError: there is no such encoding.
        """
        self._aliases, self._guessed = aliases, DamageLog()
        known = [*labels, *(word for word, name in aliases.items() if name in labels)]
        self._tables = TextTables(
            path, columns, known, encoding=encoding, instructions="asked" if answers else "none"
        )

    @property
    def columns(self) -> ChosenColumns:
        """Return what is read; raises FrameError if it is not clear, or nothing can be read."""
        return self._tables.columns

    @property
    def notes(self) -> list[str]:
        """Return what a person should know of what was read."""
        guessed = (
            f"{one.count} lines: {one.kind}, first {one.begins}" for one in self._guessed.all()
        )
        return [self.columns.words, *guessed]

    def examples(self, damage: DamageLog) -> Iterator[Example]:
        """Yield the texts; `targets` has the row's own id as "id" where the table has ids.

        Rows without a text, and those that cannot be read, are added to `damage`.

        Raises:
            FrameError: nothing can be read.
        """
        for row in self._tables.rows(damage, self._guessed):
            label = self._aliases.get(row.label, row.label)
            targets = {"id": row.id} if row.id else {}
            yield Example(
                raw=row.instruction or row.text,
                key=key_of(row),
                label=None if row.instruction else label or None,
                targets=targets,
            )
