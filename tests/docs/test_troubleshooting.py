"""The code can say every message of docs/troubleshooting.md; every exit code is explained."""

import re
from pathlib import Path

import pytest

from fleet_model import errors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
BEFORE, CODES = PAGE.split("## Exit codes")
CELLS = [line.split("|")[1] for line in BEFORE.splitlines() if line.startswith("| `")]
MESSAGES = [word for cell in CELLS for word in re.findall(r"`([^`]+)`", cell)]
STATES = {
    "edge-agent status",
    "refused",
    "offline",
    "state.db",
}  # where a message stands, not a message


def said():
    """Return all text of the packages, string literals joined as Python joins them."""
    files = (
        p
        for name in ("cloud_server", "edge_agent", "fleet_model")
        for p in (ROOT / name).rglob("*.py")
    )
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return re.sub(r'"\s*\n?\s*f?"', "", text)


SAID = said()


@pytest.mark.parametrize("message", [m for m in dict.fromkeys(MESSAGES) if m not in STATES])
def test_a_message_of_the_page_is_in_the_code(message):
    assert message in SAID


def test_every_exit_code_of_our_errors_is_explained():
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and hasattr(k, "exit_code")]
    codes = {kind.exit_code for kind in kinds}
    assert len(codes) > 8
    explained = {int(row.split("|")[1]) for row in CODES.splitlines() if re.match(r"\| \d", row)}
    assert codes <= explained
