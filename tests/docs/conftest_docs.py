"""The commands of README.md and docs, as a reader would type them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")),
         ROOT / "datasets" / "README.md"]  # fmt: skip
PROGRAMS = (
    "cloud-server",
    "edge-agent",
    "site-relay",
    "make",
    "python",
    "flower-",
    "flwr",
    "pip ",
    "uv ",
    "ros2 ",
)


@dataclass(frozen=True)
class Typed:
    """One command of a page."""

    page: str
    line: int
    text: str

    @property
    def words(self):
        return shlex.split(self.text, comments=True)


def typed_commands(page):
    """Return the commands in the fenced blocks of a page; a backslash joins lines."""
    found, fence, text, begin = [], None, "", 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            fence = None if fence else line.strip()
            continue
        if fence != "```" and not (page.name == "CONTRIBUTING.md" and line.startswith("    make")):
            continue
        begin = begin if text else number
        text += line.strip().removesuffix("\\")
        if line.endswith("\\"):
            continue
        if re.match(rf"({'|'.join(PROGRAMS)})", text):
            found.append(Typed(page.name, begin, text))
        text = ""
    return found
