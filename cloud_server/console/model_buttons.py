"""Buttons over models: what `models publish`, `promote`, `rollback` and `rollout` call."""

from collections.abc import Callable

from cloud_server.console.buttons import Confirmation, Field, Given, number
from cloud_server.console.desk import Desk
from cloud_server.models.release_log import ReleaseLog
from cloud_server.rollback import publish_checkpoint, roll_back
from cloud_server.rollout import changes
from cloud_server.rollout.changes import Wish
from cloud_server.signing.assignments import require_keys
from cloud_server.signing.signing import offer_newer
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import PublishSettings
from fleet_model.errors import SettingsError
from fleet_model.protocol.rollout import group_word, groups_that_follow


def _home(desk: Desk, given: Given) -> tuple[ServerDirectory, PublishSettings]:
    """Return the directory with the lineage, and how its channel is published."""
    lineage, publish = given.get("lineage", ""), desk.settings.publish
    if not lineage:
        return desk.lineage(""), publish
    if lineage not in [one.lineage for one in desk.server_dir.lineages()]:
        raise SettingsError(f"no channel {lineage[:40]!r} is trained by itself")
    return desk.lineage(lineage), publish.model_copy(update={"channel": lineage})


def ask_publish(desk: Desk, given: Given) -> Confirmation:
    """Say why it was held back."""
    home, settings = _home(desk, given)
    version = _version(given)
    release = ReleaseLog(home.releases).by_version().get(version)
    why = "; ".join(one.words for one in release.reasons) if release else ""
    return Confirmation(
        words=[
            f"Version {version} goes to all robots on channel {settings.channel}, whatever robots "
            "have measured of it. The next run goes on from it.",
            *([f"It was held back: {desk.words(why)}."] if why else []),
            "It is exported first, which takes up to some minutes; this page waits for it.",
        ]
    )


def publish(desk: Desk, given: Given) -> str:
    """Give robots what the gate held back, as `models publish`."""
    home, settings = _home(desk, given)
    version = _version(given)
    number = publish_checkpoint(home, settings, version, lambda _: None)
    same = "" if number == version else f", with the weights of version {version}"
    return f"version {number} is published{same}; the next run goes on from it"


def ask_promote(desk: Desk, given: Given) -> Confirmation:
    """Say what channels offer, and ask which one."""
    version, channels = _version(given), desk.overview.store.channels()
    offers = ", ".join(f"{name} offers version {one}" for name, one in sorted(channels.items()))
    return Confirmation(
        words=[
            f"Version {version} is given to a channel, and so to the robots that follow it. "
            f"Now: {offers or 'no channel offers anything'}.",
            "With groups, robots get it one group after the other, and it is halted by itself when "
            "too many give it back. Without, all of them get it now.",
        ],
        fields=[
            Field(name="channel", label="Channel", value=desk.settings.publish.channel),
            Field(name="groups", label="Groups", hint="e.g. 10%,site:a,100%; none: all robots now"),
        ],
    )


def promote(desk: Desk, given: Given) -> str:
    """Let a channel offer a version, as `models promote`."""
    version, channel = _version(given), given.get("channel", "").strip()
    require_keys(desk.server_dir, channel, given=False)
    if not (groups := given.get("groups", "").strip()):
        offer_newer(desk.server_dir, channel, version)
        return f"channel {channel} offers version {version}"
    try:
        wanted = groups_that_follow(tuple(group_word(one.strip()) for one in groups.split(",")))
    except ValueError as error:
        raise SettingsError(f"groups {groups[:80]}: {error}") from None
    plan = changes.begin(desk.server_dir, channel, version, Wish(wanted, 0.2, 600.0)).plan
    return f"version {version} goes to {plan.groups[0]} of the robots on channel {channel} first"


def ask_rollback(desk: Desk, given: Given) -> Confirmation:
    """Say whose weights robots get."""
    home, settings = _home(desk, given)
    version = _version(given)
    root = ReleaseLog(home.releases).root_of(version)
    offered = desk.overview.store.channels().get(settings.channel)
    same = "" if root == version else f" (which are those of version {root})"
    return Confirmation(
        words=[
            f"All robots on channel {settings.channel} get the weights of version {version}{same} "
            f"again, as a version with a new number. Now they are offered version {offered}.",
            "The next run goes on from these weights.",
        ]
    )


def rollback(desk: Desk, given: Given) -> str:
    """Give robots an older version again, as `models rollback`."""
    home, settings = _home(desk, given)
    version, number = roll_back(home, settings, _version(given))
    return f"robots get version {version} again, as version {number}"


def ask_rollout(words: str) -> Callable[[Desk, Given], Confirmation]:
    """Return what says what becomes of a rollout."""

    def ask(desk: Desk, given: Given) -> Confirmation:
        channel = given.get("channel", "")
        known = next((one for one in desk.status().rollouts if one.channel == channel), None)
        if known is None:
            raise SettingsError(f"there is no rollout on channel {channel[:40]!r}")
        told = words.format(next=known.next, present=known.present, fallback=known.fallback)
        return Confirmation(words=[f"Rollout of version {known.next} on channel {channel}: {told}"])

    return ask


def change(how: str) -> Callable[[Desk, Given], str]:
    """Return what calls a function of rollout.changes, as `rollout` does."""

    def do(desk: Desk, given: Given) -> str:
        now = getattr(changes, how)(desk.server_dir, given.get("channel", ""))
        return (
            f"rollout of version {now.plan.next.version} on channel {now.plan.channel}: "
            f"{now.state}, {now.open} of {len(now.plan.groups)} groups open"
        )

    return do


def _version(given: Given) -> int:
    return number(given, "version", "a version", least=0, most=2**31)
