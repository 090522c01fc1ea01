"""Which tables are of which site."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fleet_model.errors import SettingsError

TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".gz")


def tables_of_sites(
    data: Sequence[Path], sites: int | None
) -> tuple[Mapping[str, Sequence[Path]], bool]:
    """Return the tables of each site, named as the site is, and whether all sites share one.

    Args:
        data: tables and folders of them.
        sites: that one table is dealt out to; None: 1.

    Raises:
        SettingsError: there is none, or `sites` does not fit.
    """
    tables = [file for path in data for file in _tables(path)]
    if len(tables) == 1:
        return {f"site-{number + 1}": tables for number in range(sites or 1)}, True
    found: dict[str, list[Path]] = {}
    for file in tables:
        found.setdefault(file.name.partition(".")[0], []).append(file)
    if sites is not None and sites != len(found):
        raise SettingsError(
            f"--sites {sites}: --data has tables of {len(found)} sites "
            f"({', '.join(sorted(found))}); leave --sites out, or name one table"
        )
    return found, False


def _tables(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in TABLES)
        if not found:
            raise SettingsError(f"--data {path}: holds no table; expected a .jsonl for each site")
        return [file.absolute() for file in found]
    if not path.is_file():
        raise SettingsError(f"--data {path}: no such file or folder")
    return [path.absolute()]
