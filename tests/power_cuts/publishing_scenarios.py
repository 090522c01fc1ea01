"""Publishing as a whole, by a run and by commands; the export's output was made once."""

import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

from power_cuts import Scenario
from recorder import mark
from server_scenarios import TINY, make_bundle, served_version

import cloud_server.models.publish
from cloud_server import server
from cloud_server.models.export import BundleJob
from cloud_server.models.release_log import ReleaseLog
from cloud_server.runs.lifecycle import Lifecycle
from cloud_server.runs.run_store import Run, RunStore
from cloud_server.signing.signing import sign
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.settings import GateSettings, PublishSettings, ServerSettings
from fleet_model.bundle import MANIFEST
from fleet_model.durable import telling_of_the_disk
from fleet_model.types import Checkpoint
from fleet_model.weights import read_weights

_WEIGHTS = read_weights(TINY / "weights.safetensors")
_LOOKS = count()
LOADED = 10  # every so many looks the model runs, too


def _export(job: BundleJob, *_: Any) -> None:
    """Leave what an export leaves; its errors are those of the process that does it."""
    with tempfile.TemporaryDirectory() as folder:
        make_bundle(Path(folder, "bundle"), job.version)
        with telling_of_the_disk("the export", "make room"):
            for file in Path(folder, "bundle").iterdir():
                shutil.copyfile(file, job.directory / file.name)


cloud_server.models.publish.run_export = _export  # type: ignore[assignment]


def _trained(root: Path) -> None:
    """Be a server whose robots run version 2; versions 3 and 4 are withheld."""
    server_dir = ServerDirectory(root)
    shutil.copytree(TINY, server_dir.model)
    server_dir.settings.write_text("[publish]\nkeep_versions = 2\n")
    checkpoints, store = Checkpoints(server_dir.checkpoints), DirectoryStore(server_dir.store)
    releases = ReleaseLog(server_dir.releases)
    for version in (1, 2, 3, 4):
        weights = {name: tensor + version for name, tensor in _WEIGHTS.items()}
        record = RoundRecord(
            run="a", round=version, version=version, seconds=1.0, robots=(), metrics={}
        )
        checkpoints.save(Checkpoint(version=version, weights=weights), record)
        releases.add(version, "published" if version < 3 else "withheld", "run a")
        if version < 3:
            _add(store, version)
    store.offer("stable", 2)


def _add(store: DirectoryStore, version: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_bundle(Path(folder, "bundle"), version)
        store.add(Path(folder, "bundle"), TINY)


def _served(root: Path) -> int:
    """Return whose weights robots are given; what they are given is whole, and has its release."""
    server_dir = ServerDirectory(root)
    store, checkpoints = DirectoryStore(server_dir.store), Checkpoints(server_dir.checkpoints)
    for manifest in store.versions():
        assert not store.lacking(manifest.version, read=True)
    for version in checkpoints.versions():
        checkpoints.load(version)
    served = served_version(store)
    assert served is not None
    if next(_LOOKS) % LOADED == 0:
        _run_model(store, served)
    release = ReleaseLog(server_dir.releases).by_version()[served]
    assert release.published
    assert served <= checkpoints.newest()
    return release.root


def _run_model(store: DirectoryStore, version: int) -> None:
    """Fetch a version as a robot does, and answer with it."""
    from fleet_model.engine import TFLiteEngine

    (manifest,) = (one for one in store.versions() if one.version == version)
    with tempfile.TemporaryDirectory() as folder:
        for name, entry in manifest.files.items():
            store.fetch(entry.sha256, entry.size_bytes, Path(folder, name))
        (Path(folder) / MANIFEST).write_text(manifest.model_dump_json())
        TFLiteEngine(Path(folder)).warm_up()


def _tidy(root: Path) -> Any:
    """Return also whatever lies there that a new server would not keep."""
    return _served(root), sorted(str(path.relative_to(root)) for path in _unaccounted(root))


def _unaccounted(root: Path) -> list[Path]:
    store = DirectoryStore(root / "store")
    hidden = [path for path in root.rglob(".*") if path.suffix != ".lock" and path.name != ".lock"]
    manifests = [root / "store" / "versions" / f"{one:06d}.json" for one in store.published()]
    needed = store.objects_of(manifests)
    return hidden + [one for one in (root / "store/objects").iterdir() if one.name not in needed]


def scenario(
    prepare: Callable[[Path], None],
    act: Callable[[Path], None],
    end: int,
    *,
    by_server: bool = False,
) -> Scenario:
    """Return one that ends with the weights of a version; what is done is not done again.

    A server tidies before it goes on, a command that is typed again does not.
    """

    def go_on(root: Path) -> None:
        if by_server:
            _start(ServerDirectory(root))
        if _served(root) != end:
            act(root)
        _start(ServerDirectory(root))

    return Scenario(prepare=prepare, act=act, observe=_served, resume=go_on, settled=_tidy)


def _start(server_dir: ServerDirectory) -> None:
    """Do what a server does before it serves."""
    server._tidy(server_dir)
    sign(server_dir)


def typed(main: Callable[[], None], *words: object) -> None:
    """Run a command; raises SystemExit with its code, as it does, unless it is 0."""
    told = redirect_stdout(StringIO())  # ours is the report of these tests
    with told, mock.patch.object(sys, "argv", list(map(str, words))):
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
    mark()


def _models(*words: object) -> Callable[[Path], None]:
    from cloud_server.cli import main

    return lambda root: typed(main, "cloud-server", "models", words[0], root, *words[1:])


PUBLISH_NEWEST = scenario(_trained, _models("publish", 4), 4)
PUBLISH_OLDER = scenario(_trained, _models("publish", 3), 3)
ROLL_BACK = scenario(_trained, _models("rollback", 1), 1)


def _with_old_versions(root: Path) -> None:
    _trained(root)
    store = DirectoryStore(root / "store")
    for version in (3, 4):
        _add(store, version)
    store.pin(4)


def _kept(root: Path) -> Any:
    store = DirectoryStore(root / "store")
    return _served(root), sorted(store.pins()), store.published()


PRUNE = Scenario(
    prepare=_with_old_versions,
    act=_models("prune", "--keep", 1),
    observe=_served,
    resume=_models("prune", "--keep", 1),
    settled=lambda root: (_kept(root), _tidy(root)),
)
UNPIN = Scenario(
    prepare=_with_old_versions, act=_models("unpin", 4), observe=lambda root: _kept(root)[1],
    resume=lambda root: None if not _kept(root)[1] else _models("unpin", 4)(root),
)  # fmt: skip


class _Fleet:
    """Nobody is asked any more."""

    def open_run(self, resume: object) -> None:
        return None

    def close_run(self, *, completed: bool) -> None:
        return None


def _about_to_publish(root: Path) -> None:
    """Be a server that was killed when the rounds of a run had closed."""
    _trained(root)
    run = Run(
        id="a", rounds=2, first_version=2, rounds_closed=2, state="publishing", started_at=1.0,
        channel="stable",
    )  # fmt: skip
    RunStore(root / "runs").save(run)


def _end_run(root: Path) -> None:
    """Bring the run to its end; `cloud-server train` then says how it ended."""
    server_dir = ServerDirectory(root)
    store = RunStore(server_dir.runs)
    (run,) = store.load()
    if not run.active:
        run.begin_again()
    settings = ServerSettings(
        publish=PublishSettings(keep_versions=2), gate=GateSettings(publish="always")
    )
    lifecycle = Lifecycle(
        server_dir, settings, _Fleet(), store,  # type: ignore[arg-type]
        told=(), exclusive=nullcontext, details="see the server's log",
    )  # fmt: skip
    lifecycle.bring_to_end(run)
    if run.exit_code:
        sys.stderr.write(f"cloud-server: {run.error}\n")
        raise SystemExit(run.exit_code)
    mark()


END_OF_A_RUN = scenario(_about_to_publish, _end_run, 4, by_server=True)
