"""Power cuts while sums, profiles and what was spent of privacy are kept.

On the server by robot; on the robot, what it has told.
"""

from contextlib import suppress
from pathlib import Path

import numpy as np
from power_cuts import Scenario
from recorder import mark
from server_scenarios import LINES

from cloud_server.privacy.account import FILE, Account, read_ledger
from cloud_server.profiles.store import ProfileStore
from cloud_server.robots.register import Register
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.learning_settings import PrivacySettings
from cloud_server.state.sums.sums_store import ClosedForm, SumsSpace, SumsStore
from cloud_server.unlearning import unlearn
from edge_agent.training.sent_sums import Sent, SentFile
from fleet_model.errors import SettingsError
from fleet_model.profiles.profile import Group, SourceProfile, pack_profile
from fleet_model.sums.class_sums import class_sums
from fleet_model.sums.packing import pack_sums
from fleet_model.types import Weights

PRIVACY = PrivacySettings(mode="central", noise_multiplier=1.5, delta=1e-6)
SPACE = SumsSpace(trunk="t", labels=("a", "b"), width=6, former={})


def _tensors(seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return pack_sums(class_sums(rng.normal(0, 1, (30, 6)), np.arange(30) % 2, 2, 3))


def _keep(root: Path) -> None:
    store = SumsStore(root / "sums")
    for number, robot in enumerate(("r1", "r2", "r1")):
        store.save(robot, _tensors(number), SPACE)
        mark()
    store.note(ClosedForm(version=2, method="ridge", strength=1.0, robots=("r1", "r2")))
    mark()


def _kept(root: Path) -> tuple[tuple[tuple[str, float], ...], bool]:
    store = SumsStore(root / "sums")
    robots = store.of(SPACE)
    assert sorted(robots) == store.robots()  # none is damaged
    told = tuple((name, float(robots[name].means.sum())) for name in robots)
    return told, store.head() is not None


def _tell(root: Path) -> None:
    file = SentFile(root / "told", "trunk")
    for number in range(3):
        frames = {"a": frozenset(f"{number}{index}" for index in range(12))}
        file.save(Sent("about", frames, _tensors(number)))
        mark()


def _told(root: Path) -> tuple[str, ...] | None:
    sent = SentFile(root / "told", "trunk").load()
    return None if sent is None else tuple(sorted(sent.frames["a"]))


STORED = Scenario(prepare=lambda root: None, act=_keep, observe=_kept, resume=_keep)
TOLD = Scenario(prepare=lambda root: None, act=_tell, observe=_told, resume=_tell)


def _forget(root: Path) -> None:
    """Be a relay: keep two robots' sums while they are held, then take one robot away."""
    store = SumsStore(root / "runs" / "sums")
    with store.changing():
        for robot in ("r1", "r2"):
            store.save(robot, _tensors(1), SPACE)
            mark()
    store.forget("r1")
    mark()


FORGOTTEN = Scenario(
    prepare=lambda root: None,
    act=_forget,
    observe=lambda root: SumsStore(root / "runs" / "sums").robots(),
    resume=_forget,
)


def _relay(root: Path) -> None:
    """Be a relay whose last answer holds the sums of two robots."""
    relay = ServerDirectory(root)
    relay.upstream.mkdir()
    (relay.upstream / "agent.toml").touch()
    for robot in ("r1", "r2"):
        Register(relay.robots).add(robot, "hall", LINES[robot == "r2"])
        SumsStore(relay.sums).save(robot, _tensors(1), SPACE)
    relay.relayed.mkdir(parents=True)
    (relay.relayed / "sums-run-000001-000000.answer").write_bytes(b"of both")


def _unlearn(root: Path) -> None:
    """Unlearn a robot; when it is gone already, the command says so."""
    relay = ServerDirectory(root)
    with suppress(SettingsError):
        list(unlearn(relay, Register(relay.robots), "r1"))
    mark()


def _behind(root: Path) -> tuple[bool, bool, bool]:
    """Return where the robot still is: the register, the sums, the answer that holds them."""
    relay = ServerDirectory(root)
    told = "r1" in SumsStore(relay.sums).robots()
    assert "r2" in SumsStore(relay.sums).robots()
    registered = Register(relay.robots).by_name("r1") is not None
    return registered, told, any(relay.relayed.glob("*.answer"))


BEHIND = Scenario(
    prepare=_relay,
    act=_unlearn,
    observe=_behind,
    resume=_unlearn,
    # In this order: what is left shows the command that there is more to do.
    between=lambda states, step: [(False, True, True), (False, True, False)],
)


def _charge(root: Path) -> None:
    for run in ("a", "a", "b"):
        Account(root, PRIVACY).charge(run, ("r1", "r2"))
        mark()


def _charged(root: Path) -> list[tuple[str, int]]:
    return [(one.run, one.rounds["r1"]) for one in read_ledger(root / FILE)]


def _charge_rest(root: Path) -> None:
    """Charge the run that a cut has left; a round that is tried again is charged again."""
    Account(root, PRIVACY).charge("b", ("r1", "r2"))


ACCOUNT = Scenario(
    prepare=lambda root: None,
    act=_charge,
    observe=_charged,
    resume=_charge_rest,
    settled=lambda root: "b" in dict(_charged(root)),
)


def _keep_profiles(root: Path) -> None:
    store = ProfileStore(root / "profiles")
    for version, robot in ((1, "r1"), (1, "r2"), (2, "r1")):
        store.save(robot, version, pack_profile({"board": PROFILE}))
        mark()


def _profiles(root: Path) -> list[tuple[int, str]]:
    store = ProfileStore(root / "profiles")
    return [(version, robot) for version in store.versions() for robot in store.of(version)]


PROFILE = SourceProfile(whole=Group(records=20, mean=np.zeros(64, np.float32)))
PROFILES = Scenario(
    prepare=lambda root: None, act=_keep_profiles, observe=_profiles, resume=_keep_profiles
)
