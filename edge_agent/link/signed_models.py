"""Which model is signed for this robot's channel; what the server says besides counts for nothing.

  <state>/trust/first.json   the root that this robot began with: from the kit, else the first seen
  <state>/trust/root.json    the newest root that follows from it
  <state>/trust/*.json       timestamp, snapshot and roles as last verified: nothing older counts
  <state>/trust/site         the site by which models are chosen: see choosing/kept_site.py

A robot that was enrolled before models were signed takes the root that its server shows it first,
over TLS with the authority of its kit. From then on it takes nothing unsigned any more.
See docs/decisions/0027-signed-models.md.
"""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_agent.link.choosing.kept_site import KeptSite
from edge_agent.link.choosing.rollouts import Rollouts, parts_of, signed_file
from edge_agent.link.elsewhere import Elsewhere
from edge_agent.link.trust_state import trust_state
from edge_agent.link.tuf_process import Get, refresh, require_root
from fleet_model.bundle import Offer, read_offer, sha256_of
from fleet_model.durable import write_durably
from fleet_model.errors import StorageError, TrustError
from fleet_model.protocol.proof import utc_now
from fleet_model.protocol.routes import (
    METADATA,
    path_of,
    site_offer,
    target_of,
)

ROOT, FIRST = "root.json", "first.json"
# Between two looks at the signatures while the channel offers nothing new. Who holds new models
# back is found out by the timestamp, which counts for a day.
REFRESH_S = 600.0
AGAIN_S = 1.0  # the first time, where the server says something else; then longer and longer
BEHIND_S = 60.0  # the longest, where another place than the server lags behind it
log = logging.getLogger(__name__)


class SignedModels:
    """Verifies what a channel offers; for one thread."""

    def __init__(self, folder: Path, pinned: Path, key: Path | None = None) -> None:
        """Read nothing yet.

        Args:
            folder: where is kept what was verified.
            pinned: the root from the kit; there may be none.
            key: this robot's, by which it has its place in a rollout.
        """
        self._folder, self._pinned = folder, pinned
        self.site, self._rollouts = KeptSite(folder), Rollouts(key)
        self._look_at = 0.0  # monotonic
        self._again_s = AGAIN_S
        # What the server said, this robot's site, and the version that it runs: see `_about`.
        self._asked: tuple[str, str, int | None] | None = None
        self._answer: Offer | None = None  # of the last check
        self._told = False
        self._verified_at = self._refused = self._refused_at = ""

    def state(self) -> dict[str, Any]:
        """Return what is trusted, and what this process has verified and refused; times in UTC."""
        said = {
            "verified_at": self._verified_at,
            "refused": self._refused,
            "refused_at": self._refused_at,
        }
        found = trust_state(self._folder) | {name: one for name, one in said.items() if one}
        return {**found, "rollout": self._rollouts.words}

    def check(
        self,
        channel: str,
        offer: Offer | None,
        get: Get,
        *,
        signs: bool,
        elsewhere: Elsewhere | None = None,
        active: int | None = None,
    ) -> Offer | None:
        """Return the model that is signed for this robot on a channel; None if none is.

        Args:
            channel: that this robot follows.
            offer: what the server says it is; the signed one is fetched where it is another.
            get: asks the server.
            signs: whether the server says that it signs.
            elsewhere: is asked in the place of the server, but for the first root.
            active: the version that this robot runs.

        Raises:
            TrustError: what is signed does not fit, is too old, or does not allow `offer`.
            BundleError: the signed manifest is of a newer version of fleetlearn.
            ConnectionFailed: the server went away, or is too slow.
            StorageError: the disk cannot be written.
        """
        asked = "" if offer is None else sha256_of(offer.content), self.site.get(), active
        if self._about(asked) == self._asked and time.monotonic() < self._look_at:
            return self._answer
        try:
            return self._look(channel, offer, get, elsewhere, asked, signs=signs)
        except TrustError as error:
            self._refused, self._refused_at = str(error), _now()
            raise

    def _look(
        self,
        channel: str,
        offer: Offer | None,
        get: Get,
        elsewhere: Elsewhere | None,
        asked: tuple[str, str, int | None],
        *,
        signs: bool,
    ) -> Offer | None:
        """Ask for what is signed; see `check`."""
        held = self._held(get, signs=signs)
        if not held:
            if not self._told:
                log.warning("the server does not sign its models: who controls it controls them")
            self._told = True
            return offer
        if not signs:
            raise TrustError(
                "the server does not sign its models any more, as it did: a person has put it back "
                "to an older version, or it is not the same; the active model stays"
            )
        ask = elsewhere.small if elsewhere else get
        try:
            found = self._signed_for(channel, offer, held, ask, asked)
        except TrustError as error:
            raise (TrustError(f"{elsewhere.name}: {error}") if elsewhere else error) from None
        self._wait(asked, BEHIND_S if elsewhere else REFRESH_S, agree=found == offer)
        self._answer, self._verified_at = found, _now()
        return found

    def _signed_for(
        self,
        channel: str,
        offer: Offer | None,
        held: dict[str, bytes],
        get: Get,
        asked: tuple[str, str, int | None],
    ) -> Offer | None:
        """Return what is signed for this robot: `offer`, or what is fetched in its place."""
        _, site, active = asked
        own = site_offer(channel, site) if site else channel
        names = {own, channel, *parts_of(channel)}
        targets = self._signed(held, sorted(target_of(name) for name in names), get)
        signed = {name: targets[target_of(name)] for name in names if target_of(name) in targets}
        name = own if own in signed else channel if channel in signed else ""
        if name == channel:
            name = self._rollouts.choose(channel, signed, get, site=site, active=active)
        if not name and offer is not None:
            raise TrustError(
                f"the server offers version {offer.manifest.version} on channel {channel}, and no "
                "model is signed for this channel; the active model stays"
            )
        digest = signed[name] if name else ""
        if not digest or (offer is not None and sha256_of(offer.content) == digest):
            return offer
        return _fetched(name, digest, get)

    def _about(self, asked: tuple[str, str, int | None]) -> tuple[str, str, int | None]:
        """Return what the answer depends on: on the version that runs in a rollout alone."""
        return asked if self._rollouts.words else (*asked[:2], None)

    def _wait(self, asked: tuple[str, str, int | None], most_s: float, *, agree: bool) -> None:
        """Set the next look at the signatures.

        Where the server says something else than is signed, it may sign that in a moment.
        """
        asked = self._about(asked)
        if agree or asked != self._asked:
            self._again_s = AGAIN_S
        self._asked = asked
        self._look_at = time.monotonic() + (REFRESH_S if agree else self._again_s)
        self._again_s = min(2 * self._again_s, most_s)

    def _signed(self, held: dict[str, bytes], names: Sequence[str], get: Get) -> dict[str, str]:
        before = self._read_folder()
        try:
            base = path_of("", METADATA, name="")
            with _disk():
                return refresh(held, names, base, get)
        finally:  # also of a refresh that has failed: what was verified until then
            self._write({name: held[name] for name in held if held[name] != before.get(name)})

    def _held(self, get: Get, *, signs: bool) -> dict[str, bytes]:
        """Return file name -> content of what is trusted; empty: this robot trusts no key yet."""
        pinned, held = self._read(self._pinned), self._read_folder()
        first = held.pop(FIRST, None)
        if first is not None and pinned in (None, first):
            if not _is_json(held.get(ROOT, b"")):  # the disk has lost it
                held[ROOT] = first
            return held
        root = pinned
        if root is None and signs:
            root = get(path_of("", METADATA, name="1.root.json"))
        if root is None:
            return {}
        if pinned is None:
            log.warning("this robot trusts from now on the keys with which its server signs models")
        self._begin(root)
        return {ROOT: root}

    def _begin(self, root: bytes) -> None:
        """Trust a root, and nothing of before."""
        require_root(root)
        if (self._folder / FIRST).exists():
            self.site.begin_again()
        with _disk():
            for file in self._folder.glob("*.json"):  # durable with what is written next
                file.unlink()
        self._write({FIRST: root})

    def _read_folder(self) -> dict[str, bytes]:
        with _disk():
            return {file.name: file.read_bytes() for file in self._folder.glob("*.json")}

    def _read(self, file: Path) -> bytes | None:
        with _disk():
            return file.read_bytes() if file.exists() else None

    def _write(self, files: Mapping[str, bytes]) -> None:
        with _disk():
            for name in sorted(files, key=lambda name: name != ROOT):
                write_durably(self._folder / name, files[name])


@contextmanager
def _disk() -> Iterator[None]:
    """Say what to do about a disk; the reason may travel, so it holds no path."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"what this robot trusts cannot be kept ({error.strerror or 'unknown reason'}): make "
            "room on the disk of the agent's state and of temporary files, and let the agent's "
            "user write there. The active model stays"
        ) from error


def _fetched(offer: str, sha256: str, get: Get) -> Offer:
    """Return the signed manifest of an offer."""
    channel = offer.partition("/")[0]
    content = signed_file(offer, sha256, get)
    if content is None:
        raise TrustError(
            f"the model that is signed for channel {channel} is not on the server; the active "
            "model stays"
        )
    if sha256_of(content) != sha256:
        raise TrustError(
            f"the model of channel {channel} is not the one that was signed: its manifest was "
            "changed; the active model stays"
        )
    return read_offer(content)


def _now() -> str:
    return utc_now().isoformat(timespec="seconds")


def _is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True
