"""Installing as a whole on a robot: download, trial, switch, probation, and the ways back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

from power_cuts import Scenario
from publishing_scenarios import LOADED, typed
from recorder import mark
from robot_scenarios import (
    FINE,
    WORSE,
    make_installer,
    meet_servers,
    no_timers,
    offer_of,
    server_of,
)

from edge_agent.models import install
from edge_agent.models.deploy import Models
from edge_agent.models.install import Installer
from edge_agent.models.verdict import Findings
from fleet_model.bundle import read_bundle

_LOOKS = count()
_PRECISION = "fp32"


@contextmanager
def _finding(found: Findings) -> Iterator[None]:
    with mock.patch.object(install, "run_trial", return_value=found), no_timers():
        yield


def _start(root: Path) -> Installer:
    installer = make_installer(root)
    installer.begin()
    return installer


def _follow(installer: Installer, version: int) -> None:
    try:
        installer.follow(server_of(version).store, offer_of(version))
    except OSError as error:
        raise AssertionError("the agent would call it a bug") from error


def _end_probation(installer: Installer) -> None:
    """Decide, as the timer does; what goes wrong there is only logged, and tried again."""
    probation = installer._file.read().probation
    if probation is not None:
        installer._end_probation(probation)
        if installer._file.read().probation == probation:
            raise SystemExit(12)


def _begin_with_two(root: Path) -> None:
    """Be a robot that has confirmed version 2, and can go back to version 1."""
    meet_servers()
    with _finding(FINE):
        installer = _start(root)
        for version in (1, 2):
            _follow(installer, version)
            _end_probation(installer)


def _install(root: Path) -> None:
    """Install version 3 and confirm it, from wherever an end has left it."""
    with _finding(FINE):
        installer = _start(root)
        if Models(root / "models").version_in_use() != 3:
            _follow(installer, 3)
        mark()
        _end_probation(installer)
        mark()


def _install_worse(root: Path) -> None:
    with _finding(WORSE):
        _follow(_start(root), 3)
        mark()


def _on_probation(root: Path) -> None:
    _begin_with_two(root)
    with _finding(FINE):
        _follow(_start(root), 3)


def _fail_probation(root: Path) -> None:
    with _finding(WORSE):
        _end_probation(_start(root))
        mark()


def _end_twice(root: Path) -> None:
    """Be a robot whose agent has ended twice since version 3 is on probation."""
    _on_probation(root)
    for _ in range(2):
        with no_timers():
            _start(root)


def _start_again(root: Path) -> None:
    with no_timers():
        _start(root)
    mark()


def _with_settings(root: Path) -> None:
    _on_probation(root)
    (root / "agent.toml").write_text('state = "."\n[server]\naddress = "localhost:1"\n')


def _refused(root: Path) -> None:
    _with_settings(root)
    _fail_probation(root)


def _command(*words: str) -> Callable[[Path], None]:
    from edge_agent.cli import main

    return lambda root: typed(main, "edge-agent", *words, "--config", root / "agent.toml")


def _found(root: Path) -> Any:
    """Return what a consumer finds beside an agent that has ended, and what its next start says."""
    models = Models(root / "models")
    manifest = read_bundle(models.current, ())
    read_bundle(models.current, manifest.needed(_PRECISION))
    if next(_LOOKS) % LOADED == 0:
        _run_model(models.current)
    with no_timers():
        installer = _start(root)
    offer, trials = models.active(_PRECISION), installer._file.read()
    assert offer is not None
    assert manifest.version in (2, 3)
    refused = [tried.name[:6] for tried in trials.tried if tried.refused]
    last = installer.last
    told = last and (last.version, last.state)
    return offer.manifest.version, told, trials.probation is not None, refused


def _run_model(bundle: Path) -> None:
    from fleet_model.engine import TFLiteEngine

    TFLiteEngine(bundle, _PRECISION).warm_up()


def _names(root: Path) -> Any:
    """Return all that lies there, by its names: nothing that is not needed stays."""
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    return _found(root), names


def _robot(
    prepare: Callable[[Path], None],
    act: Callable[[Path], None],
    resume: Callable[[Path], None] | None = None,
) -> Scenario:
    return Scenario(prepare=prepare, act=act, observe=_found, resume=resume or act, settled=_names)


def _roll_back_once(root: Path) -> None:
    if _found(root)[0] != 2:
        _command("rollback")(root)


INSTALL = _robot(_begin_with_two, _install)
REFUSE = _robot(_begin_with_two, _install_worse)
GIVE_BACK = _robot(_on_probation, _fail_probation)
GIVE_BACK_AT_START = _robot(_end_twice, _start_again)
ROLL_BACK = _robot(_with_settings, _command("rollback"), _roll_back_once)
TRY_AGAIN = _robot(_refused, _command("install", "--force"))
