"""A fused profile as JSON."""

from typing import Any

from cloud_server.profiles.fusing import Fused
from fleet_model.profiles.profile import Group, SourceProfile


def values_of(version: int, fused: Fused, *, means: bool = False) -> dict[str, Any]:
    """Return a fused profile as JSON has it.

    Args:
        version: of the model that made its means.
        fused: the profile.
        means: with its means; as lists of numbers.
    """

    def group(of: Group) -> dict[str, Any]:
        return {"records": of.records, **({"mean": of.mean.tolist()} if means else {})}

    def values(one: SourceProfile) -> dict[str, Any]:
        return {
            **group(one.whole),
            "topics": {topic: group(of) for topic, of in one.topics.items()},
            "labels": dict(one.labels),
            "terms": dict(one.terms),
        }

    return {
        "version": version,
        "general": values(fused.general),
        "sources": {
            name: {"robots": list(fused.robots[name]), **values(one)}
            for name, one in fused.sources.items()
        },
        "left_out": list(fused.left_out),
    }
