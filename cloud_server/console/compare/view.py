"""What the page shows of answers and sums, as values for its templates."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cloud_server.console.compare.batch import RUNNING, Batch, Row
from cloud_server.console.compare.board import Board
from cloud_server.console.compare.lineup import Lineup
from fleet_model.confusion.counts import Confusion

MOST_CLASSES, MOST_BOXES = 5, 8  # shown of one answer
MOST_SHOWN, MOST_TEXT = 48, 400  # inputs that models differ about; characters of a text
MOST_LABELS = 20  # of a matrix


def answer_values(lineup: Lineup, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return one answer of all models, see Answering.answer."""
    has_classes = lineup.has_classes
    order = _strongest(told["answers"]) if has_classes else []
    columns = [
        {
            "name": model["name"],
            "ms": answer["ms"],
            "agree": agree,
            "rows": _class_rows(answer["found"], order) if has_classes else _box_rows(answer),
            "more": 0 if has_classes else max(0, len(answer["found"]) - MOST_BOXES),
            "boxes": json.dumps([] if has_classes else answer["found"]),
        }
        for model, answer, agree in zip(lineup.models, told["answers"], told["agree"], strict=True)
    ]
    return {
        "columns": columns,
        "verdict": _verdict(lineup, told),
        "has_classes": has_classes,
        "width": told["size"][0] if told["size"] else 0,  # pixels, upright: what boxes count in
    }


def board_values(lineup: Lineup) -> dict[str, Any]:
    """Return the running board, a row for each model."""
    return board_rows(lineup, lineup.board)


def board_rows(lineup: Lineup, board: Board) -> dict[str, Any]:
    """Return a board, a row for each model."""
    told = board.told()
    first = lineup.models[0]["bytes"]
    rows = [
        {
            "model": model,
            "standing": standing,
            "size": size_words(model["bytes"]),
            "share": model["bytes"] / max(1, first),
        }
        for model, standing in zip(lineup.models, told.standings, strict=True)
    ]
    return {"told": told, "rows": rows, "has_classes": lineup.has_classes}


def batch_values(lineup: Lineup) -> dict[str, Any]:
    """Return what a data set was answered with; `batch` is None before one was chosen."""
    batch = lineup.batch
    if batch is None:
        return {"batch": None}
    names = [model["name"] for model in lineup.models]
    shown = {"matrices": [], "gallery": [], "differ": 0}
    if batch.state != RUNNING:
        known = batch.confusions(lineup.classes)
        beside = batch.answers_beside(lineup.classes)
        matrices = [
            _matrix(found, f"{name}: true class and answer", "true class", name, is_truth=True)
            for name, found in zip(names, known, strict=False)
            if found.count
        ]
        matrices += [
            _matrix(found, f"Answers of {names[0]} and {name}", names[0], name, is_truth=False)
            for name, found in zip(names[1:], beside, strict=False)
            if found.count
        ]
        shown = {
            "matrices": matrices,
            "gallery": [_differing(lineup, batch, row) for row in batch.differing(MOST_SHOWN)],
            "differ": sum(row.agree < 1 for row in batch.rows),
        }
    return {"batch": batch, "batch_board": board_rows(lineup, batch.board), **shown}


def _differing(lineup: Lineup, batch: Batch, row: Row) -> dict[str, Any]:
    one = batch.data.inputs[row.number]
    said = [
        {"name": model["name"], "said": said, "is_right": said.label == one.truth}
        for model, said in zip(lineup.models, row.said, strict=True)
    ]
    return {"number": row.number, "input": one, "said": said, "text": one.text[:MOST_TEXT]}


def _matrix(
    found: Confusion, title: str, rows: str, columns: str, *, is_truth: bool
) -> dict[str, Any]:
    """Return a matrix as rows of cells; of many classes those that are confused most."""
    counts = found.matrix
    wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    kept = sorted(sorted(range(len(found.labels)), key=lambda n: -wrong[n])[:MOST_LABELS])
    totals = counts.sum(1)
    return {
        "title": title,
        "rows": rows,
        "columns": columns,
        "labels": [found.labels[n] for n in kept],
        "left_out": len(found.labels) - len(kept),
        "share": found.accuracy,
        "macro_f1": found.macro_f1 if is_truth else None,
        "cells": [
            (
                found.labels[i],
                [
                    {
                        "count": int(counts[i, j]),
                        "is_same": i == j,
                        # 0..4: how dark; the root tells one percent from none.
                        "shade": int(np.ceil(4 * np.sqrt(counts[i, j] / max(1, totals[i])))),
                    }
                    for j in kept
                ],
            )
            for i in kept
        ],
    }


def size_words(count: int) -> str:
    """Return a number of bytes for people."""
    return f"{count / 1e6:.2f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def _strongest(answers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the classes that any model gives most to: the same bars are side by side."""
    best: dict[str, float] = {}
    for answer in answers:
        for one in answer["found"]:
            best[one["label"]] = max(best.get(one["label"], 0.0), one["score"])
    return sorted(best, key=lambda label: -best[label])[:MOST_CLASSES]


def _class_rows(found: Sequence[Mapping[str, Any]], order: Sequence[str]) -> list[dict[str, Any]]:
    scores = {one["label"]: one["score"] for one in found}
    top = found[0]["label"] if found else ""
    return [
        {"label": label, "score": scores.get(label, 0.0), "is_best": label == top}
        for label in order
    ]


def _box_rows(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{**one, "is_best": False} for one in answer["found"][:MOST_BOXES]]


def _verdict(lineup: Lineup, told: Mapping[str, Any]) -> str:
    agree = min(told["agree"])
    if not lineup.has_classes:
        counts = ", ".join(
            f"{model['name']}: {len(answer['found'])}"
            for model, answer in zip(lineup.models, told["answers"], strict=True)
        )
        return f"{100 * agree:.0f} % of the boxes agree ({counts})"
    best = [answer["found"][0] for answer in told["answers"] if answer["found"]]
    if agree == 1 and best:
        return f"All say {best[0]['label']}"
    said = ", ".join(
        f"{model['name']}: {answer['found'][0]['label'] if answer['found'] else 'nothing'}"
        for model, answer in zip(lineup.models, told["answers"], strict=True)
    )
    return f"They differ: {said}"
