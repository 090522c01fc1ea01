"""Which groups of records may be told, and of which records: never so few that one shows.

A group has MIN_RECORDS records of MIN_AUTHORS authors, of whom none has more than half. The mean of
a group and that of a part of it give the mean of the rest, and so do two profiles, one after the
other: what two groups that were ever told do not share is as large, or nothing, and so is what came
to a group since it was told, and what left it. What differs by less waits.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from fleet_model.profiles.profile import MIN_AUTHORS, MIN_RECORDS, MOST_NAMES, MOST_SOURCES

Names: TypeAlias = frozenset[str]
Key: TypeAlias = tuple[str, str]  # (source, topic); "" is all of the source


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is known of a record beside what the model makes of it."""

    name: str  # of what the model sees, ":", of its author; "" is not known: such are all of one
    source: str
    label: str = ""
    terms: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()


@dataclass(slots=True)
class Choice:
    """What may be told."""

    groups: dict[Key, Names] = field(default_factory=dict)
    too_few: int = 0  # records of sources that are too small
    waiting: int = 0  # records that wait for more of them


def is_enough(names: Collection[str]) -> bool:
    """Tell whether a group of records may be told, by their names."""
    authors = Counter(name.rpartition(":")[2] for name in names)
    most = max(authors.values(), default=0)
    return len(names) >= MIN_RECORDS and len(authors) >= MIN_AUTHORS and 2 * most <= len(names)


def choose(
    notes: Sequence[Note], before: Mapping[Key, Names], ever: Iterable[Names] = ()
) -> Choice:
    """Return which records of which groups may be told.

    Args:
        notes: of all records.
        before: what was told last.
        ever: what was told before that.
    """
    choice, told = Choice(), {*ever, *before.values()}
    sources = _by(notes, lambda note: (note.source,))
    for source in sorted(sources, key=lambda one: ((one, "") not in before, one)):
        here = sources[source]
        whole = _allowed(here, before.get((source, "")), told)
        if whole is None or sum(not topic for _, topic in choice.groups) >= MOST_SOURCES:
            waits = is_enough(_names(here))
            choice.waiting += len(here) * waits
            choice.too_few += len(here) * (not waits)
            continue
        choice.waiting += len(here) - len(whole)
        choice.groups[source, ""] = whole
        told.add(whole)
        topics = _by([note for note in here if note.name in whole], lambda note: note.topics)
        several = 0
        for topic in sorted(topics, key=lambda one: (-len(topics[one]), one)):
            part = _allowed(topics[topic], before.get((source, topic)), told)
            if part is not None and several < MOST_NAMES:
                several += 1
                told.add(part)
                choice.groups[source, topic] = part
    return choice


def counted(notes: Iterable[Note], words: str) -> dict[str, int]:
    """Return the most frequent terms, or labels, that may be told -> records.

    Args:
        notes: of one group.
        words: "terms" or "labels".
    """
    found = _by(notes, lambda note: note.terms if words == "terms" else filter(None, [note.label]))
    enough = {word: len(of) for word, of in found.items() if is_enough(_names(of))}
    best = sorted(enough, key=lambda word: (-enough[word], word))[:MOST_NAMES]
    return {word: enough[word] for word in best}


def _allowed(here: Sequence[Note], last: Names | None, told: Collection[Names]) -> Names | None:
    """Return which of a group's records may be told; None: none.

    Args:
        here: all of them.
        last: what was told of this group last.
        told: what was told of any.
    """
    now = _names(here)
    if now == last:
        return now
    changes = [now - (last or now), (last or now) - now]
    apart = [*filter(None, changes), *(now ^ other for other in told if now != other)]
    if is_enough(now) and all(map(is_enough, apart)):
        return now
    return last if last is not None and last <= now else None


def _names(notes: Iterable[Note]) -> Names:
    return frozenset(note.name for note in notes)


def _by(notes: Iterable[Note], of: object) -> dict[str, list[Note]]:
    found: dict[str, list[Note]] = {}
    for note in notes:
        for key in of(note):  # type: ignore[operator]
            found.setdefault(key, []).append(note)
    return found
