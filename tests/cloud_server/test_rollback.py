"""A model by command: an older one again, or one that the gate has withheld; the store is real."""

from contextlib import contextmanager

import numpy as np
import pytest

from cloud_server import rollback
from cloud_server.models.release_log import ReleaseLog
from cloud_server.rollback import publish_checkpoint, publish_site, roll_back
from cloud_server.runs.run_store import Run, RunStore
from cloud_server.signing.assignments import assign
from cloud_server.signing.keys import OfflineKeys
from cloud_server.signing.repository import Offline
from cloud_server.signing.signing import sign, take_offline
from cloud_server.sites.site_models import SiteEntry, SiteModels, site_models
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import PublishSettings
from fleet_model.bundle import sha256_of_file
from fleet_model.errors import BundleError, CheckpointError, SettingsError, WithheldError
from fleet_model.types import Checkpoint
from fleet_model.weights import read_weights

SETTINGS = PublishSettings()


@pytest.fixture(autouse=True)
def export(monkeypatch):
    def publish(server_dir, settings, checkpoint, progress, tell):
        store = DirectoryStore(server_dir.store)
        store.reissue(1, checkpoint.version, "2026-01-01")
        tell()
        store.offer(settings.channel, checkpoint.version)

    monkeypatch.setattr(rollback, "publish", publish)


@pytest.fixture
def trained(server_dir):
    """Versions 1, 2, 3 are published, 4 is withheld; each one's bias is its version."""
    checkpoints, store = Checkpoints(server_dir.checkpoints), DirectoryStore(server_dir.store)
    releases = ReleaseLog(server_dir.releases)
    shape = checkpoints.load(1).weights["head/bias"].shape
    for version in (1, 2, 3, 4):
        weights = {"head/bias": np.full(shape, version, np.float32)}
        state = {"rule/norms": np.full(1, version, np.float32)}
        checkpoints.save(Checkpoint(version=version, weights=weights, server_state=state))
        if version in (2, 3):
            store.reissue(1, version, "2026-01-01")
            releases.add(version, "published", f"run {version}", after={"accuracy": 0.9})
    store.offer("stable", 3)
    reasons = [{"kind": "fall", "words": "it fell"}]
    releases.add(4, "withheld", "run 4", after={"accuracy": 0.2}, reasons=reasons)
    return server_dir


def bias(server_dir):
    newest = Checkpoints(server_dir.checkpoints).latest()
    return newest.version, int(newest.weights["head/bias"][0])


def offered(server_dir):
    return DirectoryStore(server_dir.store).channels()["stable"]


def newest_release(server_dir):
    release = ReleaseLog(server_dir.releases).newest()
    return release.version, release.kind, release.of, release.by


def test_a_rollback_is_a_new_release_and_the_newest_checkpoint(trained):
    before = [sha256_of_file(one) for one in sorted((trained.store / "versions").glob("*.json"))]
    assert roll_back(trained, SETTINGS, 2) == (2, 5)
    assert (offered(trained), bias(trained)) == (5, (5, 2))
    assert newest_release(trained) == (5, "rolled_back", 2, "models rollback")
    store = DirectoryStore(trained.store)
    old, new = (one for one in store.versions() if one.version in (2, 5))
    assert (new.files, new.trainer) == (old.files, old.trainer)
    assert (old.rolls_back_to, new.rolls_back_to) == (None, 2)  # robots do not judge a person
    after = [sha256_of_file(one) for one in sorted((trained.store / "versions").glob("*.json"))]
    assert after[:3] == before  # versions never change
    state = Checkpoints(trained.checkpoints).latest().server_state
    assert state["rule/norms"][0] == 2


def test_without_a_number_each_rollback_goes_one_version_further_back(trained):
    assert roll_back(trained, SETTINGS) == (2, 5)
    assert roll_back(trained, SETTINGS) == (1, 6)
    with pytest.raises(BundleError, match="there is no version before the one that robots run"):
        roll_back(trained, SETTINGS)
    assert (offered(trained), bias(trained)) == (6, (6, 1))


def test_a_copy_is_a_copy_of_the_first_one(trained):
    roll_back(trained, SETTINGS, 2)
    roll_back(trained, SETTINGS, 3)
    assert roll_back(trained, SETTINGS, 5) == (5, 7)
    assert newest_release(trained) == (7, "rolled_back", 2, "models rollback")


def test_what_was_measured_of_a_version_is_known_of_its_copy(trained):
    roll_back(trained, SETTINGS, 2)
    assert ReleaseLog(trained.releases).newest().after == {"accuracy": 0.9}


def test_only_what_was_published_is_rolled_back_to(trained):
    for version in (4, 9):
        with pytest.raises(BundleError, match=f"version {version} is not published"):
            roll_back(trained, SETTINGS, version)
    assert (offered(trained), bias(trained)) == (3, (4, 4))


def test_a_rollback_that_died_before_its_last_step_is_ended_under_the_same_number(
    trained, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "offer", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            roll_back(trained, SETTINGS, 2)
    assert (offered(trained), bias(trained)) == (3, (5, 2))
    assert roll_back(trained, SETTINGS, 2) == (2, 5)
    assert offered(trained) == 5


def test_a_number_that_was_given_up_half_done_is_not_used_again(trained, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "copy", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            roll_back(trained, SETTINGS, 2)
    assert (offered(trained), bias(trained)) == (3, (4, 4))
    assert roll_back(trained, SETTINGS, 1) == (1, 6)


def test_a_version_that_lacks_a_file_is_not_given_to_robots(trained):
    store = DirectoryStore(trained.store)
    head = next(one for one in store.versions() if one.version == 2).files["head.tflite"]
    store.object(head.sha256).unlink()
    with pytest.raises(BundleError, match=r"version 2 lacks head\.tflite"):
        roll_back(trained, SETTINGS, 2)
    assert offered(trained) == 3


def test_nothing_is_changed_while_a_run_goes_on(trained):
    RunStore(trained.runs).save(Run(id="a", rounds=1, started_at=1.0, state="running"))
    for command in (
        lambda: roll_back(trained, SETTINGS, 2),
        lambda: publish_checkpoint(trained, SETTINGS, 4, print),
    ):
        with pytest.raises(SettingsError, match="run a goes on"):
            command()
    assert (offered(trained), bias(trained)) == (3, (4, 4))


def test_on_a_channel_that_offline_keys_sign_nothing_is_made_before_it_is_refused(
    trained, tmp_path
):
    sign(trained)
    keys = OfflineKeys(tmp_path / "usb", lambda name: "a word of some length")
    offline = Offline([keys.make("root-1")], keys.make("release"))
    take_offline(trained, offline, 1, "stable", "canary")
    published = DirectoryStore(trained.store).published()
    for command in (
        lambda: roll_back(trained, SETTINGS, 2),
        lambda: publish_checkpoint(trained, SETTINGS, 4, print),
    ):
        with pytest.raises(SettingsError, match="channel stable is signed by offline keys"):
            command()
    assert (offered(trained), bias(trained)) == (3, (4, 4))
    assert DirectoryStore(trained.store).published() == published


def test_a_withheld_checkpoint_is_published_by_command_under_its_own_number(trained):
    assert publish_checkpoint(trained, SETTINGS, 4, print) == 4
    assert (offered(trained), bias(trained)) == (4, (4, 4))
    assert newest_release(trained) == (4, "published", None, "models publish")
    assert ReleaseLog(trained.releases).newest().after == {"accuracy": 0.2}
    with pytest.raises(BundleError, match="version 4 is published already"):
        publish_checkpoint(trained, SETTINGS, 4, print)


def test_a_withheld_checkpoint_behind_others_is_published_under_a_new_number(trained):
    roll_back(trained, SETTINGS, 2)
    assert publish_checkpoint(trained, SETTINGS, 4, print) == 6
    assert (offered(trained), bias(trained)) == (6, (6, 4))
    assert newest_release(trained) == (6, "published", 4, "models publish")


def test_a_checkpoint_that_is_gone_is_named(trained):
    with pytest.raises(CheckpointError, match="checkpoint 8"):
        publish_checkpoint(trained, SETTINGS, 8, print)


@pytest.fixture
def with_sites(trained, monkeypatch):
    """Version 5, which is published: the fleet's bias is 5, that of hall-1 is 7, of hall-2 3."""
    checkpoints = Checkpoints(trained.checkpoints)
    shape = checkpoints.load(1).weights["head/bias"].shape
    weights = {"head/bias": np.full(shape, 5, np.float32)}
    models = SiteModels(
        entries=[SiteEntry(name="hall-1"), SiteEntry(name="hall-2")],
        weights={"head/bias": np.stack([np.full(shape, b, np.float32) for b in (7, 3)])},
    )
    checkpoints.save(Checkpoint(version=5, weights=weights, server_state=models.as_state()))
    exports = []

    @contextmanager
    def exported(server_dir, settings, model, file, version, progress):
        exports.append((version, read_weights(file)["head/bias"][0], model))
        DirectoryStore(server_dir.store).reissue(1, version, "2026-01-01")
        yield None

    monkeypatch.setattr(rollback, "exported", exported)
    monkeypatch.setattr(DirectoryStore, "add", lambda *_: None)  # reissue has done it
    return trained, exports


def test_a_site_s_model_takes_a_number_of_its_own_and_the_fleet_goes_on_behind_it(with_sites):
    server_dir, exports = with_sites

    assert publish_site(server_dir, SETTINGS, 5, "hall-2", print) == 6

    assert exports == [(6, 3, server_dir.model)]
    assert offered(server_dir) == 3  # nobody gets it
    assert bias(server_dir) == (7, 5)
    newest = Checkpoints(server_dir.checkpoints).latest()
    assert site_models(newest).names == ["hall-1", "hall-2"]
    assign(server_dir, "stable", "hall-2", 6)
    assert DirectoryStore(server_dir.store).offers()["stable/sites/hall-2"] == (6, "")
    assert publish_site(server_dir, SETTINGS, 5, "hall-1", print) == 8


def test_a_site_that_has_no_model_is_refused_and_nothing_is_made(with_sites):
    server_dir, exports = with_sites

    for version, known in ((5, "hall-1, hall-2"), (1, "none")):
        with pytest.raises(SettingsError, match=f"--site x: checkpoint {version} .*: {known};"):
            publish_site(server_dir, SETTINGS, version, "x", print)
    assert exports == []
    assert bias(server_dir) == (5, 5)


def test_a_site_s_model_does_not_let_a_run_go_on_from_what_the_gate_withholds(with_sites):
    server_dir, _ = with_sites
    reasons = [{"kind": "fall", "words": "it fell"}]
    ReleaseLog(server_dir.releases).add(5, "withheld", "run 5", reasons=reasons)

    assert publish_site(server_dir, SETTINGS, 5, "hall-1", print) == 7

    assert bias(server_dir) == (8, 3)  # the weights of version 3, which robots run


def test_a_site_s_model_that_is_worse_for_its_robots_is_published_by_force_only(with_sites):
    server_dir, exports = with_sites
    fell = {"reasons": [{"kind": "fall", "words": "it fell"}], "after": {"accuracy": 0.1}}
    ReleaseLog(server_dir.releases).add(
        5, "published", "run 5", sites={"hall-1": {"after": {"accuracy": 0.9}}, "hall-2": fell}
    )

    with pytest.raises(WithheldError, match=r"site hall-2 at .* held back .*: it fell\. "):
        publish_site(server_dir, SETTINGS, 5, "hall-2", print)
    assert (exports, bias(server_dir)) == ([], (5, 5))
    assert publish_site(server_dir, SETTINGS, 5, "hall-1", print) == 6
    assert publish_site(server_dir, SETTINGS, 5, "hall-2", print, force=True) == 8
    assert ReleaseLog(server_dir.releases).by_version()[5].sentences() == [
        "version 5: the model of site hall-2 is held back from it: it fell"
    ]
