"""What the labels so far say: how many, of what, and how often the model was right on them."""

from collections.abc import Sequence
from typing import Any

from edge_agent.labeling.answer import LABEL, Answer, told

WINDOW = 20  # answers over which the share is taken: one of them is 5 %
LEAST = 10  # answers that say something
MOST_POINTS = 120  # of the curve: as many as its pixels can show
GOOD = 0.95  # of the answers: then labels of frames like these bring little


def progress_of(given: Sequence[Answer]) -> dict[str, Any]:
    """Return JSON values: counts by class, the curve of agreement, what that means in words.

    Args:
        given: all answers, in their order.
    """
    last = {answer.frame: answer for answer in given}
    judged = [a for a in last.values() if a.kind == LABEL and a.agreement is not None]
    shares = [float(a.agreement) for a in judged if a.agreement is not None]
    return {
        **told(given),
        "curve": thinned_curve(curve(shares)),
        "words": _words(shares, judged[-1].version if judged else None),
    }


def curve(shares: Sequence[float], window: int = WINDOW) -> list[tuple[int, float]]:
    """Return (number of labels, mean agreement of the last `window` of them), from LEAST on."""
    points = []
    for count in range(min(LEAST, window), len(shares) + 1):
        last = shares[max(0, count - window) : count]
        points.append((count, round(sum(last) / len(last), 4)))
    return points


def thinned_curve(
    points: list[tuple[int, float]], most: int = MOST_POINTS
) -> list[tuple[int, float]]:
    """Return at most about `most` of the points, the last one among them."""
    step = -(-len(points) // most) or 1
    return points[::-step][::-1]


def _words(shares: Sequence[float], version: int | None) -> str:
    if not shares:
        return ""
    last = shares[-WINDOW:]
    share = sum(last) / len(last)
    if len(shares) < LEAST:
        more = LEAST - len(shares)
        return f"{more} more label{'s' * (more > 1)}, and this shows how often the model is right."
    asked = f"Version {version} agreed with {share:.0%} of your last {len(last)} labels. "
    if share >= GOOD:
        return asked + "More labels of frames like these bring little."
    return asked + "What it has wrong here, it learns from your labels in the next round."
