"""Which tables lie at a path: a file, a folder of files, what `datasets` has saved."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.files.folders import files_below, unreadable
from fleet_model.files.text import read_bounded
from fleet_model.tables.arrow import ArrowTable
from fleet_model.tables.delimited import DelimitedTable
from fleet_model.tables.json_lines import JsonTable
from fleet_model.tables.rows import Table, is_held_out, split_of

_DELIMITED, _JSON, _ARROW = (".csv", ".tsv"), (".jsonl", ".ndjson", ".json"), (".parquet", ".arrow")
TABLE_SUFFIXES = (*_DELIMITED, *_JSON, *_ARROW)
_INFO, _STATE, _SPLITS = "dataset_info.json", "state.json", "dataset_dict.json"
_LARGEST_INFO = 16 << 20  # bytes
_CACHED = "cache-"  # `datasets` leaves files of this name beside those that it has saved


def table_suffix(name: str) -> str:
    """Return which of TABLE_SUFFIXES a name has, in any case, compressed or not; "" for others."""
    name = name.lower()
    plain = name.removesuffix(".gz")
    found = next((end for end in TABLE_SUFFIXES if plain.endswith(end)), "")
    return "" if found in _ARROW and plain != name else found


def tables_at(path: Path, encoding: str = "", guessed: DamageLog | None = None) -> list[Table]:
    """Return the tables at a path, in the order of their names; nothing is read of them yet.

    Args:
        path: a table, a folder of tables, a folder of Dataset.save_to_disk or
            DatasetDict.save_to_disk.
        encoding: of text files; "" finds it out.
        guessed: see table_lines.

    Raises:
        FrameError: there is nothing, no table, or a folder cannot be listed.
    """
    if not path.exists():
        raise FrameError(f"{path.name}: no such file or folder", "missing file")
    if not path.is_dir():
        if not table_suffix(path.name):
            known = ", ".join(TABLE_SUFFIXES)
            raise FrameError(f"{path.name}: is no table; expected one of {known}, or a folder")
        return [_table(path, path.name, split_of(path.name), encoding, guessed, {})]

    def unlisted(folder: Path, error: OSError) -> None:
        raise unreadable(folder.relative_to(path.parent).as_posix(), error)

    if saved := list(_saved(path)):
        return saved
    names = [file.relative_to(path).as_posix() for file in files_below(path, unlisted)]
    features = _features(path)
    found = [
        _table(path / name, name, split_of(name), encoding, guessed, features)
        for name in names
        if counts(name)
    ]
    if not found:
        known = ", ".join(TABLE_SUFFIXES)
        raise FrameError(f"{path.name}: no table lies in it; expected one of {known}")
    return found


def counts(name: str) -> bool:
    """Return whether a file of a folder, by its name there, is one of its tables."""
    last = name.rpartition("/")[2]
    suffix = table_suffix(last)
    if suffix == ".json":  # most JSON files beside tables tell something about them
        return last not in (_INFO, _STATE, _SPLITS) and split_of(last) is not None
    return bool(suffix) and not (suffix == ".arrow" and last.startswith(_CACHED))


def _table(
    file: Path,
    name: str,
    held_out: bool | None,
    encoding: str,
    guessed: DamageLog | None,
    features: Mapping[str, Any],
) -> Table:
    suffix = table_suffix(file.name)
    if suffix in _ARROW:
        return ArrowTable(file, name, held_out, features)
    kind = DelimitedTable if suffix in _DELIMITED else JsonTable
    return kind(file, name, held_out, encoding, guessed)


def _saved(path: Path) -> Iterator[Table]:
    """Yield the files of `save_to_disk`, none if it is something else."""
    if (path / _SPLITS).is_file():
        splits = _json(path / _SPLITS).get("splits")
        names = map(str, splits if isinstance(splits, list) else ())
        for name in dict.fromkeys(names):
            folder = path / name
            outside = name in ("", ".", "..") or Path(name).name != name
            if outside or not (folder / _STATE).is_file():
                raise FrameError(f"{path.name}: {_SPLITS} names a split that is not there")
            yield from _data_files(folder, f"{folder.name}/", is_held_out(folder.name))
    elif (path / _STATE).is_file() and (path / _INFO).is_file():
        held_out = is_held_out(str(_json(path / _STATE).get("_split")))
        yield from _data_files(path, "", held_out)


def _data_files(folder: Path, before: str, held_out: bool | None) -> Iterator[Table]:
    state, features = _json(folder / _STATE), _features(folder)
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise FrameError(
            f"{folder.name}: was saved by an old version of datasets, with a list of rows beside "
            "the data; load it and save it again with a newer one"
        )
    files = state.get("_data_files")
    for entry in files if isinstance(files, list) else ():
        name = str(entry.get("filename")) if isinstance(entry, dict) else ""
        if Path(name).name != name or not (folder / name).is_file():
            raise FrameError(f"{folder.name}: {_STATE} names a data file that is not there")
        yield ArrowTable(folder / name, before + name, held_out, features)


def _features(folder: Path) -> Mapping[str, Any]:
    """Return the features that `datasets` has written beside its files; none without them."""
    if not (folder / _INFO).is_file():
        return {}
    features = _json(folder / _INFO).get("features")
    return features if isinstance(features, dict) else {}


def _json(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(read_bounded(file, file.name, _LARGEST_INFO))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise FrameError(f"{file.parent.name}/{file.name}: is damaged", "damaged file")
    return found
