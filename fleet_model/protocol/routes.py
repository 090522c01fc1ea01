"""The paths of our own HTTPS routes, for the side that serves and the side that asks.

Flower's fleet API lies beside them (cloud_server/web/guard.py lists its paths).
"""

from urllib.parse import quote

ROBOT = "/fleetlearn/v1/robot"  # needs the proof of a robot's key
HELLO, WHOAMI = "/hello", "/whoami"
CHANNEL, OBJECT = "/channels/{channel}", "/objects/{sha256}"
# The same names as in the store's folder: signed metadata, and what it names.
METADATA, TARGET = "/metadata/{name}", "/targets/{channel}/{name}"

ADMIN = "/fleetlearn/v1/admin"  # needs the admin credential
STATUS, EVALUATIONS = "/status", "/evaluations"
RUNS, RUN = "/runs", "/runs/{run_id}"
STOP_RUN, RESUME_RUN = f"{RUN}/stop", f"{RUN}/resume"


def path_of(prefix: str, route: str, **parts: str) -> str:
    """Return the path of a route; `parts` fill what it has in braces, whatever they hold."""
    return prefix + route.format(**{name: quote(part, safe="") for name, part in parts.items()})


def target_of(channel: str) -> str:
    """Return the name under which the signed metadata has the manifest of a channel."""
    return f"{channel}/manifest.json"
