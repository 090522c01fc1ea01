"""How the agent and its child processes log: one line an event on stderr."""

import logging

from fleet_model.command_line.systemd import JournalLines, in_journal


def log_to_stderr() -> logging.Handler:
    """Send every logger of this process to stderr; return what does it.

    The journal has the time and the level of a line apart from its words.
    """
    handler = logging.StreamHandler()
    if in_journal():
        handler.setFormatter(JournalLines(logging.Formatter("%(message)s")))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return handler
