"""A rollout in stages: what robots of the first and of the last group find, whatever is cut."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from power_cuts import Scenario
from recorder import mark
from server_scenarios import TINY

from cloud_server.models.release_log import ReleaseLog
from cloud_server.rollout.changes import Wish, abort, advance, begin, finish
from cloud_server.signing.assignments import assign, unassign
from cloud_server.signing.keys import OfflineKeys
from cloud_server.signing.repository import Offline
from cloud_server.signing.signing import sign, signed_store, take_offline
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.offers.rollout_files import RolloutFiles
from edge_agent.link.choosing.rollouts import parts_of
from edge_agent.link.tuf_client import refresh
from fleet_model.bundle import parse_manifest, sha256_of
from fleet_model.protocol.rollout import choice, offer_of, read_plan, read_stage
from fleet_model.protocol.routes import site_offer, stored_target, target_of
from fleet_model.types import Checkpoint
from fleet_model.weights import read_weights

HALL = site_offer("stable", "hall-1")
_WISH = Wish(("50%", "100%"), 0.2, 0.0)
_WEIGHTS = read_weights(TINY / "weights.safetensors")


def _two_versions(root: Path) -> None:
    """Be a server whose runs publish on canary; stable offers version 1, 2 is to be promoted."""
    server_dir = ServerDirectory(root)
    server_dir.settings.write_text('[publish]\nchannel = "canary"\n')
    server_dir.secrets.mkdir()
    store, checkpoints = DirectoryStore(server_dir.store), Checkpoints(server_dir.checkpoints)
    store.publish(TINY, "stable", TINY)
    store.reissue(1, 2, "2026-01-01")
    store.offer("canary", 2)
    for version in (1, 2):
        checkpoints.save(Checkpoint(version=version, weights=_WEIGHTS))
        ReleaseLog(server_dir.releases).add(version, "published", "run a")
    sign(server_dir)


def _offline(root: Path) -> None:
    _two_versions(root)
    keys = _keys(root)
    offline = Offline([keys.make("root-1")], keys.make("release"))
    take_offline(ServerDirectory(root), offline, 1, "stable", "canary")


def _keys(root: Path) -> OfflineKeys:
    return OfflineKeys(root / "usb", lambda name: "a word of some length")


def _begin(root: Path) -> None:
    """Also after a kill: the next signing ends what was signed."""
    server_dir = ServerDirectory(root)
    sign(server_dir)
    if RolloutFiles(server_dir.store).read("stable") is None:
        is_offline = (root / "usb").exists()
        release = _keys(root).load("release") if is_offline else None
        begin(server_dir, "stable", 2, _WISH, release)
    mark()


def _begun(root: Path, prepare: Callable[[Path], None]) -> None:
    prepare(root)
    _begin(root)


def _take(root: Path, step: Callable[[ServerDirectory, str], Any]) -> None:
    """Take steps until the end; a server that starts looks first."""
    server_dir = ServerDirectory(root)
    finish(server_dir, "stable")
    sign(server_dir)
    while not _rollout(root).is_final:
        step(server_dir, "stable")
        mark()


def _rollout(root: Path) -> Any:
    rollout = RolloutFiles(root / "store").read("stable")
    assert rollout is not None
    return rollout


def _found(root: Path) -> tuple[int, int]:
    """Return the versions that robots of the first and of the last group find signed."""

    def get(path: str) -> bytes | None:
        file = root / "store" / path.removeprefix("/")
        return file.read_bytes() if file.is_file() else None

    first = get("metadata/1.root.json")
    assert first is not None
    names = ["stable", *parts_of("stable")]
    targets = refresh({"root.json": first}, [target_of(one) for one in names], "metadata/", get)

    def content(name: str) -> bytes:
        digest = targets[target_of(name)]
        found = get(f"targets/{stored_target(target_of(name), digest)}")
        assert found is not None
        assert sha256_of(found) == digest
        return found

    plan_name, stage_name, *_ = names[1:]
    if target_of(plan_name) not in targets:
        version = parse_manifest(content("stable")).version
        return version, version
    written = content(plan_name)
    plan = read_plan(written, "stable")
    stage = read_stage(content(stage_name), plan, sha256_of(written))
    first_group, last_group = (
        parse_manifest(content(offer_of("stable", choice(plan, stage, group, None)))).version
        for group in (0, len(plan.groups) - 1)
    )
    return first_group, last_group


def _settled(root: Path) -> Any:
    """Return also whether the channel's file says what is signed; a fallback is above version 2."""
    first, last = _found(root)
    channels = DirectoryStore(root / "store").channels()
    return min(first, 3), min(last, 3), min(channels["stable"], 3), sorted(channels)


def _assigned(root: Path) -> tuple[bool, bool]:
    """Return whether a site has a version of its own, by its file and by what is signed."""
    server_dir = ServerDirectory(root)
    role = signed_store(server_dir).files.current()["online"].signed
    return HALL in DirectoryStore(server_dir.store).offers(), target_of(HALL) in role.targets


def _assign_and_back(root: Path) -> None:
    """Also after a kill: what is assigned is taken away at the end."""
    server_dir = ServerDirectory(root)
    assign(server_dir, "stable", "hall-1", 2)
    mark()
    unassign(server_dir, "stable", "hall-1")
    mark()


ASSIGN = Scenario(
    prepare=_two_versions,
    act=_assign_and_back,
    observe=_assigned,
    resume=_assign_and_back,
    between=lambda states, step: [[(True, False)], [(False, True)], []][step],  # signed last
)
BEGIN, BEGIN_OFFLINE = (
    Scenario(prepare=prepare, act=_begin, observe=_found, resume=_begin, settled=_settled)
    for prepare in (_two_versions, _offline)
)
ADVANCE, ADVANCE_OFFLINE, ABORT, ABORT_OFFLINE = (
    Scenario(
        prepare=partial(_begun, prepare=prepare),
        act=partial(_take, step=step),
        observe=_found,
        resume=partial(_take, step=step),
        settled=_settled,
    )
    for step in (advance, abort)
    for prepare in (_two_versions, _offline)
)
