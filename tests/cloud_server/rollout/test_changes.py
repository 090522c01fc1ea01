"""A rollout on a real store: what is signed at each step, and what a kill between leaves."""

import numpy as np
import pytest

from cloud_server.labels import relabel
from cloud_server.models.release_log import ReleaseLog
from cloud_server.rollback import publish_checkpoint, roll_back
from cloud_server.rollout import changes
from cloud_server.rollout.changes import Wish, abort, advance, begin, finish, halt, resume
from cloud_server.runs.run_store import Run, RunStore
from cloud_server.signing.keys import OfflineKeys
from cloud_server.signing.repository import Offline
from cloud_server.signing.signing import offer, promote, sign, signed_store, take_offline
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.offers.rollout_files import RolloutFiles
from cloud_server.state.settings import PublishSettings
from fleet_model.bundle import parse_manifest, sha256_of
from fleet_model.errors import BundleError, SettingsError
from fleet_model.protocol.rollout import read_plan, read_stage
from fleet_model.types import Checkpoint

WISH = Wish(("50%", "100%"), 0.2, 0.0)


class Kill(BaseException):
    """Nothing after this runs."""


@pytest.fixture
def server(server_dir):
    """Channel stable offers version 1, and runs publish on canary, where they have made 2 and 3."""
    text = server_dir.settings.read_text().replace('channel = "stable"', 'channel = "canary"')
    server_dir.settings.write_text(text)
    checkpoints, store = Checkpoints(server_dir.checkpoints), DirectoryStore(server_dir.store)
    shape = checkpoints.load(1).weights["head/bias"].shape
    for version in (2, 3):
        weights = {"head/bias": np.full(shape, version, np.float32)}
        checkpoints.save(Checkpoint(version=version, weights=weights, server_state={}))
        store.reissue(1, version, "2026-01-01")
        ReleaseLog(server_dir.releases).add(version, "published", f"run {version}")
    store.offer("canary", 3)
    sign(server_dir)
    return server_dir


@pytest.fixture
def release(server, tmp_path):
    """The offline key of channel stable."""
    keys = OfflineKeys(tmp_path / "usb", lambda name: "a word of some length")
    key = keys.make("release")
    take_offline(server, Offline([keys.make("root-1")], key), 1, "stable", "canary")
    return key


@pytest.fixture(params=["online", "offline"])
def key(request):
    return None if request.param == "online" else request.getfixturevalue("release")


def signed(server):
    """Return name -> version or stage of all that is signed of channel stable."""
    current, found = signed_store(server).files.current(), {}
    for role in ("online", "stable"):
        for path, target in (current[role].signed.targets if role in current else {}).items():
            folder, _, name = path.rpartition("/")
            digest = target.hashes["sha256"]
            content = (server.store / "targets" / folder / f"{digest}.{name}").read_bytes()
            assert sha256_of(content) == digest
            found[path] = content
    plan = found.get("stable/plan.json")
    told = {
        path: parse_manifest(content).version
        for path, content in found.items()
        if path.startswith("stable/") and path.endswith("manifest.json")
    }
    if plan is not None:
        read = read_plan(plan, "stable")
        stage = read_stage(found["stable/stage.json"], read, sha256_of(plan))
        told["stage"] = (stage.state, stage.open)
        assert told["stable/next/manifest.json"] == read.next.version
        assert told["stable/fallback/manifest.json"] == read.fallback.version
    return told


def channels(server):
    return DirectoryStore(server.store).channels()


def staged(stage, channel=1):
    return {
        "stable/manifest.json": channel, "stable/next/manifest.json": 3,
        "stable/fallback/manifest.json": 4, "stage": stage,
    }  # fmt: skip


def ended(key, stage, version):
    """Return what is signed at the end: with offline keys the plan stays."""
    return {"stable/manifest.json": version} if key is None else staged(stage)


def test_the_whole_plan_is_signed_and_the_channel_stays(server, key):
    rollout = begin(server, "stable", 3, WISH, key)
    assert signed(server) == staged(("advancing", 1))
    assert channels(server)["stable"] == 1
    assert (rollout.plan.groups, rollout.plan.fallback.version) == (("50%", "100%"), 4)
    fallback = parse_manifest(DirectoryStore(server.store).require(4))
    assert fallback.rolls_back_to == 1
    assert fallback.files == parse_manifest(DirectoryStore(server.store).require(1)).files


def test_it_ends_with_the_new_version_for_all(server, key):
    begin(server, "stable", 3, WISH, key)
    advance(server, "stable")
    assert signed(server) == staged(("advancing", 2))
    advance(server, "stable")
    assert signed(server) == ended(key, ("complete", 2), 3)
    assert channels(server)["stable"] == 3
    with pytest.raises(SettingsError, match=r"rollout of version 3 on stable is complete; `cloud"):
        advance(server, "stable")


def test_taken_back_all_get_the_weights_of_before(server, key):
    begin(server, "stable", 3, WISH, key)
    halt(server, "stable")
    assert signed(server) == staged(("halted", 1))
    abort(server, "stable")
    assert signed(server) == ended(key, ("aborted", 1), 4)
    assert channels(server)["stable"] == 4
    release = ReleaseLog(server.releases).by_version()[4]
    assert (release.kind, release.of, release.by) == ("rolled_back", 1, "rollout abort")


@pytest.mark.parametrize("end", [abort, advance])
def test_the_next_promotion_begins_with_what_came_of_it(server, key, end):
    begin(server, "stable", 2, Wish(("100%",), 0.2, 0), key)
    end(server, "stable")
    offered = {abort: 4, advance: 2}[end]
    store = DirectoryStore(server.store)
    store.reissue(1, 7, "2026-01-01")
    begin(server, "stable", 7, WISH, key)
    assert signed(server)["stable/manifest.json"] == offered == channels(server)["stable"]
    assert signed(server)["stage"] == ("advancing", 1)
    abort(server, "stable")
    if key is not None:  # at once for all
        store.reissue(1, 20, "2026-01-01")
        promote(server, "stable", 20, key)
        assert signed(server) == {"stable/manifest.json": 20}
        assert RolloutFiles(server.store).all() == {}


def test_a_halted_one_goes_on_by_command_and_its_failures_are_forgiven(server):
    begin(server, "stable", 3, WISH)
    with pytest.raises(SettingsError, match="is not halted: it goes on"):
        resume(server, "stable")
    files = RolloutFiles(server.store)
    files.write(
        "stable", files.read("stable").step(1.0, "by itself", state="halted", failed=("r1",))
    )
    resume(server, "stable")
    now = files.read("stable")
    assert (now.state, now.failed, now.forgiven) == ("advancing", (), ("r1",))


def test_the_next_run_begins_with_what_was_the_newest(server):
    begin(server, "stable", 3, WISH)
    newest = Checkpoints(server.checkpoints).latest()
    assert (newest.version, newest.weights["head/bias"][0]) == (5, 3)
    assert ReleaseLog(server.releases).by_version()[5].kind == "returned"
    assert DirectoryStore(server.store).published() == [1, 2, 3, 4]
    abort(server, "stable")  # canary is what runs train for: it goes on
    assert Checkpoints(server.checkpoints).newest() == 5


def test_taken_back_where_runs_publish_the_next_run_begins_with_it(server):
    text = server.settings.read_text().replace('channel = "canary"', 'channel = "stable"')
    server.settings.write_text(text)
    begin(server, "stable", 3, WISH)
    abort(server, "stable")
    newest = Checkpoints(server.checkpoints).latest()
    assert newest.version == 6
    first = Checkpoints(server.checkpoints).load(1).weights["head/bias"][0]
    assert newest.weights["head/bias"][0] == first


def test_the_history_has_each_step_with_its_reason(server):
    begin(server, "stable", 3, WISH)
    advance(server, "stable")
    abort(server, "stable")
    steps = [one.step for one in ReleaseLog(server.releases).all() if one.kind == "rollout"]
    assert [one.partition(",")[0] for one in steps] == ["begun", "advancing", "aborted"]
    assert steps[1].endswith(
        "2 of 2 groups (50%, 100%) of channel stable: by `cloud-server rollout advance`"
    )
    assert ReleaseLog(server.releases).by_version()[3].kind == "published"


def test_what_cannot_be_is_refused(server):
    with pytest.raises(SettingsError, match=r"no rollout on channel stable; .* begins one"):
        halt(server, "stable")
    with pytest.raises(SettingsError, match="channel edge offers nothing yet"):
        begin(server, "edge", 3, WISH)
    with pytest.raises(BundleError, match="version 9 is not published"):
        begin(server, "stable", 9, WISH)
    with pytest.raises(BundleError, match="offers version 3, and a rollout is to a higher one"):
        begin(server, "canary", 2, WISH)
    run = Run(id="20260101-120000", rounds=1, started_at=0.0, state="running")
    RunStore(server.runs).save(run)
    with pytest.raises(SettingsError, match="run 20260101-120000 goes on"):
        begin(server, "stable", 3, WISH)
    assert signed(server) == {"stable/manifest.json": 1}


def test_nothing_else_is_offered_while_one_goes_on(server, tmp_path):
    begin(server, "stable", 3, WISH)
    told = "a rollout of version 3 on channel stable is advancing: wait until it is complete"
    keys = OfflineKeys(tmp_path / "usb", lambda name: "a word of some length")
    offline = Offline([keys.make("root-1")], keys.make("release"))
    for attempt in (
        lambda: begin(server, "stable", 3, WISH),
        lambda: offer(server, "stable", 2),
        lambda: take_offline(server, offline, 1, "stable", "canary"),
    ):
        with pytest.raises(SettingsError, match=told):
            attempt()
    assert signed(server) == staged(("advancing", 1))


def test_no_number_is_used_up_by_a_rollback_or_new_labels_while_one_goes_on(server):
    begin(server, "stable", 3, WISH)
    settings = PublishSettings(channel="stable")
    before = Checkpoints(server.checkpoints).saved()
    for attempt in (
        lambda: roll_back(server, settings, 1),
        lambda: publish_checkpoint(server, settings, 2, print),
        lambda: relabel(server, settings, lambda labels: labels, print),
    ):
        with pytest.raises(SettingsError, match="a rollout of version 3 on channel stable is adv"):
            attempt()
    assert Checkpoints(server.checkpoints).saved() == before
    assert DirectoryStore(server.store).published() == [1, 2, 3, 4]


def test_a_version_that_the_store_has_lost_is_named(server):
    begin(server, "stable", 3, WISH)
    (server.store / "channels/stable/fallback.json").unlink()
    with pytest.raises(BundleError, match=r"store/channels/stable/fallback\.json is gone"):
        abort(server, "stable")
    assert channels(server)["stable"] == 1


def test_what_a_rollout_needs_is_not_pruned(server):
    begin(server, "stable", 2, WISH)
    store = DirectoryStore(server.store)
    store.reissue(1, 8, "2026-01-01")
    store.offer("canary", 8)
    store.prune(keep=1)
    assert store.published() == [1, 2, 4, 8]


@pytest.mark.parametrize("step", ["offer", "write", "withdraw"])
def test_an_end_that_was_cut_short_is_ended_by_the_next_look(server, monkeypatch, step):
    begin(server, "stable", 3, Wish(("100%",), 0.2, 0))
    kind = RolloutFiles if step == "write" else DirectoryStore
    real, calls = getattr(kind, step), []

    def killed(self, *arguments):
        calls.append(arguments)
        if len(calls) == (2 if step == "write" else 1):  # the first one is the step itself
            raise Kill
        return real(self, *arguments)

    with monkeypatch.context() as dying:
        dying.setattr(kind, step, killed)
        with pytest.raises(Kill):
            advance(server, "stable")
    finish(server, "stable")
    sign(server)
    assert channels(server)["stable"] == 3
    told = signed(server)
    told.pop("stable/next/manifest.json", None)  # of use to nobody, harmless
    told.pop("stable/fallback/manifest.json", None)
    assert told == {"stable/manifest.json": 3}
    begin_again = DirectoryStore(server.store)
    begin_again.reissue(1, 9, "2026-01-01")
    begin(server, "stable", 9, WISH)
    assert signed(server)["stable/next/manifest.json"] == 9


def test_a_promotion_that_was_killed_after_its_signature_is_taken_over(
    server, release, monkeypatch
):
    """The signature of the offline key comes first: it decides."""
    with monkeypatch.context() as dying:
        dying.setattr(changes.DirectoryStore, "offer", lambda *_: (_ for _ in ()).throw(Kill()))
        with pytest.raises(Kill):
            begin(server, "stable", 3, WISH, release)
    assert RolloutFiles(server.store).all() == {}
    sign(server)
    assert signed(server) == staged(("advancing", 1))
    assert RolloutFiles(server.store).read("stable").plan.next.version == 3
    assert DirectoryStore(server.store).offers()["stable/next"] == (3, "")
    advance(server, "stable")
    assert signed(server)["stage"] == ("advancing", 2)
