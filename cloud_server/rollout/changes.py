"""Begin a rollout, and take its steps: by the running server, or by command.

The file of the rollout is written first, in one step; what is signed and what the channel offers
follow from it, also after a kill: by the next signing, or by the next look of the server.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from securesystemslib.signer import CryptoSigner

from cloud_server.models.publish import leave_withheld
from cloud_server.models.release_log import BY_ABORT, BY_PROMOTE, ReleaseLog
from cloud_server.runs.run_store import require_no_run
from cloud_server.signing.rollouts import require_no_rollout
from cloud_server.signing.signing import offered, sign, signed_store
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.offers.rollout_files import Rollout, RolloutFiles, begun
from cloud_server.state.settings import load_settings
from fleet_model.bundle import sha256_of
from fleet_model.errors import BundleError, CheckpointError, SettingsError
from fleet_model.protocol.proof import utc_now
from fleet_model.protocol.rollout import (
    ABORTED,
    ADVANCING,
    COMPLETE,
    HALTED,
    Named,
    Plan,
    content_of,
    offer_of,
)
from fleet_model.protocol.routes import FALLBACK, NEXT, PLAN, STAGE, part_of_rollout


@dataclass(frozen=True, slots=True)
class Wish:
    """How a version is to be rolled out."""

    groups: Sequence[str]
    threshold: float
    wait_s: float


def begin(
    server_dir: ServerDirectory,
    channel: str,
    version: int,
    wish: Wish,
    release: CryptoSigner | None = None,
) -> Rollout:
    """Open the first group of robots for a published version; the channel stays as it is.

    Args:
        server_dir: its server may run, but for a run.
        channel: whose robots.
        version: above what the channel offers.
        wish: groups and bounds.
        release: the offline key, where it signs for the channel.

    Raises:
        BundleError: it is not published, lacks files, or is not above what the channel offers.
        SettingsError: a rollout or a run goes on, the channel offers nothing yet, or its key is
            not here.
    """
    store = DirectoryStore(server_dir.store)
    with server_dir.locked("train"):
        require_no_run(server_dir)
        finish(server_dir, channel)
        require_no_rollout(server_dir.store, channel)
        present, lineage = _present(store, channel, version)
        if release is None:
            sign(server_dir)
            signed_store(server_dir).require_delegated(part_of_rollout(channel, PLAN))
        home = replace(server_dir, lineage=lineage)
        leave_withheld(home, load_settings(server_dir.settings).publish.channel, BY_PROMOTE)
        fallback = _reserve(home, present)
        manifests = {
            channel: store.require(present, lineage),
            part_of_rollout(channel, NEXT): store.require(version, lineage),
            part_of_rollout(channel, FALLBACK): store.require(fallback, lineage),
        }
        named = [
            Named(version=number, sha256=sha256_of(content))
            for number, content in zip(
                (present, version, fallback), manifests.values(), strict=True
            )
        ]
        plan = Plan(
            channel=channel,
            groups=tuple(wish.groups),
            threshold=wish.threshold,
            wait_s=wish.wait_s,
            present=named[0],
            next=named[1],
            fallback=named[2],
        )
        rollout = begun(plan, time.time())
        if release is not None:  # the signature first: see signing.promote
            before, stage = offered(server_dir), part_of_rollout(channel, STAGE)
            put = manifests | {part_of_rollout(channel, PLAN): rollout.content.encode()}
            after = before | {stage: content_of(rollout.stage)}
            signed_store(server_dir).change(before, utc_now(), put, release, after=after)
        for part, number in ((NEXT, version), (FALLBACK, fallback)):
            store.offer(part_of_rollout(channel, part), number, lineage)
        _tell(server_dir, lineage, rollout, "begun")
        files = RolloutFiles(server_dir.store)
        with files.changing():
            files.write(channel, rollout)
        sign(server_dir)
    return rollout


def _present(store: DirectoryStore, channel: str, version: int) -> tuple[int, str]:
    """Return what the channel offers now, and of which lineage."""
    offers = store.offers()
    if channel not in offers:
        raise SettingsError(
            f"channel {channel} offers nothing yet, so there is nothing to go back to: promote "
            "the first version without --groups"
        )
    present, lineage = offers[channel]
    store.require(version, lineage)
    if version <= present:
        raise BundleError(
            f"channel {channel} offers version {present}, and a rollout is to a higher one; "
            f"`cloud-server models rollback DIR {version}` makes a new number of it to promote"
        )
    return present, lineage


def _reserve(server_dir: ServerDirectory, present: int) -> int:
    """Give the weights of `present` another number, the fallback's; none is offered.

    The next run begins with the newest checkpoint, so what was the newest one is that again, under
    the number after it.
    """
    checkpoints, releases = Checkpoints(server_dir.checkpoints), ReleaseLog(server_dir.releases)
    store, head = DirectoryStore(server_dir.store), checkpoints.newest()
    number = max([*checkpoints.saved(), *store.published(server_dir.lineage)]) + 1
    now = utc_now().isoformat(timespec="seconds")
    back_to = releases.root_of(present)
    store.reissue(present, number, now, server_dir.lineage, back_to=back_to)
    with suppress(CheckpointError):  # an old one is gone: all that robots need is in the store
        checkpoints.copy(present, number)
    if head is not None:
        releases.add(number + 1, "returned", BY_PROMOTE, of=releases.root_of(head))
        checkpoints.copy(head, number + 1)
    return number


def advance(server_dir: ServerDirectory, channel: str) -> Rollout:
    """Open the next group now, or end the rollout after the last one; raises as `change`."""

    def more(now: Rollout) -> Rollout:
        last = now.open >= len(now.plan.groups)
        state, groups = (COMPLETE, now.open) if last else (ADVANCING, now.open + 1)
        return now.step(time.time(), "by `cloud-server rollout advance`", state=state, open=groups)

    return change(server_dir, channel, more)


def halt(server_dir: ServerDirectory, channel: str) -> Rollout:
    """Let no further robot take the version; who has it keeps it; raises as `change`."""
    by = "by `cloud-server rollout halt`"
    return change(server_dir, channel, lambda now: now.step(time.time(), by, state=HALTED))


def resume(server_dir: ServerDirectory, channel: str) -> Rollout:
    """Let a halted rollout go on; robots that have failed do not count any more."""

    def on(now: Rollout) -> Rollout:
        if now.state != HALTED:
            raise SettingsError(f"the rollout on channel {channel} is not halted: it goes on")
        by, forgiven = "by `cloud-server rollout resume`", {*now.forgiven, *now.failed}
        known = {"failed": (), "forgiven": tuple(sorted(forgiven))}
        return now.step(time.time(), by, state=ADVANCING, **known)

    return change(server_dir, channel, on)


def abort(server_dir: ServerDirectory, channel: str) -> Rollout:
    """Give all robots the fallback: the weights of before, under a new number.

    Where runs publish on this channel, and none goes on, the next one begins with it, too.

    Raises:
        SettingsError: as `change`.
    """

    def back(now: Rollout) -> Rollout:
        fallback = now.plan.fallback.version
        releases = ReleaseLog(replace(server_dir, lineage=_lineage(server_dir, channel)).releases)
        root = releases.root_of(now.plan.present.version)
        releases.add(fallback, "rolled_back", BY_ABORT, of=root)
        return now.step(time.time(), "by `cloud-server rollout abort`", state=ABORTED)

    done = change(server_dir, channel, back)
    if load_settings(server_dir.settings).publish.channel == channel:
        _return_to(replace(server_dir, lineage=_lineage(server_dir, channel)), done.plan)
    return done


def _return_to(server_dir: ServerDirectory, plan: Plan) -> None:
    """Let the next run begin with what robots run; one that goes on keeps its own."""
    checkpoints, releases = Checkpoints(server_dir.checkpoints), ReleaseLog(server_dir.releases)
    with suppress(SettingsError, CheckpointError), server_dir.locked("train"):
        require_no_run(server_dir)
        number = (checkpoints.newest() or 0) + 1
        root = releases.root_of(plan.present.version)
        checkpoints.copy(plan.fallback.version, number)
        releases.add(number, "returned", BY_ABORT, of=root)


def change(
    server_dir: ServerDirectory, channel: str, by: Callable[[Rollout], Rollout | None]
) -> Rollout:
    """Take a step of a rollout that is not over; `by` returns None where there is none to take.

    Raises:
        SettingsError: there is no rollout, or it has ended.
        BundleError: its file is damaged.
    """
    files = RolloutFiles(server_dir.store)
    with files.changing():
        before = files.read(channel)
        if before is None or before.over or before.is_final:
            raise SettingsError(_none(channel, before))
        after = by(before)
        if after is None or after == before:
            return before
        _tell(server_dir, _lineage(server_dir, channel), after, after.state)
        files.write(channel, after)
    finish(server_dir, channel)
    sign(server_dir)
    return after


def finish(server_dir: ServerDirectory, channel: str) -> None:
    """Let the channel offer what came of a rollout, where the server signs for it.

    Where offline keys do, the plan stays signed, and the channel's file follows in `sign`.
    """
    store, files = DirectoryStore(server_dir.store), RolloutFiles(server_dir.store)
    with files.changing():
        rollout = files.read(channel)
        if rollout is None or not rollout.is_final:
            return
        if channel in signed_store(server_dir).protected():
            return
        if not rollout.over:
            offers, name = store.offers(), offer_of(channel, rollout.outcome)
            if name not in offers:
                raise BundleError(
                    f"the rollout on channel {channel} cannot be ended: store/channels/{name}.json "
                    f"is gone; restore it from a backup, or remove store/rollouts/{channel}.json: "
                    "then the channel offers what it does now"
                )
            store.offer(channel, *offers[name])
            files.write(channel, rollout.model_copy(update={"over": True}))
        for part in (NEXT, FALLBACK):
            with suppress(FileNotFoundError):
                store.withdraw(part_of_rollout(channel, part))
    if not rollout.over:
        sign(server_dir)


def _lineage(server_dir: ServerDirectory, channel: str) -> str:
    return DirectoryStore(server_dir.store).offers().get(channel, (0, ""))[1]


def _tell(server_dir: ServerDirectory, lineage: str, rollout: Rollout, what: str) -> None:
    plan = rollout.plan
    words = (
        f"{what}, {rollout.open} of {len(plan.groups)} groups ({', '.join(plan.groups)}) of "
        f"channel {plan.channel}: {rollout.why}"
    )
    releases = ReleaseLog(replace(server_dir, lineage=lineage).releases)
    releases.add_step(plan.next.version, words)


def _none(channel: str, known: Rollout | None) -> str:
    begin = f"there is no rollout on channel {channel}"
    if known is not None:
        begin = f"the rollout of version {known.plan.next.version} on {channel} is {known.state}"
    return (
        f"{begin}; `cloud-server models promote DIR VERSION --groups 10%,100% --channel {channel}` "
        "begins one"
    )
