"""Which groups of records may be told, and of which records: never so few that one shows.

A group has MIN_RECORDS records of MIN_AUTHORS authors, of whom none has more than half. The mean of
a group and that of a part of it give the mean of the rest, and so do two profiles, one after the
other: what two told groups do not share, and what came to a group since it was told, is as large,
or nothing. What differs by less waits.
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

    name: str  # unique, and another one when the record changes
    source: str
    author: str  # "": not known; all such records are of one
    label: str = ""
    terms: frozenset[str] = frozenset()
    topics: frozenset[str] = frozenset()


@dataclass(slots=True)
class Choice:
    """What may be told."""

    groups: dict[Key, Names] = field(default_factory=dict)
    too_few: int = 0  # records of sources that are too small
    waiting: int = 0  # records that wait for more of them


def is_enough(notes: Collection[Note]) -> bool:
    """Tell whether a group may be told."""
    authors = Counter(note.author for note in notes)
    most = max(authors.values(), default=0)
    return len(notes) >= MIN_RECORDS and len(authors) >= MIN_AUTHORS and 2 * most <= len(notes)


def choose(notes: Sequence[Note], before: Mapping[Key, Names]) -> Choice:
    """Return which records of which groups may be told.

    Args:
        notes: of all records.
        before: what was told last.
    """
    choice, known = Choice(), {note.name: note for note in notes}
    for source, here in sorted(_by(notes, lambda note: (note.source,)).items()):
        whole = _allowed(here, before.get((source, "")), known)
        if whole is None or len(choice.groups) >= MOST_SOURCES * MOST_NAMES:
            waits = is_enough(here)
            choice.waiting += len(here) * waits
            choice.too_few += len(here) * (not waits)
            continue
        choice.waiting += len(here) - len(whole)
        choice.groups[source, ""] = whole
        told = [whole]
        kept = [known[name] for name in whole]
        topics = _by(kept, lambda note: note.topics)
        for topic in sorted(topics, key=lambda one: (-len(topics[one]), one)):
            part = _allowed(topics[topic], before.get((source, topic)), known)
            if part is None or part - whole or len(told) > MOST_NAMES:
                continue
            if all(_apart(part, other, known) for other in told):
                told.append(part)
                choice.groups[source, topic] = part
    return choice


def counted(notes: Iterable[Note], words: str) -> dict[str, int]:
    """Return the most frequent terms, or labels, that may be told -> records.

    Args:
        notes: of one group.
        words: "terms" or "labels".
    """
    found = _by(notes, lambda note: note.terms if words == "terms" else filter(None, [note.label]))
    enough = {word: len(of) for word, of in found.items() if is_enough(of)}
    best = sorted(enough, key=lambda word: (-enough[word], word))[:MOST_NAMES]
    return {word: enough[word] for word in best}


def _allowed(here: Sequence[Note], told: Names | None, known: Mapping[str, Note]) -> Names | None:
    """Return which of a group's records may be told; None: none."""
    now = frozenset(note.name for note in here)
    if told is None:
        return now if is_enough(here) else None
    new, gone = now - told, told - now
    suits = is_enough(here) and (not new or is_enough([known[name] for name in new]))
    if suits and not 0 < len(gone) < MIN_RECORDS:
        return now
    return None if gone else told


def _apart(one: Names, other: Names, known: Mapping[str, Note]) -> bool:
    rest = [known[name] for name in one ^ other]
    return not rest or is_enough(rest)


def _by(notes: Iterable[Note], of: object) -> dict[str, list[Note]]:
    found: dict[str, list[Note]] = {}
    for note in notes:
        for key in of(note):  # type: ignore[operator]
            found.setdefault(key, []).append(note)
    return found
