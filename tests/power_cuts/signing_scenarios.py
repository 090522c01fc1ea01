"""What is signed, on the server and on a robot, and keys that change."""

from pathlib import Path
from typing import Any

from power_cuts import Scenario
from recorder import mark

from cloud_server.signing.keys import OfflineKeys, OnlineKeys
from cloud_server.signing.repository import Offline, SignedStore
from cloud_server.signing.sync import LAST, Folder, sync
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from edge_agent.link.signed_models import SignedModels
from edge_agent.link.tuf_client import refresh
from fleet_model.bundle import Manifest, Offer, parse_manifest, sha256_of, to_json
from fleet_model.errors import TrustError
from fleet_model.protocol.proof import utc_now
from fleet_model.protocol.routes import site_offer, stored_target, target_of

TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"
_MANIFEST = parse_manifest((TINY / "manifest.json").read_bytes())


def _manifest(version: int) -> bytes:
    return to_json(_MANIFEST.model_copy(update={"version": version}))


def _store(root: Path) -> SignedStore:
    return SignedStore(root / "store", OnlineKeys(root / "secrets"))


def _sign(root: Path, version: int) -> None:
    _store(root).sign(lambda: {"stable": _manifest(version)}, utc_now())


def _get(root: Path, path: str, store: str = "store") -> bytes | None:
    """Answer as a web server before the store would."""
    file = root / store / path.lstrip("/")
    return file.read_bytes() if file.is_file() else None


def _signed(root: Path, offer: str = "stable", store: str = "store") -> Any:
    """Return what a robot that was never here is given."""

    def get(path: str) -> bytes | None:
        return _get(root, path, store)

    first = get("/metadata/1.root.json")
    if first is None or get("/metadata/timestamp.json") is None:
        return "nothing is signed"  # the server tells robots so
    held = {"root.json": first}
    target = target_of(offer)
    try:
        signed = refresh(held, [target], "/metadata/", get)
    except TrustError as error:
        return "refused" if "not signed by the keys" in str(error) else str(error)
    if not signed:
        return "nothing of its own"
    content = get(f"/targets/{stored_target(target, signed[target])}")
    assert content is not None
    assert sha256_of(content) == signed[target]
    return parse_manifest(content).version


def _tidy(root: Path) -> Any:
    """Return also what lies there."""
    names = (file.name for file in (root / "store").rglob("*") if file.name[0] == ".")
    others = sorted(name for name in names if not name.endswith("lock"))
    return _signed(root), len(list((root / "secrets").iterdir())), others


def _first(root: Path) -> None:
    _sign(root, 1)
    mark()


def _newer(root: Path) -> None:
    _sign(root, 2)
    mark()
    _sign(root, 3)
    mark()


FIRST_SIGNATURE = Scenario(
    prepare=lambda root: None, act=_first, observe=_signed, resume=_first, settled=_tidy
)
SIGN = Scenario(
    prepare=_first,
    act=_newer,
    observe=_signed,
    resume=lambda root: _sign(root, 3),
    settled=_tidy,
)


def _rotate(root: Path) -> None:
    _store(root).rotate({"stable": _manifest(1)}, utc_now())
    mark()


# Between the new root and the new signatures robots keep their model: the next signing ends it.
ROTATE_KEYS = Scenario(
    prepare=_first,
    act=_rotate,
    observe=_signed,
    resume=lambda root: _sign(root, 1),
    settled=_tidy,
    between=lambda states, step: ["refused"],
)


# ---------------------------------------------------------------------------- keys of persons


def _offline(root: Path) -> Offline:
    keys = OfflineKeys(root / "usb", lambda name: "a word of some length")
    return Offline([keys.make(f"root-{number}") for number in (1, 2)], keys.make("release"))


def _take_offline(root: Path) -> None:
    """Also after a kill: what is done is not done again."""
    offers = {"stable": _manifest(1)}
    if "stable" not in _store(root).protected() or not _is_offline(root):
        _store(root).take_offline(offers, utc_now(), _offline(root), 2, ["stable"])
    mark()


def _is_offline(root: Path) -> bool:
    newest = _store(root).files.newest_root()
    return newest is not None and newest.signed.roles["root"].threshold == 2


def _promote(root: Path) -> None:
    offers, key = {"stable": _manifest(1)}, _offline(root).release
    _store(root).change(offers, utc_now(), {"stable": _manifest(2)}, key)
    mark()


HALL = site_offer("stable", "hall-1")


def _assign(root: Path) -> None:
    """Give a site a version of its own, and take it away again."""
    offers, key = {"stable": _manifest(1)}, _offline(root).release
    _store(root).change(offers, utc_now(), {HALL: _manifest(2)}, key)
    mark()
    _store(root).change(offers, utc_now(), {}, key, [HALL])
    mark()


def _signed_at_site(root: Path) -> Any:
    return _signed(root, HALL), _signed(root)


def _offline_before(root: Path) -> None:
    _first(root)
    _take_offline(root)


TAKE_OFFLINE = Scenario(
    prepare=_first, act=_take_offline, observe=_signed, resume=_take_offline, settled=_is_offline
)
PROMOTE = Scenario(prepare=_offline_before, act=_promote, observe=_signed, resume=_promote)
ASSIGN = Scenario(prepare=_offline_before, act=_assign, observe=_signed_at_site, resume=_assign)


def _take_online(root: Path) -> None:
    """Let the server's key sign everything again; after a kill, too."""
    offers, keys = {"stable": _manifest(1)}, _offline(root)
    if _is_offline(root):
        _store(root).take_online(offers, utc_now(), keys.roots, keys.release)
    else:
        _store(root).sign(lambda: offers, utc_now())
    mark()


TAKE_ONLINE = Scenario(
    prepare=_offline_before,
    act=_take_online,
    observe=_signed,
    resume=_take_online,
    settled=lambda root: (_is_offline(root), sorted(_store(root).files.current())),
)


# ------------------------------------------------------------------------------- another place


def _two_places(root: Path) -> None:
    """Be a server whose version 1 has been brought to another place, and that has version 2."""
    store = DirectoryStore(root / "store")
    store.publish(TINY, "stable", TINY)
    _bring(root)
    store.reissue(1, 2, "2026-01-01T00:00:00")
    store.offer("stable", 2)


def _bring(root: Path) -> None:
    sync(ServerDirectory(root), Folder(root / "served"))
    mark()


def _served(root: Path) -> Any:
    """Return the version that a robot gets there, if all of its files are there, too."""
    version = _signed(root, store="served")
    for name, entry in _MANIFEST.files.items():
        content = _get(root, f"/objects/{entry.sha256}", "served")
        assert content is not None, name
        assert sha256_of(content) == entry.sha256
    return version


SYNC = Scenario(prepare=_two_places, act=_bring, observe=_served, resume=_bring)
FIRST_SYNC = Scenario(
    prepare=lambda root: DirectoryStore(root / "store").publish(TINY, "stable", TINY),
    act=_bring,
    observe=lambda root: _served(root) if (root / "served" / LAST).exists() else "nothing",
    resume=_bring,
)


# ------------------------------------------------------------------------------------- the robot


def _robot(root: Path) -> None:
    """Be a robot that has seen version 1; the server has changed its key and signed version 2."""
    _first(root)
    (root / "root.json").write_bytes(_get(root, "/metadata/1.root.json") or b"")
    _look(root)
    _store(root).rotate({"stable": _manifest(1)}, utc_now())
    _sign(root, 2)


def _look(root: Path) -> Manifest:
    models = SignedModels(root / "trust", root / "root.json")
    offer: Offer | None = models.check("stable", None, lambda path: _get(root, path), signs=True)
    assert offer is not None
    return offer.manifest


def _looked(root: Path) -> None:
    _look(root)
    mark()


def _trusted(root: Path) -> Any:
    """Return whether what the robot has kept is whole, and leads to the newest model."""
    folder = root / "trust"
    held = {file.name: file.read_bytes() for file in sorted(folder.glob("*.json"))}
    assert "first.json" in held
    assert all(content.startswith(b"{") for content in held.values())
    return "trusts" if _look(root).version == 2 else "does not"


TRUST = Scenario(prepare=_robot, act=_looked, observe=_trusted, resume=_looked)
