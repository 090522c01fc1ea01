"""Installing published models: what is fetched, what survives a power cut or a bad file."""

import errno
import json
import os
import resource
import shutil
import signal
import sys
import time
from itertools import count
from pathlib import Path

import pytest

from cloud_server.state.model_store import DirectoryStore
from edge_agent.models.deploy import Models
from fleet_model.bundle import (
    Manifest,
    Offer,
    TensorSpec,
    WorkloadSpec,
    entry_of,
    parse_manifest,
    parse_trainer,
    read_bundle,
    read_offer,
    sha256_of,
    to_json,
)
from fleet_model.durable import write_durably
from fleet_model.errors import BundleError, ConnectionFailed, StorageError

pytestmark = pytest.mark.base

TINY = Path(__file__).parents[2] / "data" / "tiny_bundle"
TRUNK = b"trunk " * 5000


def offer(version, **contents) -> Offer:
    """Describe a version whose engines are named by precision: fp32={"head.tflite": b"..."}."""
    files = {name: entry_of(data) for engine in contents.values() for name, data in engine.items()}
    described = Manifest(
        version=version,
        created_at="2025-11-22T00:00:00+00:00",
        workload=WorkloadSpec(name="image-classifier", config={"labels": ["cup", "fork"]}),
        labels=("cup", "fork"),
        inputs={"image": TensorSpec(shape=(8, 8, 3))},
        engines={precision: tuple(engine) for precision, engine in contents.items()},
        trainer=entry_of(b"trainer"),
        files=files,
    )
    return read_offer(to_json(described))


def version(number, head) -> tuple[Offer, list[bytes]]:
    int8 = {"trunk_int8.tflite": TRUNK[:1000], "head_int8.tflite": head[:3]}
    fp32 = {"trunk.tflite": TRUNK, "head.tflite": head}
    return offer(number, fp32=fp32, int8=int8), [*fp32.values(), *int8.values()]


ONE, TWO, THREE, FOUR = (version(n, f"head {n}".encode() * 300) for n in (1, 2, 3, 4))
ONE_AGAIN = version(1, b"a server that was made anew" * 300)


class Shelf:
    """A ModelStore at the seam: counts what is fetched; `spoil` is called before every fetch."""

    def __init__(self, *versions, spoil=lambda content: content):
        self.contents = {sha256_of(data): data for _, files in versions for data in files}
        self.spoil, self.fetched = spoil, []

    def latest(self, channel):
        raise NotImplementedError

    def fetch(self, sha256, size_bytes, into):
        content = self.spoil(self.contents[sha256])
        assert len(self.contents[sha256]) == size_bytes
        write_durably(into, content)
        self.fetched.append(sha256)
        return len(content)


EVERYTHING = (ONE, TWO, THREE, FOUR, ONE_AGAIN)


@pytest.fixture
def models(tmp_path):
    return Models(tmp_path / "models")


@pytest.fixture
def shelf():
    return Shelf(*EVERYTHING)


def install(models, shelf, what, precision="fp32"):
    models.install(shelf, what[0], precision)


def test_nothing_is_active_before_the_first_install(models):
    assert models.active("fp32") is None
    assert not models.current.exists()


def test_a_manifest_is_stored_as_the_bytes_that_came(models, shelf):
    spelled = to_json(ONE[0].manifest).replace(b"\n", b"\r\n\t").replace(b'"cup"', rb'"\u0063up"')
    came = read_offer(spelled.replace(b"{", b'{"new": 1e0,', 1))
    models.install(shelf, came, "fp32")
    assert (models.current / "manifest.json").read_bytes() == came.content
    assert models.active("fp32") == came
    assert models.current.resolve().name == f"000001-{sha256_of(came.content)[:8]}"


def test_an_installed_version_is_whole_and_active(models, shelf):
    install(models, shelf, ONE)
    assert models.active("fp32") == ONE[0]
    names = sorted(path.name for path in models.current.iterdir())
    assert names == ["head.tflite", "manifest.json", "trunk.tflite"]
    assert read_bundle(models.current, ["trunk.tflite", "head.tflite"]) == ONE[0].manifest


def test_only_what_is_missing_is_fetched(models, shelf):
    install(models, shelf, ONE)
    assert len(shelf.fetched) == 2
    install(models, shelf, TWO)
    assert shelf.fetched[2:] == [sha256_of(TWO[1][1])]
    install(models, shelf, TWO)
    assert len(shelf.fetched) == 3


def test_a_lower_version_is_installed_like_a_higher_one(models, shelf):
    """As docs/security.md says: the channel decides, and nothing on the robot protects it."""
    for what in (TWO, ONE):
        install(models, shelf, what)
        assert models.active("fp32") == what[0]


def test_versions_share_files_on_the_disk(models, shelf, tmp_path):
    install(models, shelf, ONE)
    before = models.current.resolve()
    install(models, shelf, TWO)
    trunk = models.current / "trunk.tflite"
    assert trunk.samefile(before / "trunk.tflite")
    assert trunk.samefile(tmp_path / "models" / "objects" / sha256_of(TRUNK))
    assert trunk.stat().st_nlink == 3


def test_the_active_and_the_previous_version_are_kept(models, shelf, tmp_path):
    for what in (ONE, TWO, THREE, FOUR):
        install(models, shelf, what)
    kept = {path.name[:6] for path in (tmp_path / "models" / "versions").iterdir()}
    assert kept == {"000003", "000004"}
    objects = {path.name for path in (tmp_path / "models" / "objects").iterdir()}
    assert objects == {sha256_of(data) for data in (TRUNK, THREE[1][1], FOUR[1][1])}


def test_the_previous_version_is_kept_when_numbers_begin_again(models, shelf, tmp_path):
    for what in (THREE, FOUR, ONE):
        install(models, shelf, what)
    kept = {path.name[:6] for path in (tmp_path / "models" / "versions").iterdir()}
    assert kept == {"000001", "000004"}


def test_the_same_number_with_other_content_never_touches_the_active_files(models, shelf):
    install(models, shelf, ONE)
    before = models.current.resolve()
    install(models, shelf, ONE_AGAIN)
    assert models.active("fp32") == ONE_AGAIN[0]
    assert read_bundle(before, ["trunk.tflite", "head.tflite"]) == ONE[0].manifest


def test_a_repair_does_not_cost_the_previous_version(models, shelf, tmp_path):
    for what in (ONE, TWO, TWO):
        install(models, shelf, what)
    assert len(list((tmp_path / "models" / "versions").iterdir())) == 2


def test_another_precision_of_the_active_version_is_added_to_it(models, shelf):
    install(models, shelf, ONE)
    with pytest.raises(BundleError, match=r"int8\.tflite: missing"):
        models.active("int8")
    install(models, shelf, ONE, "int8")
    assert len(shelf.fetched) == 4
    assert models.active("int8") == models.active("fp32") == ONE[0]


def test_a_precision_that_is_not_published_names_those_that_are(models, shelf):
    with pytest.raises(BundleError, match="no 'fp16' engine; choose fp32, int8"):
        install(models, shelf, ONE, "fp16")
    assert shelf.fetched == []


@pytest.mark.parametrize("spoil", [bytes.upper, lambda c: c[:-1], lambda c: c + b"!"])
def test_an_object_with_other_bytes_is_refused_and_the_active_version_stays(models, shelf, spoil):
    install(models, shelf, ONE)
    shelf.spoil = spoil
    with pytest.raises(BundleError, match="fetch it again"):
        install(models, shelf, TWO)
    assert models.active("fp32") == ONE[0]
    shelf.spoil = lambda content: content
    install(models, shelf, TWO)
    assert models.active("fp32") == TWO[0]


@pytest.mark.parametrize("damage", ["changed", "cut", "removed"])
def test_a_damaged_file_is_noticed_and_repaired_by_the_next_install(models, shelf, damage):
    install(models, shelf, ONE)
    path = models.current / "trunk.tflite"
    if damage == "removed":
        path.unlink()
    else:  # in place, so that the object that it is linked to is damaged, too
        path.write_bytes(TRUNK.swapcase() if damage == "changed" else TRUNK[:-1])
    with pytest.raises(BundleError, match=r"trunk\.tflite"):
        models.active("fp32")
    install(models, shelf, ONE)
    assert models.active("fp32") == ONE[0]
    assert len(shelf.fetched) == (2 if damage == "removed" else 3)


def test_a_damaged_manifest_is_noticed_and_repaired(models, shelf):
    install(models, shelf, ONE)
    (models.current / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match=r"manifest\.json"):
        models.active("fp32")
    install(models, shelf, ONE)
    assert models.active("fp32") == ONE[0]


def test_a_manifest_that_names_an_engine_file_like_itself_is_refused(models):
    hostile = offer(5, fp32={"manifest.json": b"{}"})
    with pytest.raises(BundleError, match=r"manifest\.json"):
        models.install(Shelf((hostile, [b"{}"])), hostile, "fp32")
    assert models.active("fp32") is None


def test_a_manifest_without_files_installs_without_a_traceback(models, shelf):
    models.install(shelf, offer(5, fp32={}), "fp32")
    models.install(shelf, offer(6, fp32={}), "fp32")
    assert models.active("fp32").manifest.version == 6


def test_what_was_fetched_before_the_server_went_away_is_kept(models, shelf):
    def go_away(content):
        if shelf.fetched:
            raise ConnectionFailed("gone")
        return content

    shelf.spoil = go_away
    with pytest.raises(ConnectionFailed):
        install(models, shelf, ONE)
    assert models.active("fp32") is None
    shelf.spoil = lambda content: content
    install(models, shelf, ONE)
    assert len(shelf.fetched) == 2


def test_a_full_disk_leaves_the_active_version_and_says_what_to_do(models, shelf, tmp_path):
    def full(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "models"))

    install(models, shelf, ONE)
    shelf.spoil = full
    with pytest.raises(StorageError, match=r"No space left on device; make room") as caught:
        install(models, shelf, TWO)
    assert caught.value.exit_code == 12
    assert str(tmp_path) not in str(caught.value)
    assert models.active("fp32") == ONE[0]


def test_a_write_that_really_fails_leaves_nothing_half_written(models, shelf, tmp_path):
    install(models, shelf, ONE)

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # bytes a file may have
        with pytest.raises(StorageError, match="File too large"):
            install(models, shelf, TWO)

    assert in_child(limited) == 0
    assert models.active("fp32") == ONE[0]
    assert all(len(path.name) == 64 for path in (tmp_path / "models" / "objects").iterdir())


def test_a_model_directory_that_cannot_be_made_is_a_clear_error(tmp_path, shelf):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="the agent's user"):
        install(Models(tmp_path / "file" / "models"), shelf, ONE)


# ------------------------------------------------------------------------------- FAT and exFAT


def forbid_links(patch, link=errno.EPERM, symlink=errno.EPERM):
    """Answer as a file system without links does."""

    def refuse(code):
        def refused(*_):
            raise OSError(code, os.strerror(code))

        return refused

    patch.setattr(os, "link", refuse(link))
    patch.setattr(Path, "symlink_to", refuse(symlink))


@pytest.fixture
def without_links(monkeypatch):
    forbid_links(monkeypatch, symlink=errno.ENOSYS)  # as exFAT over FUSE


def test_without_links_every_version_is_whole_and_nothing_is_fetched_twice(
    without_links, models, shelf, tmp_path
):
    for what in (ONE, TWO, THREE):
        install(models, shelf, what)
        assert Models(tmp_path / "models").active("fp32") == what[0]
    assert len(shelf.fetched) == 4  # the trunk once, three heads
    versions = sorted(path.name[:6] for path in (tmp_path / "models" / "versions").iterdir())
    assert versions == ["000002", "000003"]
    assert list((tmp_path / "models" / "objects").iterdir()) == []


def test_without_links_a_pointer_that_is_damaged_means_nothing_is_active_until_the_next_install(
    without_links, models, shelf, tmp_path
):
    install(models, shelf, ONE)
    for damage in (b"", b"\xff\xfe", b"../versions/\0", b"../versions/gone"):
        (tmp_path / "models" / "channels" / "stable").write_bytes(damage)
        assert models.active("fp32") is None
    install(models, shelf, ONE)
    assert models.active("fp32") == ONE[0]
    assert len(shelf.fetched) == 2


def test_a_directory_that_moves_between_file_systems_goes_on(monkeypatch, models, shelf):
    install(models, shelf, ONE)
    with monkeypatch.context() as patch:
        forbid_links(patch)
        install(models, shelf, TWO)
        assert models.active("fp32") == TWO[0]
    install(models, shelf, THREE)
    assert models.active("fp32") == THREE[0]
    assert models.current.is_symlink()


def test_another_failure_of_a_link_is_not_taken_for_a_missing_feature(monkeypatch, models, shelf):
    install(models, shelf, ONE)
    forbid_links(monkeypatch, link=errno.EROFS)
    with pytest.raises(StorageError, match="Read-only file system; mount its disk so that"):
        install(models, shelf, TWO)
    assert models.active("fp32") == ONE[0]


# ------------------------------------------------------------------------------- power cuts

STEPS = {"os.link", "os.rename", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "open"}


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
@pytest.mark.parametrize(
    ("installed", "next_one"),
    [((), ONE), ((ONE,), TWO), ((ONE, TWO), THREE), ((ONE,), ONE_AGAIN)],
    ids=["first", "second", "collects", "same-number"],
)
def test_a_power_cut_at_any_step_leaves_a_whole_version(
    tmp_path, monkeypatch, installed, next_one, links
):
    copy = os.link if links else shutil.copyfile
    if not links:
        forbid_links(monkeypatch)
    start = tmp_path / "start"
    for what in installed:
        install(Models(start), Shelf(*EVERYTHING), what)
    possible = [installed[-1][0] if installed else None, next_one[0]]
    seen = []
    for step in count(1):
        root = tmp_path / f"cut-{step}"
        if installed:
            shutil.copytree(start, root, symlinks=True, copy_function=copy)
        code = in_child(lambda at=root, n=step: cut_at(n, at, next_one))
        left = Models(root).active("fp32")
        assert left in possible
        seen.append(left)
        shelf = Shelf(*EVERYTHING)
        Models(root).install(shelf, next_one[0], "fp32")
        assert Models(root).active("fp32") == next_one[0]
        shutil.rmtree(root)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert len(seen) > 12
    assert [m == next_one[0] for m in seen] == sorted(m == next_one[0] for m in seen)


def cut_at(step, root, what):
    """Install, and end like a power cut just before the given change of the disk."""
    left = count(step, -1)

    def hook(event, arguments):
        if event not in STEPS or (event == "open" and not arguments[2] & os.O_CREAT):
            return
        if next(left) == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    shelf = Shelf(*EVERYTHING)
    sys.addaudithook(hook)
    Models(root).install(shelf, what[0], "fp32")


def in_child(work) -> int:
    """Run in a forked process; return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# ------------------------------------------------------------------------------- trainers


class Published:
    """The tiny bundle in a server's own store."""

    def __init__(self, root):
        self.root, self.store = root, DirectoryStore(root)
        self.manifest = self.store.publish(TINY, "stable", TINY)
        self.spec = parse_trainer((TINY / "trainer.json").read_bytes())
        self.fetched = []

    def latest(self, channel):
        return self.store.latest(channel)

    def fetch(self, sha256, size_bytes, into):
        self.fetched.append(sha256)
        return self.store.fetch(sha256, size_bytes, into)


@pytest.fixture
def published(tmp_path):
    return Published(tmp_path / "store")


def test_a_trainer_shares_the_trunk_with_the_engine(models, published):
    models.install(published, published.latest("stable"), "fp32")
    published.fetched.clear()
    spec, directory = models.trainer(published, published.manifest.trainer, "litert")
    assert spec == published.spec
    assert published.fetched == [
        published.manifest.trainer.sha256,
        spec.files["trainer.tflite"].sha256,
    ]
    assert (directory / "trunk.tflite").samefile(models.current / "trunk.tflite")
    assert (directory / "trainer.tflite").read_bytes() == (TINY / "trainer.tflite").read_bytes()


def test_a_trainer_that_is_here_costs_nothing(models, published):
    models.trainer(published, published.manifest.trainer, "keras")
    published.fetched.clear()
    models.trainer(published, published.manifest.trainer, "keras")
    assert published.fetched == []


def test_a_trainer_survives_the_collection_of_versions(models, published, shelf):
    models.trainer(published, published.manifest.trainer, "litert")
    for what in (ONE, TWO, THREE):
        install(models, shelf, what)
    published.fetched.clear()
    models.trainer(published, published.manifest.trainer, "litert")
    assert published.fetched == []


def test_a_trainer_with_other_labels_takes_over_what_the_one_before_has_kept(models, published):
    _, before = models.trainer(published, published.manifest.trainer, "litert")
    (before / "features").mkdir()
    (before / "features" / "0.rows").write_text("features of a hundred frames")
    fields = json.loads((TINY / "trainer.json").read_text())
    fields["workload"]["config"]["labels"].append("moon")
    content = json.dumps(fields).encode()
    (published.root / "objects" / entry_of(content).sha256).write_bytes(content)

    _, after = models.trainer(published, entry_of(content), "litert")

    assert after != before
    assert not before.exists()
    assert (after / "features" / "0.rows").read_text() == "features of a hundred frames"


def test_a_trainer_of_another_kind_takes_nothing_over(models, published):
    _, before = models.trainer(published, published.manifest.trainer, "litert")
    (before / "features").mkdir()
    _, after = models.trainer(published, published.manifest.trainer, "keras")
    assert not (after / "features").exists()


def test_a_damaged_trainer_file_is_fetched_again(models, published):
    _, directory = models.trainer(published, published.manifest.trainer, "litert")
    (directory / "trainer.tflite").write_bytes(b"damaged")
    models.trainer(published, published.manifest.trainer, "litert")
    assert (directory / "trainer.tflite").read_bytes() == (TINY / "trainer.tflite").read_bytes()


def test_a_part_that_does_not_exist_names_those_that_do(models, published):
    with pytest.raises(BundleError, match=r"'torch'; set training\.trainer to one of: keras, lit"):
        models.trainer(published, published.manifest.trainer, "torch")


def test_a_trainer_that_is_none_is_refused(models, published):
    head = parse_manifest((TINY / "manifest.json").read_bytes()).files["head.tflite"]
    with pytest.raises(BundleError, match=r"trainer\.json"):
        models.trainer(published, head, "litert")


def test_a_full_disk_says_so_for_trainers_too(models, shelf):
    def full(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shelf.spoil = full
    with pytest.raises(StorageError, match="No space left"):
        models.trainer(shelf, entry_of(TRUNK), "litert")


def test_a_part_of_another_file_outlives_an_install_until_it_is_old(models, shelf, tmp_path):
    install(models, shelf, ONE)
    young = tmp_path / "models" / "objects" / f".{'0' * 64}.part"
    old = tmp_path / "models" / "objects" / f".{'1' * 64}.part"
    for part in (young, old):
        part.write_bytes(b"half a trainer")
    os.utime(old, (time.time() - 8 * 86400,) * 2)

    install(models, shelf, TWO)

    assert young.exists()
    assert not old.exists()
