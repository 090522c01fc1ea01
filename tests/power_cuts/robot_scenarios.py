"""Power cuts on a robot: enroll, downloads, installed models, pause, status, trained moments."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any
from unittest import mock

from power_cuts import Scenario
from recorder import mark
from server_scenarios import make_bundle

from edge_agent.agent.status import Status, read_status, write_status
from edge_agent.cli.enroll import enroll
from edge_agent.examples.held_out import Moment
from edge_agent.examples.trained_moments import TrainedMoments
from edge_agent.link.addresses import Addresses
from edge_agent.link.choosing.kept_site import KeptSite
from edge_agent.link.server_link import HttpsStore
from edge_agent.models import install
from edge_agent.models.channels import Channels, named
from edge_agent.models.deploy import Models
from edge_agent.models.install import Installer
from edge_agent.models.verdict import Findings
from edge_agent.robot.pause import pause, pause_reason, resume
from edge_agent.robot.settings import AgentSettings, ExampleSettings, ServerLink, load_settings
from fleet_model.bundle import MANIFEST, Offer, read_offer, require_file, sha256_of
from fleet_model.protocol.proof import public_line, read_key


def _kit(root: Path) -> None:
    from cloud_server.state.certificates import make_secrets
    from cloud_server.state.directory import ServerDirectory
    from fleet_model.protocol.proof import utc_now

    make_secrets(ServerDirectory(root / "server"), ("localhost",), utc_now())
    (root / "kit").mkdir()
    shutil.copy(root / "server" / "certificates" / "ca.crt", root / "kit")
    (root / "kit" / "root.json").write_text('{"signed": {}}')
    (root / "kit" / "kit.toml").write_text('address = "127.0.0.1:9400"\nchannel = "stable"\n')
    shutil.rmtree(root / "server")


def _enroll(root: Path) -> None:
    robot = root / "robots" / "r1"
    if not (robot / "agent.toml").exists():
        enroll(root / "kit", robot, ExampleSettings(), train=False)
    mark()


def _enrolled(root: Path) -> str:
    """Return the public key of a robot that can start, "" of one that is not enrolled."""
    robot = root / "robots" / "r1"
    if not (robot / "agent.toml").exists():
        return ""
    settings = load_settings(robot / "agent.toml", {})
    assert settings.server.ca.read_bytes() == (root / "kit" / "ca.crt").read_bytes()
    assert settings.server.root.read_bytes() == (root / "kit" / "root.json").read_bytes()
    line = public_line(read_key(settings.server.key).public_key())
    assert (robot / "robot.pub").read_text() == line + "\n"
    return line


ENROLL = Scenario(
    prepare=_kit,
    act=_enroll,
    observe=_enrolled,
    resume=_enroll,
    settled=lambda root: bool(_enrolled(root)),
)


class Server:
    """The robot's own HTTPS client, with the server's answers given in this process."""

    def __init__(self, files: Path) -> None:
        import httpx

        self._objects = {sha256_of(f.read_bytes()): f.read_bytes() for f in files.iterdir()}
        with tempfile.TemporaryDirectory() as folder:
            _kit(Path(folder))
            enroll(Path(folder, "kit"), Path(folder, "robot"), ExampleSettings(), train=False)
            link = load_settings(Path(folder, "robot", "agent.toml"), {}).server
            self.store = HttpsStore(link)
        self.store._client = httpx.Client(
            base_url="https://127.0.0.1:9400", transport=httpx.MockTransport(self._answer)
        )

    def _answer(self, request: Any) -> Any:
        import httpx

        content = self._objects[request.url.path.rpartition("/")[2]]
        return httpx.Response(200, stream=httpx.ByteStream(content))


_BUNDLES = Path(tempfile.mkdtemp(prefix="bundles-"))
for _version in (1, 2, 3):
    make_bundle(_BUNDLES / str(_version), _version)


@cache
def server_of(version: int) -> Server:
    return Server(_BUNDLES / str(version))


def meet_servers() -> None:
    """Make them before anything is recorded."""
    for version in (1, 2, 3):
        server_of(version)


def offer_of(version: int) -> Offer:
    return read_offer((_BUNDLES / str(version) / MANIFEST).read_bytes())


def _install_version(root: Path, version: int, channel: str = "stable") -> None:
    Models(root / "models", channel).install(server_of(version).store, offer_of(version), "fp32")


def _install(root: Path) -> None:
    _install_version(root, 2)
    mark()


def _active(root: Path, channel: str = "stable") -> tuple[int | None, int | None]:
    """Return the version in `current`, as predict finds it, and the channel's after a start."""
    models = Models(root / "models", channel)
    in_use = models.version_in_use()
    assert Models(root / "models", "another").active("fp32") is None
    offer = models.active("fp32")
    if offer is None:
        return in_use, None
    manifest = offer.manifest
    for name in manifest.needed("fp32"):
        require_file(models.current / name, manifest.files[name])
    assert models.version_in_use() == manifest.version
    return in_use, manifest.version


def _before_current(states: list[Any], step: int) -> list[Any]:
    """A channel has its version a moment before `current` follows."""
    return [(states[step][0], 2)]


def _pointers(root: Path) -> list[tuple[str, str]]:
    links = (root / "models" / "channels").glob("[a-z]*")  # not what was written aside
    return sorted((link.name, named(link)) for link in links)


def _tidy_models(root: Path) -> Any:
    """Return also how many objects lie beside the versions: nothing stays that is not needed."""
    objects = root / "models" / "objects"
    return _active(root), _pointers(root), len(list(objects.iterdir()))


INSTALL = Scenario(
    prepare=lambda root: _install_version(root, 1),
    act=_install,
    observe=_active,
    resume=_install,
    settled=_pointers,
    between=_before_current,
)
FIRST_INSTALL = Scenario(
    prepare=lambda root: meet_servers(),
    act=_install,
    observe=_active,
    resume=_install,
    settled=_tidy_models,
    between=_before_current,
)


FINE = Findings(compiled={"accelerator": "cpu", "why": "it is not faster"})
WORSE = Findings(running=1, measure="accuracy", before=0.9, after=0.5, chance=0.001)


def make_installer(root: Path) -> Installer:
    settings = AgentSettings(server=ServerLink(address="localhost:1"), state=root)
    return Installer(settings, Models(root / "models"), Event())


def _try_and_give_back(root: Path) -> None:
    """Install version 1, switch to version 2, give it back; from wherever a cut has left it."""
    with mock.patch.object(install, "run_trial", return_value=FINE), no_timers():
        installer = make_installer(root)
        installer.begin()
        if Models(root / "models").version_in_use() is None:
            installer.follow(server_of(1).store, offer_of(1))
        mark()
        if installer.last.version == 1:
            installer.follow(server_of(2).store, offer_of(2))
        mark()
    with mock.patch.object(install, "run_trial", return_value=WORSE), no_timers():
        if installer.last.state == "probation":
            installer._end_probation(installer._file.read().probation)
        mark()


def no_timers() -> Any:
    return mock.patch.object(install.threading, "Timer")


def _on_trial(root: Path) -> Any:
    """Return what the next start finds: the active version, and what became of the last one."""
    with no_timers():
        installer = make_installer(root)
        installer.begin()
    offer, last = Models(root / "models").active("fp32"), installer.last
    trials = installer._file.read()
    refused = [tried.name[:6] for tried in trials.tried if tried.refused]
    told = last and (last.version, last.state)
    return offer and offer.manifest.version, told, trials.probation is not None, refused


ON_TRIAL = Scenario(
    prepare=lambda root: meet_servers(),
    act=_try_and_give_back,
    observe=_on_trial,
    resume=_try_and_give_back,
)


def _install_from_another_channel(root: Path) -> None:
    _install_version(root, 2, "canary")
    mark()


def _both_active(root: Path) -> Any:
    """Return what `_active` does; the channel that was followed before has what it had."""
    found = _active(root, "canary")
    assert _active(root)[1] == 1
    return found


SWITCH_CHANNEL = Scenario(
    prepare=lambda root: _install_version(root, 1),
    act=_install_from_another_channel,
    observe=_both_active,
    resume=_install_from_another_channel,
    settled=_pointers,
    between=_before_current,
)


def _older_robot(root: Path) -> None:
    """Be the directory of an agent that knew no channels: one model, one trainer."""
    _install_version(root, 1)
    _trainer(root)
    shutil.rmtree(root / "models" / "channels")


def _start_agent(root: Path) -> None:
    Models(root / "models").active("fp32")
    mark()


def _adopted(root: Path) -> int | None:
    """Return the version in use, also where another channel is followed after the upgrade."""
    models = Models(root / "models")
    in_use = models.version_in_use()
    offer = models.active("fp32")
    assert offer is not None
    assert offer.manifest.version == in_use
    assert Models(root / "models", "another").active("fp32") is None
    return in_use


ADOPT = Scenario(
    prepare=_older_robot,
    act=_start_agent,
    observe=_adopted,
    resume=_start_agent,
    settled=_pointers,
)


@contextmanager
def without_links() -> Iterator[None]:
    """Be a robot whose disk is FAT or exFAT, as far as links go."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with mock.patch.multiple(os, link=refused, symlink=refused):
        yield


def _install_on_fat(root: Path, version: int) -> None:
    with without_links():
        _install_version(root, version)


def _install_and_mark_on_fat(root: Path) -> None:
    _install_on_fat(root, 2)
    mark()


INSTALL_ON_FAT = Scenario(
    prepare=lambda root: _install_on_fat(root, 1),
    act=_install_and_mark_on_fat,
    observe=_active,
    resume=_install_and_mark_on_fat,
    settled=_pointers,
    between=_before_current,
)


def _trainer(root: Path) -> None:
    entry = offer_of(1).manifest.trainer
    spec, directory = Models(root / "models").trainer(server_of(1).store, entry, "litert")
    for name in spec.parts["litert"]:
        require_file(directory / name, spec.files[name])
    mark()


TRAINER = Scenario(
    prepare=lambda root: meet_servers(),
    act=_trainer,
    observe=lambda root: Channels(root / "models", "stable").trainers(),
    resume=_trainer,
)


def _site(root: Path) -> None:
    """Be told a site, then another one by a person."""
    kept = KeptSite(root / "trust")
    kept.told("hall-1")
    mark()
    kept.change("yard")
    mark()


KEPT_SITE = Scenario(
    prepare=lambda root: None,
    act=_site,
    observe=lambda root: KeptSite(root / "trust").get(),
    resume=_site,
)


def _pause_and_resume(root: Path) -> None:
    pause(root, "carries a load")
    mark()
    resume(root)
    mark()


PAUSE = Scenario(
    prepare=lambda root: None,
    act=_pause_and_resume,
    observe=pause_reason,
    resume=_pause_and_resume,
)


OLD, NEW = "old.example.com:9400", "new.example.com:9400"


def _move(root: Path) -> None:
    addresses = Addresses(OLD, root)
    addresses.announce(NEW)
    mark()
    if addresses.current != NEW:
        addresses.turn()
    mark()


def _addresses(root: Path) -> tuple[str, str]:
    """Return where the robot finds its server: this one, or the other one."""
    return Addresses(OLD, root).current, Addresses(OLD, root).other


MOVE = Scenario(
    prepare=lambda root: None,
    act=_move,
    observe=_addresses,
    resume=_move,
    settled=_addresses,
)


def _write_status(root: Path) -> None:
    for state in ("idle", "training"):
        write_status(root, Status(state=state, last_notice="round 3 was refused"))
        mark()


STATUS = Scenario(
    prepare=lambda root: write_status(root, Status()),
    act=_write_status,
    observe=lambda root: (read_status(root)["state"], read_status(root)["last_notice"]),
    resume=_write_status,
)

MOMENTS = [Moment(stamp_ns=n * 10**9, name=f"{n}.jpg", label="star") for n in (5, 50)]


def _train_on(root: Path) -> None:
    trained = TrainedMoments(root / "trained.json", 10.0)
    for moment in MOMENTS:
        trained.add([moment])
        mark()


def _trained(root: Path) -> list[bool]:
    trained = TrainedMoments(root / "trained.json", 10.0)
    return [moment in trained for moment in MOMENTS]


TRAINED_MOMENTS = Scenario(
    prepare=lambda root: None, act=_train_on, observe=_trained, resume=_train_on
)
