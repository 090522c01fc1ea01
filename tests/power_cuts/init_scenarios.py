"""Power cuts while `cloud-server init` makes a directory, and while a certificate is renewed."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from power_cuts import Scenario
from recorder import mark
from server_scenarios import TINY, served_version

from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from fleet_model.bundle import (
    MANIFEST,
    TRAINER,
    parse_manifest,
    parse_trainer,
    require_file,
    sha256_of,
)
from fleet_model.errors import SettingsError


def _plan() -> Any:
    """Return a plan for `cloud-server init`; what its child exports is the tiny bundle."""
    import cloud_server.initialize
    import cloud_server.models.publish
    from cloud_server.initialize import InitPlan

    def export(job: Any, *_: Any) -> None:
        names = [MANIFEST, *parse_manifest((TINY / MANIFEST).read_bytes()).files]
        if job.job == "init":
            trainer = parse_trainer((TINY / TRAINER).read_bytes())
            names = [*trainer.files, "weights.safetensors"]
        for name in [*names, TRAINER]:
            shutil.copy(TINY / name, job.directory)

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
    assert served_version(DirectoryStore(server_dir.store)) == 1  # of the tiny bundle
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
    from cloud_server.labels import Labels, relabel
    from cloud_server.state.settings import PublishSettings

    _plan()  # its exports
    cloud_server.labels.run_export = cloud_server.models.publish.run_export
    labels = Labels(("circle", "square", "star", "moon"))
    relabel(ServerDirectory(root / "servers" / "fleet"), PublishSettings(), labels, print)
    mark()


def _labels(root: Path) -> tuple[int, str]:
    """Return the newest version and the folder of its trainer files, which are complete."""
    server_dir = ServerDirectory(root / "servers" / "fleet")
    version = Checkpoints(server_dir.checkpoints).latest().version
    model, store = server_dir.model_of(version), DirectoryStore(server_dir.store)
    for name, entry in parse_trainer((model / TRAINER).read_bytes()).files.items():
        require_file(model / name, entry)
        assert store.object(entry.sha256) is not None  # robots can fetch it
    return version, model.name


RELABEL = Scenario(
    prepare=_initialize,
    act=_relabel,
    observe=_labels,
    resume=lambda root: None if _labels(root)[0] else _relabel(root),
)
