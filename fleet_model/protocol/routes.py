"""The paths of our own HTTPS routes, for the side that serves and the side that asks.

Flower's fleet API lies beside them (cloud_server/web/guard.py lists its paths).
"""

from urllib.parse import quote, urlsplit

ROBOT = "/fleetlearn/v1/robot"  # needs the proof of a robot's key
HELLO, WHOAMI = "/hello", "/whoami"
NEWS, MESSAGE, REPLY = "/news", "/message", "/reply"  # held; a question and a reply: whole.py
CHANNEL, OBJECT = "/channels/{channel}", "/objects/{sha256}"
# The same names as in the store's folder: signed metadata, and what it names.
METADATA, TARGETS = "/metadata/{name}", "/targets/"
MANIFEST = "/manifest.json"
SITE = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"  # the name of a site, whole

ADMIN = "/fleetlearn/v1/admin"  # needs the admin credential
STATUS, EVALUATIONS, PROFILES = "/status", "/evaluations", "/profiles"
RUNS, RUN = "/runs", "/runs/{run_id}"
CONSOLE_LINK, CONSOLE_SESSIONS = "/console-links", "/console-sessions"
STOP_RUN, RESUME_RUN = f"{RUN}/stop", f"{RUN}/resume"


def path_of(prefix: str, route: str, **parts: str) -> str:
    """Return the path of a route; `parts` fill what it has in braces, whatever they hold."""
    return prefix + route.format(**{name: quote(part, safe="") for name, part in parts.items()})


def site_offer(channel: str, site: str) -> str:
    """Return the name of what a channel offers to the robots of one site."""
    return f"{channel}/sites/{site}"


# Of a rollout on a channel: see rollout.py. The first two are manifests, the others small files.
NEXT, FALLBACK, PLAN, STAGE = "next", "fallback", "plan.json", "stage.json"


def part_of_rollout(channel: str, part: str) -> str:
    """Return the name of what belongs to a rollout on a channel."""
    return f"{channel}/{part}"


def channel_and_site(offer: str) -> tuple[str, str]:
    """Return what a `site_offer` is of; "" is the site of every other name."""
    channel, _, rest = offer.partition("/")
    return channel, rest.removeprefix("sites/") if rest.startswith("sites/") else ""


def target_of(name: str) -> str:
    """Return the name under which the signed metadata has something.

    Args:
        name: a channel, a `site_offer`, or a `part_of_rollout`.
    """
    is_file = name.count("/") == 1 and name.endswith((f"/{PLAN}", f"/{STAGE}"))
    return name if is_file else f"{name}{MANIFEST}"


def name_of(target: str) -> str:
    """Return what `target_of` was given."""
    return target.removesuffix(MANIFEST)


def stored_target(target: str, sha256: str) -> str:
    """Return where a target lies below targets/, as every client of TUF asks for it."""
    folder, _, name = target.rpartition("/")
    return f"{folder}/{sha256}.{name}"


def store_address(text: str) -> str:
    """Return the address of a store of models elsewhere, without / at its end; "" is none.

    Raises:
        ValueError: it is none that robots may ask.
    """
    text = text.rstrip("/") if not text.endswith("://") else text
    parts = urlsplit(text)
    if text and (not parts.scheme or "://" not in text or set(text) & set(" \t\n?#")):
        raise ValueError("expected https://host/folder, or a bucket as s3://bucket/folder")
    if parts.scheme == "http":
        raise ValueError("expected https://: over http everybody on the way sees the models")
    if "@" in parts.netloc:
        raise ValueError(
            "expected no name and password in it: a bucket takes them from its own variables, as "
            "AWS_ACCESS_KEY_ID"
        )
    return text
