"""The history as its file holds it."""

import json


def history_lines(server_dir):
    """Return the whole lines of a server's history, oldest first."""
    found = []
    for line in server_dir.history.read_text().splitlines() if server_dir.history.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # torn
    return found
