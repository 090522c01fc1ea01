"""A profile: per source counts, shares, terms and means of embeddings, and nothing of one record.

    about   (bytes,)        float16   JSON in UTF-8, a byte each; sources and groups in its order
    means   (groups, width) float32   of each source, then of its topics

Whatever is in it has MIN_RECORDS records of MIN_AUTHORS authors, of whom none has more than half:
the minimum frequency and the dominance rule of statistical offices (Hundepool et al. 2012,
Statistical Disclosure Control). Counts are told in steps of STEP, rounded down.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fleet_model.errors import UpdateError
from fleet_model.types import Tensor, Weights

GROUP = "profile"  # of tensors in a reply
ABOUT, MEANS = "about", "means"
MIN_RECORDS, MIN_AUTHORS, STEP = 20, 5, 5
MOST_SOURCES, MOST_NAMES = 20, 100  # sources; topics, labels and terms of each
MOST_BYTES, MOST_RECORDS, LARGEST = 1 << 18, 10**9, 1e6
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,64}")


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Group:
    """Records of a source, or of a topic in it."""

    records: int  # at least MIN_RECORDS
    mean: Tensor  # (width,) float32: of what the model makes of them


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class SourceProfile:
    """What is said of one source."""

    whole: Group
    topics: Mapping[str, Group] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)  # label -> records
    terms: Mapping[str, int] = field(default_factory=dict)  # word -> records that have it


Profile = Mapping[str, SourceProfile]  # source -> what is said of it


def told_count(records: int) -> int:
    """Return a number of records as it is told."""
    return records - records % STEP


def pack_profile(profile: Profile) -> Weights:
    """Return a profile as tensors."""
    about, means = {}, []
    for source, one in profile.items():
        about[source] = {
            "records": one.whole.records,
            "topics": {topic: group.records for topic, group in one.topics.items()},
            "labels": dict(one.labels),
            "terms": dict(one.terms),
        }
        means += [one.whole.mean, *(group.mean for group in one.topics.values())]
    text = json.dumps(about, ensure_ascii=False).encode()
    return {
        ABOUT: np.frombuffer(text, np.uint8).astype(np.float16),
        MEANS: np.stack(means).astype(np.float32),
    }


def unpack_profile(tensors: Weights) -> Profile:
    """Return the profile that tensors are; raises UpdateError for what cannot be one."""
    if set(tensors) != {ABOUT, MEANS}:
        raise UpdateError(f"a profile has the tensors {ABOUT} and {MEANS}, and no others")
    about, means = _about(tensors[ABOUT]), tensors[MEANS]
    if means.ndim != 2 or means.dtype != np.float32 or not means.shape[1]:
        raise UpdateError("the means of a profile are (groups, width), float32")
    if not (np.isfinite(means).all() and np.abs(means).max(initial=0) <= LARGEST):
        raise UpdateError(f"the means of a profile are numbers up to {LARGEST:g}")
    rows, found = iter(means), {}
    groups = sum(1 + len(_counts(one, "topics")) for one in about.values())
    if groups != len(means):
        raise UpdateError(f"the profile has {len(means)} means, expected {groups}")
    for source, one in about.items():
        records = _counts({"sources": {source: one.get("records")}}, "sources")[source]
        whole = Group(records=records, mean=next(rows))
        topics = {t: Group(records=n, mean=next(rows)) for t, n in _counts(one, "topics").items()}
        parts = {name: _counts(one, name) for name in ("labels", "terms")}
        counts = [*_counts(one, "topics").values(), *_numbers(parts)]
        if max(counts, default=0) > records:
            raise UpdateError("a part of a source has more records than the source")
        found[source] = SourceProfile(whole=whole, topics=topics, **parts)
    return found


def _about(tensor: Tensor) -> dict[str, dict[str, Any]]:
    if tensor.ndim != 1 or not 0 < tensor.size <= MOST_BYTES:
        raise UpdateError(f"a profile is described in 1 to {MOST_BYTES} bytes")
    if not (np.isfinite(tensor).all() and (tensor == tensor.astype(np.uint8)).all()):
        raise UpdateError("a profile is described in bytes")
    try:
        about = json.loads(tensor.astype(np.uint8).tobytes())
    except (ValueError, RecursionError):
        raise UpdateError("a profile is described in JSON") from None
    if not isinstance(about, dict) or not 0 < len(about) <= MOST_SOURCES:
        raise UpdateError(f"a profile is of 1 to {MOST_SOURCES} sources")
    for source, one in about.items():
        if not _NAME.fullmatch(source) or not isinstance(one, dict):
            raise UpdateError("a source has a name of up to 64 characters, and an object")
    return about


def _counts(one: Mapping[str, Any], part: str) -> dict[str, int]:
    """Return a part of what is said of a source: name -> records."""
    counts = one.get(part)
    if not isinstance(counts, dict) or len(counts) > MOST_NAMES:
        raise UpdateError(f"{part} of a source are up to {MOST_NAMES} names with their records")
    for name, count in counts.items():
        if not _NAME.fullmatch(name):
            raise UpdateError(f"{part} of a source have names of up to 64 characters")
        if type(count) is not int or not MIN_RECORDS <= count <= MOST_RECORDS or count % STEP:
            raise UpdateError(
                f"{part} of a source have at least {MIN_RECORDS} records, in steps of {STEP}"
            )
    return counts


def _numbers(parts: Mapping[str, Mapping[str, int]]) -> list[int]:
    return [count for counts in parts.values() for count in counts.values()]
