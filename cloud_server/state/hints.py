"""Commands that messages name, such that they can be copied: with the directory filled in."""

import re
import shlex
from pathlib import Path

_COMMAND = re.compile(r"(\bcloud-server(?: [a-z][a-z-]*)+) DIR\b")


def with_directory(text: str, directory: Path) -> str:
    """Return a text in which every `cloud-server ... DIR` names the directory.

    Messages say DIR where they are made, because robots read some of them, and a robot need not
    know where the server's files lie.
    """
    if " DIR" not in text:
        return text
    return _COMMAND.sub(lambda found: f"{found[1]} {shlex.quote(str(directory))}", text)
