"""What an assistant can ask about models: versions, what offers them, what robots measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloud_server.cli.assistants.asked import Version, Versions
from cloud_server.cli.assistants.results import page
from cloud_server.cli.assistants.tool import Page, Tool
from cloud_server.cli.runs.known import server_dir_of
from cloud_server.cli.terminal import lineage_of
from cloud_server.monitoring.versions import version_json, versions_json


def list_models(directory: Path, asked: Page) -> dict[str, Any]:
    """Return versions, the newest first, what offers them, and those that are withheld."""
    known = versions_json(server_dir_of(directory))
    versions = sorted(
        map(_version, known["versions"]),
        key=lambda one: (one["version"], one["lineage"]),
        reverse=True,
    )
    return {
        "channels": known["channels"],
        "assigned": known["assigned"],
        "pins": known["pins"],
        "withheld": known["withheld"][::-1],
        **page("versions", versions, asked.offset, asked.limit),
    }


def get_model(directory: Path, asked: Version) -> dict[str, Any]:
    """Return where a version comes from, what it measured, and what the gate has said."""
    return _about(directory, asked.version, asked.channel)


def compare_models(directory: Path, asked: Versions) -> dict[str, Any]:
    """Return two versions side by side, by what robots have measured."""
    first, second = (_about(directory, v, asked.channel) for v in (asked.first, asked.second))
    both = [name for name in first["after"] if name in second["after"]]
    lacking = [str(one["version"]) for one in (first, second) if not one["after"]]
    return {
        "first": first,
        "second": second,
        "differ_in": [name for name in first if first[name] != second.get(name)],
        "measures": {
            name: {
                "first": first["after"][name],
                "second": second["after"][name],
                "difference": second["after"][name] - first["after"][name],
            }
            for name in both
        },
        "words": [
            "each version was measured when it was published, by the robots of that time on their "
            f"held-out examples: {first['held_out_examples']} and {second['held_out_examples']}",
            *(f"version {one} was not measured" for one in lacking),
        ],
    }


def _about(directory: Path, version: int, channel: str) -> dict[str, Any]:
    lineage = lineage_of(directory, channel) if channel else server_dir_of(directory)
    return version_json(lineage, version)


def _version(one: Mapping[str, Any]) -> dict[str, Any]:
    release = one.get("release") or {}
    return {
        "version": one["version"],
        "lineage": one.get("lineage", ""),
        "created_at": one["created_at"],
        "workload": one["workload"]["name"],
        "bytes": sum(entry["size_bytes"] for entry in one["files"].values()),
        "state": release.get("kind", "published"),
        "by": release.get("by", ""),
        "weights_of_version": release.get("of") or one["version"],
        "held_out_examples": release.get("examples", 0),
        "before": release.get("before", {}),
        "after": release.get("after", {}),
    }


VERSIONS = (
    Tool(
        name="list_models",
        about="Published versions, the newest first, which channel offers which, and the versions "
        "that the gate has withheld, with its reasons.",
        arguments=Page,
        answer=list_models,
    ),
    Tool(
        name="get_model",
        about="One version: run, robots and examples that it comes from, what robots measured, "
        "what the gate has said, who signed it.",
        arguments=Version,
        answer=get_model,
    ),
    Tool(
        name="compare_models",
        about="Two versions side by side, by what robots measured of each.",
        arguments=Versions,
        answer=compare_models,
    ),
)
