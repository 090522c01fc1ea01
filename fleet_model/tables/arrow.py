"""Parquet and Arrow files, by pyarrow, which is an extra; class names as `datasets` keeps them."""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.files.folders import unreadable
from fleet_model.tables.rows import BAD_ROW, CUT, TableRow

_AT_ONCE = 1000  # rows
NO_LIBRARY = "tables need pyarrow"


def load_pyarrow(what: str) -> Any:
    """Return pyarrow; `what` needs it. Raises FrameError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        missing = "" if isinstance(error, ModuleNotFoundError) else f" ({error})"
        raise FrameError(
            f"{what}: needs pyarrow{missing}; run: pip install 'fleetlearn[tables]'", NO_LIBRARY
        ) from None
    return pyarrow


@dataclass(frozen=True, slots=True)
class ArrowTable:
    """A .parquet file, or an .arrow file: a stream as `datasets` saves it, or Arrow's file format.

    A number of a ClassLabel, by the `datasets` features that lie in the file or beside it, comes as
    the name of its class; -1, which stands for no label, as None.
    """

    file: Path
    name: str
    held_out: bool | None = None
    features: Mapping[str, Any] = field(default_factory=dict)  # of dataset_info.json beside it

    def rows(self, damage: DamageLog, columns: Collection[str] | None = None) -> Iterator[TableRow]:
        """Yield the rows; as Table.rows."""
        arrow = load_pyarrow(self.name)
        number = 0
        with self._opened(arrow) as (schema, batches):
            there = columns_of(arrow, schema)
            chosen = [name for name in there if columns is None or name in columns]
            names = class_names({**self.features, **_own_features(schema)})
            try:
                for batch in batches(chosen):
                    try:
                        batch.select(chosen).validate(full=True)  # unseen, offsets may crash
                    except arrow.ArrowInvalid:
                        damage.add(BAD_ROW, f"{self.name} row {number + 1}", batch.num_rows)
                        number += batch.num_rows
                        continue
                    for start in range(0, batch.num_rows, _AT_ONCE):
                        part = batch.slice(start, _AT_ONCE).select(chosen).to_pydict()
                        lists = [_named(part[name], names.get(name)) for name in chosen]
                        rows = min(_AT_ONCE, batch.num_rows - start)  # also of no column
                        for cells in zip(*lists, strict=True) if lists else repeat((), rows):
                            number += 1
                            yield TableRow(number, dict(zip(chosen, cells, strict=True)))
            except (arrow.ArrowException, ValueError, OSError):  # its words may have a path
                damage.add(CUT, f"{self.name} after row {number}")

    @contextmanager
    def _opened(self, arrow: Any) -> Iterator[tuple[Any, Any]]:
        """Yield the schema, and what makes batches of the columns that are named."""
        kind = "Parquet" if self.file.suffix.lower() == ".parquet" else "Arrow"
        try:
            with self.file.open("rb"):
                pass
            source = arrow.memory_map(str(self.file)) if self.file.stat().st_size else None
        except OSError as error:
            raise unreadable(self.name, error) from None
        try:
            if source is None:
                raise arrow.ArrowInvalid
            if kind == "Parquet":
                table = arrow.parquet.ParquetFile(source)
                made = table.schema_arrow, lambda some: table.iter_batches(_AT_ONCE, columns=some)
            else:
                made = _stream(arrow, source)
            columns_of(arrow, made[0])  # raises ValueError for a name that is no text
        except (arrow.ArrowException, ValueError, OSError):
            raise FrameError(
                f"{self.name}: is no {kind} file, or a damaged one; write it again", "damaged file"
            ) from None
        with source:
            yield made


def _stream(arrow: Any, source: Any) -> tuple[Any, Any]:
    try:
        stream = arrow.ipc.open_stream(source)
    except arrow.ArrowInvalid:
        source.seek(0)
        file = arrow.ipc.open_file(source)
        return file.schema, lambda _: map(file.get_batch, range(file.num_record_batches))
    return stream.schema, lambda _: iter(stream)


def columns_of(arrow: Any, schema: Any) -> list[str]:
    """Return the columns that can hold a text, a label or a number: no pictures, no embeddings."""
    types = arrow.types

    def is_plain(kind: Any) -> bool:
        if types.is_dictionary(kind):
            kind = kind.value_type
        one = kind.value_type if types.is_list(kind) or types.is_large_list(kind) else kind
        strings = types.is_string(one) or types.is_large_string(one)
        return bool(strings or types.is_integer(one) or types.is_boolean(one)) or bool(
            types.is_floating(kind)
        )

    # Of two columns with one name, which Arrow allows, neither can be named.
    names = [column.name for column in schema]
    return [c.name for c in schema if is_plain(c.type) and names.count(c.name) == 1]


def class_names(features: Mapping[str, Any]) -> Mapping[str, list[str]]:
    """Return column -> names of its classes, of features as `datasets` writes them in JSON."""
    found = {}
    for column, feature in features.items():
        inner = feature
        if isinstance(inner, dict) and isinstance(inner.get("feature"), dict):
            inner = inner["feature"]  # a list of classes
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel":
            names = inner.get("names")
            if isinstance(names, list):
                found[column] = [str(name) for name in names]
    return found


def _own_features(schema: Any) -> Mapping[str, Any]:
    try:
        told = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = told["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _named(values: list[Any], names: list[str] | None) -> list[Any]:
    if names is None:
        return values

    def name_of(value: Any) -> Any:
        if isinstance(value, list):
            return [name_of(one) for one in value]
        if isinstance(value, int):
            return names[value] if 0 <= value < len(names) else None
        return value

    return [name_of(value) for value in values]
