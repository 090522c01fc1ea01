"""One profile of many: counts add up, and means weigh as many as they are of."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cloud_server.rounds.shares import counted
from cloud_server.state.learning_settings import CheckSettings
from fleet_model.profiles.profile import MOST_NAMES, Group, Profile, SourceProfile

_SHOWN = 20  # terms that set two sources apart


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Fused:
    """What a fleet says of its records."""

    general: SourceProfile  # of all sources
    sources: Profile
    robots: Mapping[str, Sequence[str]]  # source -> who told of it
    left_out: Sequence[str]  # robots whose means are of another width than most


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How two groups differ; similarities are cosines, -1 to 1."""

    similarity: float
    topics: Mapping[str, float]  # that both have -> similarity
    first: Mapping[str, float]  # term -> how much larger its share of records is in the first
    second: Mapping[str, float]


def fuse(robots: Mapping[str, Profile], checks: CheckSettings) -> Fused:
    """Return the profile of robots together.

    Counts are as they were told. In means a robot weighs as its examples do in a round: a claim
    gives it no more than [checks] allows beside the others.

    Args:
        robots: name -> its profile; at least one.
        checks: bounds of what a robot counts for.
    """
    widths = {name: _width(profile) for name, profile in robots.items()}
    usual = Counter(widths.values()).most_common(1)[0][0]
    fit = sorted(name for name, width in widths.items() if width == usual)
    records = [sum(one.whole.records for one in robots[name].values()) for name in fit]
    factors = [count / many for count, many in zip(counted(records, checks), records, strict=True)]
    parts = defaultdict[str, list[tuple[SourceProfile, float]]](list)
    told = defaultdict[str, list[str]](list)
    for name, factor in zip(fit, factors, strict=True):
        for source, one in robots[name].items():
            parts[source].append((one, factor))
            told[source].append(name)
    sources = {source: _together(parts[source]) for source in sorted(parts)}
    return Fused(
        general=_together([pair for of in parts.values() for pair in of]),
        sources=sources,
        robots=told,
        left_out=[name for name in sorted(robots) if name not in fit],
    )


def compare(one: SourceProfile, other: SourceProfile) -> Comparison:
    """Return how two sources differ."""
    apart = {word: _share(one, word) - _share(other, word) for word in {**one.terms, **other.terms}}
    best = sorted(apart, key=lambda word: (-abs(apart[word]), word))[:_SHOWN]
    return Comparison(
        similarity=similarity(one.whole, other.whole),
        topics={
            topic: similarity(one.topics[topic], other.topics[topic])
            for topic in sorted(one.topics.keys() & other.topics.keys())
        },
        first={word: apart[word] for word in best if apart[word] > 0},
        second={word: -apart[word] for word in best if apart[word] < 0},
    )


def similarity(one: Group, other: Group) -> float:
    """Return the cosine of two means; 0 where one has no length."""
    a, b = one.mean.astype(np.float64), other.mean.astype(np.float64)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length else 0.0


def _share(one: SourceProfile, word: str) -> float:
    return one.terms.get(word, 0) / one.whole.records


def _together(parts: Sequence[tuple[SourceProfile, float]]) -> SourceProfile:
    """Return one source of parts, each with the factor that its records weigh by."""
    topics = defaultdict[str, list[tuple[Group, float]]](list)
    for one, factor in parts:
        for topic, group in one.topics.items():
            topics[topic].append((group, factor))
    found = {topic: _mean(of) for topic, of in topics.items()}
    return SourceProfile(
        whole=_mean([(one.whole, factor) for one, factor in parts]),
        topics={t: found[t] for t in sorted(found, key=lambda t: (-found[t].records, t))},
        labels=_sum(one.labels for one, _ in parts),
        terms=_sum(one.terms for one, _ in parts),
    )


def _mean(parts: Sequence[tuple[Group, float]]) -> Group:
    weights = np.array([group.records * factor for group, factor in parts])
    means = np.stack([group.mean for group, _ in parts]).astype(np.float64)
    mean = (weights @ means / weights.sum()).astype(np.float32)
    return Group(records=sum(group.records for group, _ in parts), mean=mean)


def _sum(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total = Counter[str]()
    for counts in parts:
        total.update(counts)
    return dict(sorted(total.items(), key=lambda one: (-one[1], one[0]))[:MOST_NAMES])


def _width(profile: Profile) -> int:
    return next(iter(profile.values())).whole.mean.size
