"""Many robots at once: a folder of public keys, with names and sites in a CSV file beside them."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet_model.errors import SettingsError

TABLE, KEY = "robots.csv", "robot.pub"
COLUMNS = ("name", "site", "labels", "key")


@dataclass(frozen=True, slots=True)
class KeyFile:
    """One robot to admit."""

    name: str
    site: str
    labels: tuple[str, ...]
    key: str  # public line
    where: str  # file, or file and line, for people


def read_key_files(folder: Path, site: str, labels: tuple[str, ...]) -> list[KeyFile]:
    """Return the robots of a folder, by name.

    FOLDER/NAME.pub or FOLDER/NAME/robot.pub, as `edge-agent enroll --dir NAME` leaves it. Where
    FOLDER/robots.csv is there, its rows (name, and if they are wanted site, labels with spaces
    between, key: the line or a file) say of each robot what is not as for all others.

    Args:
        folder: what is read.
        site: of robots without one of their own.
        labels: the same.

    Raises:
        SettingsError: there are none, or a file or row is not as above.
    """
    if not folder.is_dir():
        raise SettingsError(f"--from {folder}: no such folder; expected one with NAME.pub files")
    keys = {file.parent.name if file.name == KEY else file.stem: file for file in _files(folder)}
    rows = dict(_rows(folder / TABLE)) if (folder / TABLE).exists() else {}
    found = []
    for name in sorted({*keys, *rows}):
        line, row = rows.get(name, (0, {}))
        where = f"{TABLE} line {line}" if line else str(keys[name].relative_to(folder))
        found.append(
            KeyFile(
                name=name,
                site=row.get("site") or site,
                labels=tuple(row.get("labels", "").split()) or labels,
                key=_key(folder, row.get("key", ""), keys.get(name), where),
                where=where,
            )
        )
    if not found:
        raise SettingsError(
            f"--from {folder}: no NAME.pub, no NAME/{KEY} and no {TABLE} in it; copy each robot's "
            f"{KEY} there as NAME.pub"
        )
    return found


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(file for file in folder.glob("*.pub") if file.name != KEY)
    yield from sorted(folder.glob(f"*/{KEY}"))


def _rows(file: Path) -> Iterator[tuple[str, tuple[int, Mapping[str, str]]]]:
    """Yield name -> (line, cells)."""
    seen: set[str] = set()
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream, skipinitialspace=True, strict=True)
            names = [(name or "").strip() for name in table.fieldnames or ()]
            if "name" not in names or (odd := sorted({*names} - {*COLUMNS})):
                what = f"unknown column {odd[0]!r}" if "name" in names else "no column name"
                raise SettingsError(f"{file}: {what}; expected {', '.join(COLUMNS)}")
            table.fieldnames = names
            for row in table:
                cells = {key: (value or "").strip() for key, value in row.items() if key}
                where = f"{file} line {table.line_num}"
                if None in row:
                    raise SettingsError(f"{where}: more cells than columns")
                if cells["name"] in seen:
                    raise SettingsError(f"{where}: {cells['name']} is there twice")
                seen.add(cells["name"])
                yield cells["name"], (table.line_num, cells)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "not a CSV file in UTF-8"
        raise SettingsError(f"{file}: {reason}") from None


def _key(folder: Path, cell: str, file: Path | None, where: str) -> str:
    if cell.startswith(("ecdsa-", "-----BEGIN")):
        return cell
    named = folder / cell if cell else file
    if named is None:
        raise SettingsError(f"{where}: no key in its row, and no NAME.pub in {folder}")
    try:
        return named.read_text()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(f"{where}: {named}: {reason}") from None
