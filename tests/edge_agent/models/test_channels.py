"""A robot that follows one channel, then another: what each of them has stays."""

import shutil
from pathlib import Path

import pytest

from cloud_server.state.model_store import DirectoryStore
from edge_agent.models.deploy import Models
from fleet_model.bundle import MANIFEST, TRAINER, entry_of, read_bundle, read_offer, to_json
from fleet_model.errors import BundleError

TINY = Path(__file__).parents[2] / "data" / "tiny_bundle"


class Store(DirectoryStore):
    """A server's store that counts what is fetched."""

    def __init__(self, root):
        super().__init__(root)
        self.fetched = 0

    def fetch(self, sha256, size_bytes, into):
        self.fetched += 1
        return super().fetch(sha256, size_bytes, into)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def offer(tmp_path, store):
    """Return what publishes a version of a channel with a head of its own."""

    def publish(version, channel="stable"):
        bundle = tmp_path / f"bundle-{channel}-{version}"
        shutil.copytree(TINY, bundle)
        head = f"head {version} of {channel}".encode() * 50
        (bundle / "head.tflite").write_bytes(head)
        manifest = read_bundle(TINY)
        files = {**manifest.files, "head.tflite": entry_of(head)}
        changed = manifest.model_copy(update={"version": version, "files": files})
        (bundle / MANIFEST).write_bytes(to_json(changed))
        store.publish(bundle, channel, TINY, "" if channel == "stable" else channel)
        return read_offer((bundle / MANIFEST).read_bytes())

    return publish


@pytest.fixture
def models(tmp_path):
    """Return the models of the robot that follows a channel."""
    return lambda channel="stable": Models(tmp_path / "models", channel)


def versions(tmp_path):
    return sorted(path.name[:6] for path in (tmp_path / "models" / "versions").iterdir())


def test_a_channel_that_was_followed_before_is_active_again_without_a_download(
    models, store, offer
):
    first, other = offer(1), offer(1, "canary")
    models("stable").install(store, first, "fp32")
    models("canary").install(store, other, "fp32")
    store.fetched = 0
    for channel, expected in (("stable", first), ("canary", other), ("stable", first)):
        robot = models(channel)
        assert robot.active("fp32") == expected
        assert (robot.current / MANIFEST).read_bytes() == expected.content
    assert store.fetched == 0


def test_current_stays_on_the_old_channel_until_the_new_one_has_a_model(models, store, offer):
    first = offer(7)
    models("stable").install(store, first, "fp32")
    robot = models("canary")
    assert robot.active("fp32") is None
    assert robot.version_in_use() == 7
    robot.install(store, offer(1, "canary"), "fp32")
    assert robot.version_in_use() == 1


def test_the_active_and_the_previous_version_of_each_channel_stay(models, store, offer, tmp_path):
    for version in (1, 2, 3):
        models("stable").install(store, offer(version), "fp32")
    for version in (11, 12, 13):
        models("canary").install(store, offer(version, "canary"), "fp32")
    assert versions(tmp_path) == ["000002", "000003", "000012", "000013"]
    models("stable").install(store, offer(4), "fp32")
    assert versions(tmp_path) == ["000003", "000004", "000012", "000013"]


def test_each_channel_keeps_its_trainer_and_the_features_in_it(models, store, offer, tmp_path):
    offer(1)
    trainer = tmp_path / "trainer"
    shutil.copytree(TINY, trainer)
    other_json = (trainer / TRAINER).read_bytes() + b"\n"
    shutil.copy(trainer / TRAINER, trainer / "first.json")
    (trainer / TRAINER).write_bytes(other_json)
    for content in ((trainer / "first.json").read_bytes(), other_json):
        path = tmp_path / "store" / "objects" / entry_of(content).sha256
        path.write_bytes(content)
    first, other = entry_of((trainer / "first.json").read_bytes()), entry_of(other_json)
    _, folder = models("stable").trainer(store, first, "litert")
    (folder / "features").mkdir()
    _, other_folder = models("canary").trainer(store, other, "litert")
    assert folder != other_folder
    store.fetched = 0
    assert models("stable").trainer(store, first, "litert")[1] == folder
    assert (folder / "features").is_dir()
    assert store.fetched == 0
    models("stable").trainer(store, other, "litert")  # both channels have the same one now
    assert not folder.exists()
    assert other_folder.exists()


@pytest.fixture
def older(models, store, offer, tmp_path):
    """Return the offer that a robot of an agent without channels has; it has a trainer, too."""
    offered = offer(3)
    models("stable").install(store, offered, "fp32")
    entry = offered.manifest.trainer
    (models("stable").trainer(store, entry, "litert")[1] / "features").mkdir()
    shutil.rmtree(tmp_path / "models" / "channels")
    store.fetched = 0
    return offered


def test_the_directory_of_an_older_agent_is_taken_over(models, store, older, tmp_path):
    assert models("stable").active("fp32") == older
    _, folder = models("stable").trainer(store, older.manifest.trainer, "litert")
    assert (folder / "features").is_dir()
    assert store.fetched == 0
    assert models("canary").active("fp32") is None


def test_an_older_agents_model_and_trainer_stay_when_another_channel_is_followed(
    models, store, older, offer, tmp_path
):
    assert models("stable").active("fp32") == older
    canary = offer(1, "canary")
    models("canary").install(store, canary, "fp32")
    models("canary").trainer(store, canary.manifest.trainer, "keras")
    store.fetched = 0
    assert models("stable").active("fp32") == older
    _, folder = models("stable").trainer(store, older.manifest.trainer, "litert")
    assert (folder / "features").is_dir()
    assert store.fetched == 0


def test_a_damaged_version_of_a_channel_does_not_touch_the_others(models, store, offer):
    first, other = offer(1), offer(1, "canary")
    models("stable").install(store, first, "fp32")
    models("canary").install(store, other, "fp32")
    (models("canary").current / "head.tflite").write_bytes(b"damaged")
    with pytest.raises(BundleError):
        models("canary").active("fp32")
    assert models("stable").active("fp32") == first
