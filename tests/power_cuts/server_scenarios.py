"""Power cuts on the server: register, offenses, runs, schedule, checkpoints, models, init."""

import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from power_cuts import Scenario
from recorder import mark

from cloud_server.models.release_log import ReleaseLog
from cloud_server.monitoring.totals import SAVE_ROUNDS, RunningTotals
from cloud_server.robots.last_seen import LastSeen
from cloud_server.robots.offenses import Offenses
from cloud_server.robots.register import Register
from cloud_server.robots.tokens import Tokens
from cloud_server.rollback import roll_back
from cloud_server.runs.run_store import Run, RunStore
from cloud_server.runs.schedule import Schedule, ScheduleFile
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.history_file import all_lines
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.round_record import RobotRecord, RoundRecord
from cloud_server.state.settings import PublishSettings
from fleet_model.bundle import (
    MANIFEST,
    Manifest,
    entry_of,
    parse_manifest,
    parse_trainer,
    require_file,
    to_json,
)
from fleet_model.protocol.outcome import Outcome
from fleet_model.protocol.proof import public_line
from fleet_model.types import Checkpoint

TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"
LINES = [public_line(ec.generate_private_key(ec.SECP384R1()).public_key()) for _ in range(2)]


def _register(root: Path) -> Register:
    return Register(root / "robots.json")


def _admit_first(root: Path) -> None:
    _register(root).add("r1", "hall", LINES[0])


def _change_register(root: Path) -> None:
    register = _register(root)
    if register.by_name("r2") is None:
        register.add("r2", "hall", LINES[1])
    mark()
    register.suspend("r1", "is being repaired")
    mark()


def _robots(root: Path) -> dict[str, str]:
    return {robot.name: robot.state for robot in _register(root).robots()}


def _make_and_use_token(root: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)
    tokens = Tokens(root / "tokens.json")
    token = tokens.make(now, valid=timedelta(days=1), uses=2)
    mark()
    tokens.admit(token, LINES[1], "r2", _register(root), now)
    mark()


def _uses(root: Path) -> list[int]:
    return [len(token.admitted) for token in Tokens(root / "tokens.json").all()]


def _revoke_tokens(root: Path) -> None:
    for token in Tokens(root / "tokens.json").all():
        Tokens(root / "tokens.json").revoke(token.id)


TOKENS = Scenario(
    prepare=_admit_first,
    act=_make_and_use_token,
    observe=_uses,
    resume=_revoke_tokens,
)
REGISTER = Scenario(
    prepare=_admit_first, act=_change_register, observe=_robots, resume=_change_register
)


def _round(number: int) -> RoundRecord:
    robots = (RobotRecord(name="r1", site="hall", outcome=Outcome("refused", "NaN")),)
    return RoundRecord(
        run="a", round=number, version=number + 1, seconds=1.0, robots=robots, metrics={}
    )


def _count_offenses(root: Path) -> None:
    offenses = Offenses(root / "conduct.json", _register(root), suspend_after=2)
    for number in (1, 2):
        offenses.record(_round(number))
        mark()


def _offenses(root: Path) -> tuple[int, str]:
    robot = _register(root).by_name("r1")
    assert robot is not None
    offenses = Offenses(root / "conduct.json", _register(root), suspend_after=2)
    return offenses.in_a_row(robot), robot.state


def _count_last_offense(root: Path) -> None:
    """Tell the last round again, as the server does after a crash, and what was not told yet."""
    offenses = Offenses(root / "conduct.json", _register(root), suspend_after=2)
    for number in range(max(1, _offenses(root)[0]), 3):
        offenses.record(_round(number))


OFFENSES = Scenario(
    prepare=_admit_first,
    act=_count_offenses,
    observe=_offenses,
    resume=_count_last_offense,
    # Suspended first and counted then: in between the round is told again.
    between=lambda states, step: [(1, "suspended")] if step == 1 else [],
)


def _remember_seen(root: Path) -> None:
    seen = LastSeen(root / "seen.json", now_s=lambda: 1000.0)
    seen.see("r1")
    seen.save(_register(root).robots())
    mark()


def _seen(root: Path) -> bool:
    return LastSeen(root / "seen.json", now_s=lambda: 1000.0).of("r1") is not None


LAST_SEEN = Scenario(prepare=_admit_first, act=_remember_seen, observe=_seen, resume=_remember_seen)


def _work_on_run(root: Path) -> None:
    store = RunStore(root / "runs")
    run = Run(id="a", rounds=3, started_at=1.0)
    for state in ("waiting", "running", "finished"):
        run.state = state
        store.save(run)
        mark()


RUN = Scenario(
    prepare=lambda root: None,
    act=_work_on_run,
    observe=lambda root: [run.state for run in RunStore(root / "runs").load()],
    resume=_work_on_run,
)


def _schedule(root: Path) -> None:
    file = ScheduleFile(root / "schedule.json")
    file.save(Schedule(rounds=3, set_at=1.0))
    mark()
    file.clear()
    mark()


SCHEDULE = Scenario(
    prepare=lambda root: None,
    act=_schedule,
    observe=lambda root: ScheduleFile(root / "schedule.json").load(),
    resume=_schedule,
)


def _checkpoint(version: int) -> Checkpoint:
    weights = {"head/kernel": np.full((40, 9), version, np.float32)}
    return Checkpoint(version=version, weights=weights, server_state=weights, seed=version)


def _first_checkpoints(root: Path) -> None:
    for version in (1, 2, 3):
        Checkpoints(root / "checkpoints").save(_checkpoint(version))


def _save_checkpoint(root: Path) -> None:
    checkpoints = Checkpoints(root / "checkpoints")
    checkpoints.save(_checkpoint(4), _round(3))
    mark()
    checkpoints.prune(keep=2)
    mark()


def _checkpoints(root: Path) -> tuple[int, int, list[int]]:
    """Return the newest version, its weights, its record; every version that is listed is whole."""
    checkpoints = Checkpoints(root / "checkpoints")
    for version in checkpoints.versions():
        checkpoints.load(version)
    newest = checkpoints.latest()
    assert newest.version == checkpoints.newest()
    records = [record.round for record in checkpoints.records()]
    return newest.version, int(newest.weights["head/kernel"][0, 0]), records


CHECKPOINTS = Scenario(
    prepare=_first_checkpoints,
    act=_save_checkpoint,
    observe=_checkpoints,
    resume=_save_checkpoint,
    settled=lambda root: sorted(p.name for p in (root / "checkpoints").iterdir()),
)


def make_bundle(folder: Path, version: int) -> None:
    """Write the tiny bundle under that version, with a head whose bytes are others."""
    shutil.copytree(TINY, folder)
    manifest = parse_manifest((folder / MANIFEST).read_bytes())
    head = (TINY / "head.tflite").read_bytes() + b"version %d" % version  # what follows is ignored
    (folder / "head.tflite").write_bytes(head)
    files = {**manifest.files, "head.tflite": entry_of(head)}
    changed = manifest.model_copy(update={"version": version, "files": files})
    (folder / MANIFEST).write_bytes(to_json(changed))


def _published_before(root: Path) -> None:
    for version in (1, 2, 3):
        make_bundle(root / f"bundle-{version}", version)
    for version in (1, 2):
        _store(root).publish(root / f"bundle-{version}", "stable", TINY)


def _store(root: Path) -> DirectoryStore:
    return DirectoryStore(root / "store")


def _pin_publish_and_prune(root: Path) -> None:
    store = _store(root)
    store.pin(1)
    mark()
    store.publish(root / "bundle-3", "stable", TINY)
    mark()
    store.prune(keep=1)
    mark()


def _published(root: Path) -> tuple[int | None, list[int], set[int]]:
    """Return what is served, what is published, what is pinned; every version is whole."""
    store = _store(root)
    manifests = store.versions()
    for manifest in manifests:
        _require_objects(store, manifest)
    return served_version(store), [one.version for one in manifests], store.pins()


def _before_its_channel(states: list[Any], step: int) -> list[Any]:
    """A version is there a moment before it is served."""
    if step != 1:
        return []
    return [(states[1][0], *states[2][1:])]


def _tidy_store(root: Path) -> tuple[object, list[str]]:
    objects = [path.name for path in (root / "store" / "objects").iterdir()]
    return _published(root), sorted(objects)


def served_version(store: DirectoryStore) -> int | None:
    """Return the version that robots are given, after looking at every file as they do."""
    content = store.latest_bytes("stable")
    if content is None:
        return None
    manifest = parse_manifest(content)
    _require_objects(store, manifest)
    assert manifest.version in [one.version for one in store.versions()]
    return manifest.version


def _require_objects(store: DirectoryStore, manifest: Manifest) -> None:
    entries = [*manifest.files.values(), manifest.trainer]
    trainer = store.object(manifest.trainer.sha256)
    assert trainer is not None
    entries += parse_trainer(trainer.read_bytes()).files.values()
    for entry in entries:
        file = store.object(entry.sha256)
        assert file is not None, f"object {entry.sha256[:12]} is missing"
        require_file(file, entry)


PUBLISH = Scenario(
    prepare=_published_before,
    act=_pin_publish_and_prune,
    observe=_published,
    resume=_pin_publish_and_prune,
    settled=_tidy_store,
    between=_before_its_channel,
)


def _three_versions(root: Path) -> None:
    _published_before(root)
    _store(root).publish(root / "bundle-3", "stable", TINY)
    _first_checkpoints(root)


def _roll_back(root: Path) -> None:
    roll_back(ServerDirectory(root), PublishSettings(), 1)
    mark()


def _weights(root: Path) -> tuple[int, int]:
    """Return which weights robots get, and which ones the next run begins with.

    What a channel offers under the number of another version has its line in the log.
    """
    served, newest = served_version(_store(root)), Checkpoints(root / "checkpoints").latest()
    assert served is not None
    release = ReleaseLog(ServerDirectory(root).releases).by_version().get(served)
    assert served <= 3 or release is not None
    assert served <= newest.version
    return served if release is None else release.root, int(newest.weights["head/kernel"][0, 0])


ROLLBACK = Scenario(
    prepare=_three_versions,
    act=_roll_back,
    observe=_weights,
    resume=lambda root: None if _weights(root)[0] == 1 else _roll_back(root),
    between=lambda states, step: [(3, 1)] if step == 0 else [],  # robots get it last
)


def _history(root: Path) -> list[int]:
    """Return the rounds that are told; a torn line is left out."""
    lines = all_lines(ServerDirectory(root).history)
    return [record.round for line in lines if (record := line.record()) is not None]


def _append_history(root: Path) -> None:
    """Tell the rounds as close_rounds does: after a crash only the last one comes again."""
    server_dir = ServerDirectory(root)
    last = server_dir.last_of_history() or {"round": 0}
    for number in range(int(str(last["round"])) + 1, 4):
        server_dir.append_history(_round(number).as_json())
        mark()


HISTORY = Scenario(
    prepare=lambda root: None, act=_append_history, observe=_history, resume=_append_history
)


def _long_history(root: Path) -> None:
    server_dir = ServerDirectory(root)
    for number in range(SAVE_ROUNDS + 1):
        server_dir.append_history(_round(number).as_json())


def _sums(root: Path) -> tuple[int, int]:
    totals = RunningTotals(root / "history.jsonl", root / "totals.json").totals()
    return totals.rounds, totals.updates["refused"]


def _sum_up(root: Path) -> None:
    _sums(root)
    mark()


# The sums may be lost, since the history has them; they must never be wrong.
TOTALS = Scenario(prepare=_long_history, act=_sum_up, observe=_sums, resume=_sum_up)
