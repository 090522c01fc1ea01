"""Init without TensorFlow: the export's files are those of the tiny bundle."""

import json
import shutil
import stat
import sys
from pathlib import Path

import pytest

from cloud_server import initialize as initialize_module
from cloud_server.initialize import InitPlan, add_channel, initialize, renew_certificate
from cloud_server.models import publish as publish_module
from cloud_server.models.adapters import AdapterPlan
from cloud_server.models.export import BundleJob, ExportResult
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.kit import write_kit
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import load_settings
from fleet_model.bundle import MANIFEST
from fleet_model.errors import CheckpointError, ExportError, SettingsError
from fleet_model.signatures import WEIGHTS

pytestmark = pytest.mark.base

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"


def plan(**changes):
    values = {
        "workload": "image-classifier",
        "config": {"labels": ["circle", "square", "star"]},
        "trainable": "head",
        "host": "0.0.0.0",
        "port": 9443,
        "names": ["robots.example", "10.0.0.1"],
        "checkpoint": None,
    }
    return InitPlan(**{**values, **changes})


@pytest.fixture
def export(monkeypatch):
    """Return the jobs that were asked for."""
    jobs = []

    def run_export(job, progress=lambda line: None, stop=lambda: False):
        jobs.append(job)
        shutil.copytree(TINY, job.directory, dirs_exist_ok=True)
        if isinstance(job, BundleJob):
            values = json.loads((TINY / MANIFEST).read_text())
            (job.directory / MANIFEST).write_text(json.dumps({**values, "version": job.version}))
        elif job.bundle:
            run_export(job.bundle)
        return ExportResult(metrics={})

    for module in (initialize_module, publish_module):
        monkeypatch.setattr(module, "run_export", run_export)
    return jobs


def run(root, **changes):
    steps = []
    return initialize(root, plan(**changes), steps.append), steps


def test_a_new_directory_has_everything_that_a_server_needs(tmp_path, export):
    root = tmp_path / "server"

    manifest, _ = run(root)

    server_dir = ServerDirectory(root)
    server_dir.require()
    assert manifest.version == 0 == Checkpoints(server_dir.checkpoints).latest().version
    assert DirectoryStore(server_dir.store).channels() == {"stable": 0}
    network = load_settings(server_dir.settings, {}).network
    assert (network.host, network.port) == ("0.0.0.0", 9443)
    assert network.names == ("robots.example", "10.0.0.1", "localhost", "127.0.0.1", "::1")
    assert stat.S_IMODE((server_dir.secrets / "server.key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["server"]


def test_the_jobs_are_what_the_operator_asked_for(tmp_path, export):
    own = tmp_path / "own.keras"
    own.touch()
    run(tmp_path / "server", trainable="all", checkpoint=own)

    first, second = export
    assert first.bundle == second  # by one process
    assert (second.model, second.weights) == (first.directory, first.directory / WEIGHTS)
    assert first.workload.config == {"labels": ["circle", "square", "star"]}
    assert (first.trainable, first.checkpoint) == ("all", own)
    assert second.version == 0


def test_a_file_that_no_model_starts_from_is_refused_before_anything_is_made(tmp_path, export):
    (tmp_path / "old.h5").touch()

    with pytest.raises(CheckpointError, match=r"old\.h5: a file in the old HDF5 format"):
        run(tmp_path / "server", checkpoint=tmp_path / "old.h5")
    assert export == []
    assert not (tmp_path / "server").exists()


TEXTS = {"workload": "text-classifier", "config": {"labels": ["a", "b"]}}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "",
            r"'text-classifier' starts from a folder with tokenizer\.json beside the weights: --ch",
        ),
        ("folder", r"folder: holds no tokenizer\.json; expected a folder with"),
        ("none", r"none: holds no tokenizer\.json"),
        ("file", r"file: holds no tokenizer\.json"),
    ],
)
def test_a_workload_with_files_starts_from_a_folder_that_has_them(tmp_path, export, name, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises((CheckpointError, SettingsError), match=words):
        run(tmp_path / "server", checkpoint=tmp_path / name if name else None, **TEXTS)
    assert export == []
    (tmp_path / "folder" / "tokenizer.json").touch()
    run(tmp_path / "server", checkpoint=tmp_path / "folder", **TEXTS)


def test_adapters_begin_with_a_rate_of_their_own_where_the_workload_has_one(tmp_path, export):
    (tmp_path / "tokenizer.json").touch()
    rates = []
    for number, adapter in enumerate((None, AdapterPlan())):
        root = tmp_path / f"server-{number}"
        run(root, checkpoint=tmp_path, adapter=adapter, **TEXTS)
        training = load_settings(root / "server.toml", {}).training
        assert training.adaptive == 0.999
        rates.append(training.learning_rate)
    assert rates == [5e-4, 1e-3]


def test_the_kit_names_what_trains_where_litert_cannot(tmp_path, export):
    run(tmp_path / "server")
    server_dir = ServerDirectory(tmp_path / "server")
    assert "trainer" not in (server_dir.kit / "kit.toml").read_text()
    trainer = server_dir.model / "trainer.json"
    spec = json.loads(trainer.read_text())
    trainer.write_text(json.dumps({**spec, "parts": {"torch": list(spec["files"])}}))
    write_kit(server_dir, load_settings(server_dir.settings, {}))
    assert 'trainer = "torch"' in (server_dir.kit / "kit.toml").read_text()


def test_the_kit_holds_the_first_name_and_nothing_secret(tmp_path, export):
    run(tmp_path / "server")
    kit = tmp_path / "server" / "kit"

    assert {path.name for path in kit.iterdir()} == {"ca.crt", "kit.toml", "root.json"}
    assert tomllib.loads((kit / "kit.toml").read_text()) == {
        "address": "robots.example:9443",
        "channel": "stable",
        "labels": ["circle", "square", "star"],
    }
    assert "PRIVATE" not in (kit / "ca.crt").read_text()


def test_an_ipv6_address_in_the_kit_stands_in_brackets(tmp_path, export):
    run(tmp_path / "server", names=["fd00::1"])

    kit = tomllib.loads((tmp_path / "server" / "kit" / "kit.toml").read_text())
    assert kit["address"] == "[fd00::1]:9443"


def test_an_empty_directory_is_filled(tmp_path, export):
    (tmp_path / "server").mkdir()

    run(tmp_path / "server")

    ServerDirectory(tmp_path / "server").require()


def test_a_directory_with_content_is_left_alone(tmp_path, export):
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "thesis.txt").write_text("mine")

    with pytest.raises(SettingsError, match="exists and is not empty"):
        run(tmp_path / "server")
    assert (tmp_path / "server" / "thesis.txt").read_text() == "mine"
    assert export == []


def test_a_file_in_the_place_of_the_directory_is_left_alone(tmp_path, export):
    (tmp_path / "server").write_text("mine")

    with pytest.raises(SettingsError, match="exists and is not empty"):
        run(tmp_path / "server")
    assert (tmp_path / "server").read_text() == "mine"


def test_the_folder_one_stands_in_can_be_made_a_server_directory(tmp_path, export, monkeypatch):
    (tmp_path / "server").mkdir()
    monkeypatch.chdir(tmp_path / "server")

    run(Path())

    ServerDirectory(tmp_path / "server").require()


def test_an_export_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(job, progress=None):
        (job.directory / "half").write_text("half")
        raise ExportError("does not match")

    monkeypatch.setattr(initialize_module, "run_export", fail)

    with pytest.raises(ExportError):
        run(tmp_path / "server")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_an_empty_directory_empty(tmp_path, monkeypatch):
    (tmp_path / "server").mkdir()
    monkeypatch.setattr(initialize_module, "run_export", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "server")
    assert [path.name for path in tmp_path.iterdir()] == ["server"]
    assert list((tmp_path / "server").iterdir()) == []


def test_what_a_killed_init_left_is_no_obstacle(tmp_path, export):
    (tmp_path / ".server.init" / "model").mkdir(parents=True)

    run(tmp_path / "server")

    assert [path.name for path in tmp_path.iterdir()] == ["server"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"port": 70_000}, r"port: .*65535 \(got 70000\)"),
        ({"host": "a b"}, "host: .*got 'a b'"),
        ({"names": ["hälle.example"]}, "names: .*hälle"),
        ({"names": ["https://robots.example"]}, "names: "),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_before_anything_is_made(
    tmp_path, export, changes, message
):
    with pytest.raises(SettingsError, match=message):
        run(tmp_path / "server", **changes)
    assert list(tmp_path.iterdir()) == []
    assert export == []


def test_a_renewed_certificate_holds_the_names_of_the_settings(server_dir):
    from cryptography import x509

    text = server_dir.settings.read_text().replace('names = ["', 'names = ["new.example", "')
    server_dir.settings.write_text(text)

    names = renew_certificate(server_dir)

    assert names == ("new.example", "localhost", "127.0.0.1", "::1")
    content = (server_dir.certificates / "server.crt").read_bytes()
    certificate = x509.load_pem_x509_certificate(content)
    held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert held.get_values_for_type(x509.DNSName) == ["new.example", "localhost"]


def add(root, channel, **changes):
    return add_channel(root, channel, plan(**changes), lambda line: None)


def test_a_channel_is_added_beside_what_is_there(tmp_path, export):
    root = tmp_path / "server"
    run(root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    manifest = add(root, "detector", config={"labels": ["a", "b"]}, trainable="all")

    server_dir, own = ServerDirectory(root), ServerDirectory(root).of("detector")
    assert (own.lineage, manifest.version) == ("detector", 0)
    assert Checkpoints(own.checkpoints).latest().version == 0
    offers = DirectoryStore(server_dir.store).offers()
    assert offers == {"stable": (0, ""), "detector": (0, "detector")}
    assert (export[2].workload.config, export[2].trainable) == ({"labels": ["a", "b"]}, "all")
    changed = {path for path, content in before.items() if path.read_bytes() != content}
    assert changed == {root / "store/metadata/timestamp.json"}


def test_a_channel_that_failed_to_publish_is_published_by_the_same_command(
    tmp_path, export, monkeypatch
):
    root = tmp_path / "server"
    run(root)
    with monkeypatch.context() as patch:
        patch.setattr(publish_module, "run_export", _fails)
        with pytest.raises(ExportError):
            add(root, "detector")
    assert DirectoryStore(ServerDirectory(root).store).channels() == {"stable": 0}
    jobs = len(export)
    add(root, "detector")
    assert [type(job) for job in export[jobs:]] == [BundleJob]
    assert DirectoryStore(ServerDirectory(root).store).channels() == {"detector": 0, "stable": 0}


def test_a_channel_whose_model_fails_leaves_nothing(tmp_path, export, monkeypatch):
    root = tmp_path / "server"
    run(root)
    monkeypatch.setattr(initialize_module, "run_export", _fails)
    with pytest.raises(ExportError):
        add(root, "detector")
    assert list((root / "channels").iterdir()) == []
    assert ServerDirectory(root).of("detector").lineage == ""


@pytest.mark.parametrize(
    ("channel", "words"),
    [
        ("stable", "--channel stable: .* trains and publishes for it already; choose another name"),
        ("../up", "--channel ../up: expected lower-case letters"),
    ],
)
def test_a_channel_that_cannot_be_added_is_refused_before_anything_is_made(
    tmp_path, export, channel, words
):
    root = tmp_path / "server"
    run(root)
    with pytest.raises(SettingsError, match=words):
        add(root, channel)
    assert not (root / "channels").exists()
    with pytest.raises(SettingsError, match="not a server directory"):
        add(tmp_path / "nothing", "detector")


def _fails(job, progress=lambda line: None, stop=lambda: False):
    raise ExportError("the files do not match")
