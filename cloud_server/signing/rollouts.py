"""What is signed of rollouts, and what the store's files say of what offline keys have signed."""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cloud_server.signing.roles import channel_of
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.offers.rollout_files import RolloutFiles, adopted
from fleet_model.bundle import sha256_of
from fleet_model.errors import SettingsError, TrustError
from fleet_model.protocol.rollout import content_of, offer_of
from fleet_model.protocol.routes import PLAN, STAGE, part_of_rollout, stored_target, target_of


def signed_parts(store: Path) -> dict[str, bytes]:
    """Return name -> content of plans and stages; raises BundleError if a file is damaged."""
    found = {}
    for channel, rollout in RolloutFiles(store).all().items():
        if not rollout.over:
            found[part_of_rollout(channel, PLAN)] = rollout.content.encode()
            found[part_of_rollout(channel, STAGE)] = content_of(rollout.stage)
    return found


def require_no_rollout(store: Path, channel: str) -> None:
    """Raise SettingsError while a rollout on a channel goes on, or is halted."""
    if why := open_rollout(store, channel):
        raise SettingsError(
            f"{why}: wait until it is complete, or take it back: `cloud-server rollout abort DIR "
            f"--channel {channel}`"
        )


def open_rollout(store: Path, channel: str) -> str:
    """Return what to say of a rollout that goes on or is halted; "" if there is none."""
    rollout = RolloutFiles(store).read(channel)
    if rollout is None or rollout.over or rollout.is_final:
        return ""
    return (
        f"a rollout of version {rollout.plan.next.version} on channel {channel} is {rollout.state}"
    )


def take_over(store: Path, channel: str, promised: Mapping[str, str]) -> None:
    """Let the rollout of a channel be the one that offline keys have signed, or none.

    Else a promotion was cut short: it signs first.
    """
    files, digest = RolloutFiles(store), promised.get(part_of_rollout(channel, PLAN))
    known = files.read(channel)
    if (None if known is None else known.digest) == digest:
        return
    with files.changing():
        if digest is None:
            with suppress(FileNotFoundError):
                files.remove(channel)
            return
        target = target_of(part_of_rollout(channel, PLAN))
        content = (store / "targets" / stored_target(target, digest)).read_bytes()
        if sha256_of(content) != digest:
            raise TrustError(
                f"the plan of the rollout on channel {channel} is damaged: promote again, or "
                "restore the store from a backup"
            )
        files.write(channel, adopted(content, channel, time.time()))


def follow(store: DirectoryStore, channel: str, promised: Mapping[str, str]) -> None:
    """Let a channel's files name what offline keys have signed, if a promotion was cut short.

    Where a rollout has come to its end, the channel offers what came of it.
    """
    offers = store.offers()
    lineage = offers.get(channel, (0, ""))[1]
    rollout = RolloutFiles(store.root).read(channel)
    chosen = channel if rollout is None else offer_of(channel, rollout.outcome)
    for name, signed in promised.items():
        digest = promised[chosen] if name == channel else signed
        if name == part_of_rollout(channel, PLAN):
            continue
        content = store.latest_bytes(name)
        if content is None or sha256_of(content) != digest:
            for version in store.published(lineage):
                if sha256_of(store.require(version, lineage)) == digest:
                    store.offer(name, version, lineage)
    for name in offers:
        if channel_of(name) == channel and name not in promised:
            store.withdraw(name)
