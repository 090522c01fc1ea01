"""Power cuts while `cloud-server init` makes a directory, and while a certificate is renewed."""

import json
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from power_cuts import Scenario
from recorder import mark
from server_scenarios import TINY, served_version

from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from fleet_model.bundle import (
    MANIFEST,
    TRAINER,
    entry_of,
    parse_manifest,
    parse_trainer,
    require_file,
    sha256_of,
    to_json,
)
from fleet_model.errors import SettingsError


def _plan() -> Any:
    """Return a plan for `cloud-server init`; what its child exports is the tiny bundle."""
    import cloud_server.initialize
    import cloud_server.models.publish
    from cloud_server.initialize import InitPlan

    def export(job: Any, *_: Any) -> None:
        manifest, spec = parse_manifest((TINY / MANIFEST).read_bytes()), job.directory / TRAINER
        trainer = parse_trainer((TINY / TRAINER).read_bytes())
        init = job.job == "init"
        for name in [*trainer.files, "weights.safetensors"] if init else manifest.files:
            shutil.copy(TINY / name, job.directory)
        if init:
            spec.write_bytes(to_json(trainer.model_copy(update={"workload": job.workload})))
            if job.bundle:
                export(job.bundle)
        else:
            shutil.copy(job.model / TRAINER, spec)
            changed = {"version": job.version, "trainer": entry_of(spec.read_bytes())}
            (job.directory / MANIFEST).write_bytes(to_json(manifest.model_copy(update=changed)))

    cloud_server.initialize.run_export = cloud_server.models.publish.run_export = export
    config = json.loads((TINY / TRAINER).read_text())["workload"]["config"]
    return InitPlan(
        workload="image-classifier", config=config, trainable="head", host="127.0.0.1", port=9400,
        names=("localhost",), checkpoint=None,
    )  # fmt: skip


def _initialize(root: Path) -> None:
    from cloud_server.initialize import initialize

    initialize(root / "servers" / "fleet", _plan(), lambda line: None)
    mark()


def _initialized(root: Path) -> str:
    """Return whether the directory is there; what is there must be complete."""
    from cloud_server.state.certificates import read_certificates
    from cloud_server.state.settings import load_settings
    from edge_agent.cli.enroll import enroll
    from edge_agent.robot.settings import ExampleSettings

    server_dir = ServerDirectory(root / "servers" / "fleet")
    if not server_dir.root.exists():
        return "absent"
    server_dir.require()
    load_settings(server_dir.settings)
    assert read_certificates(server_dir).fits
    assert len(server_dir.admin_token.read_text().strip()) > 20
    assert Checkpoints(server_dir.checkpoints).latest().version == 0
    assert served_version(DirectoryStore(server_dir.store)) == 0
    trainer = parse_trainer((server_dir.model / TRAINER).read_bytes())
    for name, entry in trainer.files.items():
        require_file(server_dir.model / name, entry)
    ca = (server_dir.certificates / "ca.crt").read_bytes()
    assert (server_dir.kit / "ca.crt").read_bytes() == ca
    shutil.rmtree(root / "robot", ignore_errors=True)
    enroll(server_dir.kit, root / "robot", ExampleSettings(), train=False)
    return "complete"


def _initialize_again(root: Path) -> None:
    try:
        _initialize(root)
    except SettingsError:  # it is there already
        assert _initialized(root) == "complete"


def _initialize_elsewhere(root: Path) -> None:
    """Load all that is needed before anything is recorded: ptrace makes it slow."""
    with tempfile.TemporaryDirectory() as folder:
        _initialize(Path(folder))


INIT = Scenario(
    prepare=_initialize_elsewhere,
    act=_initialize,
    observe=_initialized,
    resume=_initialize_again,
)


def _before_renewal(root: Path) -> None:
    _initialize(root)
    _renew(root)


def _renew(root: Path) -> None:
    from cloud_server.initialize import renew_certificate

    renew_certificate(ServerDirectory(root / "servers" / "fleet"))
    mark()


def _certificate(root: Path) -> str:
    """Return a digest of the certificate; "do not fit" where its key is another one's."""
    from cloud_server.state.certificates import read_certificates

    server_dir = ServerDirectory(root / "servers" / "fleet")
    if not read_certificates(server_dir).fits:
        return "do not fit"
    return sha256_of((server_dir.certificates / "server.crt").read_bytes())


RENEW = Scenario(
    prepare=_before_renewal,
    act=_renew,
    observe=_certificate,
    resume=_renew,
    settled=lambda root: len(_certificate(root)),
    # Two files: in between, `start` and `doctor` say that they do not fit, and how to renew again.
    between=lambda states, step: ["do not fit"] if step == 0 else [],
)


def _add_channel(root: Path) -> None:
    from cloud_server.initialize import add_channel

    add_channel(root / "servers" / "fleet", "canary", _plan(), lambda line: None)
    mark()


def _channels(root: Path) -> tuple[str, bool]:
    """Return whether the channel's folder is there and its model served; the first one stays."""
    assert _initialized(root) == "complete"
    server_dir = ServerDirectory(root / "servers" / "fleet")
    own = server_dir.of("canary")
    if own.lineage:
        assert Checkpoints(own.checkpoints).latest().version == 0
        for name, entry in parse_trainer((own.model / TRAINER).read_bytes()).files.items():
            require_file(own.model / name, entry)
    store = DirectoryStore(server_dir.store)
    if store.latest("canary") is not None:
        assert store.versions("canary")
    return own.lineage, store.latest("canary") is not None


def _add_channel_again(root: Path) -> None:
    try:
        _add_channel(root)
    except SettingsError:  # it is there already
        assert _channels(root) == ("canary", True)


ADD_CHANNEL = Scenario(
    prepare=_initialize,
    act=_add_channel,
    observe=_channels,
    resume=_add_channel_again,
    between=lambda states, step: [("canary", False)] if step == 0 else [],
)


def _relabel(root: Path) -> None:
    import cloud_server.labels
    import cloud_server.models.publish
    from cloud_server.labels import relabel
    from cloud_server.state.settings import PublishSettings

    _plan()  # its exports
    cloud_server.labels.run_export = cloud_server.models.publish.run_export
    relabel(_fleet(root), PublishSettings(), lambda labels: labels.with_added(["moon"]), str)
    mark()


def _fleet(root: Path) -> ServerDirectory:
    return ServerDirectory(root / "servers" / "fleet")


def _labels(root: Path) -> tuple[str, int | None, bool]:
    """Return the labels, the version that robots are given, and whether the kit fits to them."""
    from cloud_server.labels import labels_of
    from cloud_server.state.kit import faults_of_kit
    from cloud_server.state.settings import load_settings

    server_dir = _fleet(root)
    labels, store = labels_of(server_dir).names, DirectoryStore(server_dir.store)
    model = server_dir.model_of(Checkpoints(server_dir.checkpoints).latest().version)
    for name, entry in parse_trainer((model / TRAINER).read_bytes()).files.items():
        require_file(model / name, entry)
        assert store.object(entry.sha256) is not None  # robots can fetch it
    fits = not faults_of_kit(server_dir, load_settings(server_dir.settings))
    return ",".join(labels), served_version(store), fits


def _relabel_again(root: Path) -> None:
    try:
        _relabel(root)
    except SettingsError:  # the label is there already
        assert _labels(root)[1:] == (1, True)


def _while_labels_change(states: list[Any], step: int) -> list[Any]:
    """The checkpoint comes first, then the channel, then the kit: the same command goes on."""
    labels = states[1][0]
    return [(labels, 0, False), (labels, 1, False)] if step == 0 else []


RELABEL = Scenario(
    prepare=_initialize,
    act=_relabel,
    observe=_labels,
    resume=_relabel_again,
    between=_while_labels_change,
)


def _without_kit(root: Path) -> None:
    _initialize(root)
    shutil.rmtree(_fleet(root).kit)


def _repair(root: Path) -> None:
    from cloud_server.repair import repair
    from cloud_server.state.settings import load_settings

    server_dir = _fleet(root)
    list(repair(server_dir, load_settings(server_dir.settings), str))
    mark()


def _kit_fits(root: Path) -> bool:
    from cloud_server.state.kit import faults_of_kit
    from cloud_server.state.settings import load_settings

    return not faults_of_kit(_fleet(root), load_settings(_fleet(root).settings))


REPAIR = Scenario(prepare=_without_kit, act=_repair, observe=_kit_fits, resume=_repair)


def _make_key(root: Path) -> None:
    from cloud_server.departments.service import _key

    assert _key(_fleet(root)) == _departments_key(root)
    mark()


def _departments_key(root: Path) -> str:
    """Return the key that clients send, "" for none; it is whole."""
    file = _fleet(root).secrets / "departments.key"
    if not file.exists():
        return ""
    key = file.read_text("ascii").strip()
    assert len(key) == 46
    return key


DEPARTMENTS_KEY = Scenario(
    prepare=lambda root: _fleet(root).secrets.mkdir(parents=True),
    act=_make_key,
    observe=_departments_key,
    resume=_make_key,
    settled=lambda root: bool(_departments_key(root)),
)


def _import_out(root: Path) -> None:
    """Write an imported engine's bundle as a folder; what writes its files was tested elsewhere."""
    import cloud_server.importing
    from cloud_server.importing import ImportPlan, write_out

    def write(*given: Any) -> None:
        for name in (MANIFEST, "head.tflite"):
            shutil.copy(TINY / name, given[-1])

    if not (root / "out").exists():
        made: Any = SimpleNamespace(plan=ImportPlan(file=TINY), workload=None)
        with mock.patch.object(cloud_server.importing, "write_imported", write):
            write_out(_fleet(root), made, root / "out")
    mark()


def _written_out(root: Path) -> bool:
    if not (root / "out").exists():
        return False
    manifest = parse_manifest((root / "out" / MANIFEST).read_bytes())
    require_file(root / "out" / "head.tflite", manifest.files["head.tflite"])
    return True


IMPORT_OUT = Scenario(
    prepare=_initialize, act=_import_out, observe=_written_out, resume=_import_out
)
