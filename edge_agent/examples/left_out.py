"""Why examples are left out: in words for this robot, by kind for the fleet."""

import ast
import difflib
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

from edge_agent.data.frames.damage import NO_LABEL_TOPIC

UNLABELLED = "without a label"
UNSEEN = "in which nobody has said what is there"
TOO_NEAR = "between training and held out"
COPY = "a copy of another frame"
ANSWERED = "counted as a person labelled it"
CONTRADICTED = "of a text that has several labels"
HELD_COPY = "of a text that is held out, too"
_KINDS = {
    CONTRADICTED: "other",
    HELD_COPY: "copy",
    UNLABELLED: "unlabelled",
    UNSEEN: "unlabelled",
    NO_LABEL_TOPIC: "unlabelled",
    TOO_NEAR: "too_near",
    COPY: "copy",
    ANSWERED: "copy",
}
_UNKNOWN, _NOT_LEARNED = "labelled ", ", which is not learned"
MOST_TOLD = 20  # reasons: labels that are numbers would fill pages


@lru_cache(maxsize=1024)  # thousands of frames have the same label
def unknown_label(label: str, learned: tuple[str, ...]) -> str:
    """Return the reason of an example whose label is not learned, with one that is like it."""
    alike = {one.casefold(): one for one in learned}
    near = difflib.get_close_matches(label.casefold(), alike, n=1)
    hint = f" (did you mean {alike[near[0]]!r}?)" if near else ""
    return f"{_UNKNOWN}{label!r}{_NOT_LEARNED}{hint}"


def strange_labels(left_out: Mapping[str, int]) -> Mapping[str, int]:
    """Return the labels that are like none of those learned -> examples."""
    return {
        str(ast.literal_eval(reason[len(_UNKNOWN) : -len(_NOT_LEARNED)])): count
        for reason, count in left_out.items()
        if reason.startswith(_UNKNOWN) and reason.endswith(_NOT_LEARNED)
    }


def by_kind(left_out: Mapping[str, int], rest: str = "unreadable") -> Mapping[str, int]:
    """Return kind (of fleet_model.protocol.example_counts.KINDS) -> examples.

    Args:
        left_out: reason -> examples, as an ExampleSource tells it.
        rest: the kind of every reason that is not of this module: damage has many.
    """
    kinds = Counter[str]()
    for reason, count in left_out.items():
        unknown = "unknown_label" if reason.startswith(_UNKNOWN) else rest
        kinds[_KINDS.get(reason, unknown)] += count
    return dict(kinds)


def tell(left_out: Mapping[str, int], places: Mapping[str, str] | None = None) -> str:
    """Return reasons and numbers in words, the largest number first, with the `places` known."""
    listed = sorted(left_out.items(), key=lambda item: -item[1])
    told = [f"{count} {reason}" for reason, count in listed[:MOST_TOLD]]
    for number, (reason, _) in enumerate(listed[:MOST_TOLD] if places else ()):
        told[number] += f" (first {places[reason]})" if places and reason in places else ""
    if (more := len(listed) - MOST_TOLD) > 0:
        told.append(f"and {more} more reasons")
    return ", ".join(told)
