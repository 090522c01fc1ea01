"""Parameter files that say nothing to a node: ROS passes over sections of other nodes in silence.

Most often the section has the name of the program, or lacks the namespace.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

_VALUES = "ros__parameters"
_MOST = 5  # sections that are listed


class SilentFile(NamedTuple):
    """A file without a section for a node."""

    words: str  # what a user reads
    is_meant: bool  # a section's name is near the node's: a mistake, no file for other nodes


def silent_files(args: Sequence[str], node: str) -> list[SilentFile]:
    """Return the parameter files among a process's arguments that have no section for a node.

    Args:
        args: of the command line; ROS has read them already.
        node: its whole name, "/robot_7/perception".
    """
    found = []
    for file in _files(args):
        sections = list(_sections(_content(file)))
        if not sections or any(_matches(section, node) for section in sections):
            continue
        more = ", ..." if len(sections) > _MOST else ""
        last = [section.rpartition("/")[2] for section in sections]
        found.append(
            SilentFile(
                f"{file}: no section is for this node, so nothing in it is used: it has "
                f"{', '.join(sections[:_MOST])}{more}; name the section {node} or /**",
                bool(get_close_matches(node.rpartition("/")[2], last)),
            )
        )
    return found


def _files(args: Sequence[str]) -> Iterator[Path]:
    is_of_ros = False
    for word, following in zip(args, [*args[1:], ""], strict=True):
        if word in ("--ros-args", "--"):
            is_of_ros = word == "--ros-args"
        elif is_of_ros and word == "--params-file":
            yield Path(following)


def _content(file: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError):  # ROS reads it in its own way
        return None


def _sections(content: Any, above: str = "") -> Iterator[str]:
    """Yield the whole names of sections; namespaces may be levels of their own."""
    if not isinstance(content, Mapping):
        return
    for key, below in content.items():
        name = f"{above}/{str(key).strip('/')}"
        if isinstance(below, Mapping) and _VALUES in below:
            yield name
        else:
            yield from _sections(below, name)


def _matches(section: str, node: str) -> bool:
    """Return whether a section is for a node: `*` is one level, `**` any number of them."""
    levels = {"*": "/[^/]+", "**": "(/[^/]+)*"}
    parts = [levels.get(part, f"/{re.escape(part)}") for part in section[1:].split("/")]
    return re.fullmatch("".join(parts), node) is not None
