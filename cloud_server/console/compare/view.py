"""What the page shows of answers and sums, as values for its templates."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cloud_server.console.compare.lineup import Lineup

MOST_CLASSES, MOST_BOXES = 5, 8  # shown of one answer


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
    return {"columns": columns, "verdict": _verdict(lineup, told), "has_classes": has_classes}


def board_values(lineup: Lineup) -> dict[str, Any]:
    """Return the running board, a row for each model."""
    told = lineup.board.told()
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
    return {"told": told, "rows": rows}


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
        return f"{agree:.0%} of the boxes agree ({counts})"
    best = [answer["found"][0] for answer in told["answers"] if answer["found"]]
    if agree == 1 and best:
        return f"All say {best[0]['label']}"
    said = ", ".join(
        f"{model['name']}: {answer['found'][0]['label'] if answer['found'] else 'nothing'}"
        for model, answer in zip(lineup.models, told["answers"], strict=True)
    )
    return f"They differ: {said}"
