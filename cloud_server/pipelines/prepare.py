"""First step: tables -> texts with labels, for training and for validation."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from cloud_server.models.backend import NOTE, Progress
from cloud_server.pipelines.options import PipelineOptions
from fleet_model.errors import FrameError, one_line
from fleet_model.files.damage import DamageLog
from fleet_model.tables.columns import Columns
from fleet_model.tables.split import TextSplit, digest_of
from fleet_model.tables.texts import TextRow, TextTables

ABOUT = "prepared.json"
TRAINING, VALIDATION = "train", "validation"
UNLABELLED = "without a label"
CONTRADICTED = "of a text that has several labels"
HELD_COPY = "of a text that is for validation, too"
_SHOWN = 40  # characters of a label in an error


def prepare(data: Path, options: PipelineOptions, into: Path, progress: Progress) -> None:
    """Write train.jsonl, validation.jsonl ({"text", "label"} in each line) and prepared.json.

    Where the data have no validation part, `held_out` of each label's texts become one, by a digest
    of the text alone: rows that come or go move no other text. What is left out is counted and
    told.

    Args:
        data: a table, a folder of tables, or what `datasets` has saved.
        options: columns, labels, the share that is held out.
        into: an empty folder.
        progress: gets what a person has to know, as notes.

    Raises:
        FrameError: a column is missing, a label is unknown, or there is nothing to learn from.
        SettingsError: there is no such encoding.
    """
    split = TextSplit(options.held_out)
    labels = Counter[str]()
    for row in _rows(data, options, DamageLog(), DamageLog()):
        if row.label:
            _require_known(row, options.labels)
            labels[row.label] += 1
            split.add(digest_of(row.text), row.label, row.held_out)
    names = options.labels or tuple(sorted(labels))
    _require_classes(data.name, names, labels)
    split.decide()
    damage, guessed = DamageLog(), DamageLog()
    counts: dict[str, Counter[str]] = {TRAINING: Counter(), VALIDATION: Counter()}
    with ExitStack() as stack:
        files = {side: stack.enter_context(_file(into, side)) for side in counts}
        for row in _rows(data, options, damage, guessed):
            digest = digest_of(row.text)
            if reason := _refusal(row, split, digest):
                damage.add(reason, row.place)
                continue
            side = VALIDATION if split.holds_out(digest, row.held_out) else TRAINING
            counts[side][row.label] += 1
            json.dump({"text": row.text, "label": row.label}, files[side], ensure_ascii=False)
            files[side].write("\n")
    _require_sides(data.name, names, counts)
    about = {
        "labels": names,
        "columns": _tables(data, options).columns.words,
        "examples": {side: dict(sorted(found.items())) for side, found in counts.items()},
        "validation": "of the data" if split.is_told else "made",
        "left_out": {loss.kind: loss.count for loss in damage.all()},
    }
    (into / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False), "utf-8")
    for sentence in _sentences(about, options, damage, guessed):
        progress(NOTE + sentence)


def read_about(folder: Path) -> Mapping[str, Any]:
    """Return what `prepare` has written into prepared.json."""
    about: dict[str, Any] = json.loads((folder / ABOUT).read_text("utf-8"))
    return about


def read_texts(folder: Path, side: str) -> Iterator[tuple[str, str]]:
    """Yield (text, label) of a part that `prepare` has written."""
    with (folder / f"{side}.jsonl").open(encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            yield row["text"], row["label"]


def _file(into: Path, side: str) -> IO[str]:
    return (into / f"{side}.jsonl").open("w", encoding="utf-8", newline="\n")


def _tables(data: Path, options: PipelineOptions) -> TextTables:
    wanted = Columns(options.text, options.label)
    return TextTables(data, wanted, options.labels, encoding=options.encoding)


def _rows(
    data: Path, options: PipelineOptions, damage: DamageLog, guessed: DamageLog
) -> Iterator[TextRow]:
    tables = _tables(data, options)
    if not tables.columns.label:
        others = f"; it has {', '.join(map(repr, tables.columns.rest))}"
        raise FrameError(
            f"{data.name}: it is not clear which column has the labels; name it: --label-column"
            + (others if tables.columns.rest else "")
        )
    yield from tables.rows(damage, guessed)


def _require_known(row: TextRow, known: Sequence[str]) -> None:
    if known and row.label not in known:
        raise FrameError(
            f"{row.place}: has the label {_shown(row.label)}, which is none of --labels "
            f"{','.join(known)}; add it there, or correct the row"
        )


def _require_classes(name: str, names: Sequence[str], counts: Mapping[str, int]) -> None:
    if missing := [label for label in names if not counts.get(label)]:
        raise FrameError(f"{name}: no row has the label {_shown(missing[0])}, one of --labels")
    if len(names) < 2:
        found = f"one label, {_shown(names[0])}" if names else "no label"
        raise FrameError(f"{name}: has {found}; a classifier needs two at least")
    if 2 * len(names) > (total := sum(counts.values())):
        raise FrameError(
            f"{name}: {total} rows have {len(names)} different labels; is the column of the labels "
            "another one? Name it: --label-column"
        )


def _require_sides(
    name: str, names: Sequence[str], counts: Mapping[str, Mapping[str, int]]
) -> None:
    for side, found in counts.items():
        if not found:
            raise FrameError(f"{name}: nothing is left for {side}; it needs more rows")
    if missing := [label for label in names if not counts[TRAINING].get(label)]:
        raise FrameError(
            f"{name}: the label {_shown(missing[0])} is in the validation part alone, so nothing "
            "can learn it; add rows for training, or leave its rows out"
        )


def _refusal(row: TextRow, split: TextSplit, digest: int) -> str:
    if not row.label:
        return UNLABELLED
    if split.is_contradicted(digest):
        return CONTRADICTED
    return HELD_COPY if split.is_held_copy(digest, row.held_out) else ""


def _sentences(
    about: Mapping[str, Any], options: PipelineOptions, damage: DamageLog, guessed: DamageLog
) -> Iterator[str]:
    counts = {side: sum(found.values()) for side, found in about["examples"].items()}
    yield (
        f"{about['columns']}; {len(about['labels'])} labels, {counts[TRAINING]} texts to train, "
        f"{counts[VALIDATION]} to validate"
    )
    if about["validation"] == "made":
        yield (
            f"the data have no validation part: {options.held_out:.0%} of the texts are held out, "
            "by a digest of each"
        )
    if damage:
        yield f"left out: {damage.sentence()}"
    if guessed:
        yield guessed.sentence()


def _shown(label: str) -> str:
    return repr(one_line(label[:_SHOWN]))
