"""What the fleet's server publishes, once more in the building: files by content, signed here."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path

from cloud_server.models.publish import ASIDE, prune
from cloud_server.models.release_log import ReleaseLog
from cloud_server.signing.signing import offer as offer_signed
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import PublishSettings
from fleet_model.bundle import (
    MANIFEST,
    TRAINER,
    FileEntry,
    Offer,
    TrainerSpec,
    parse_trainer,
    require_file,
)
from fleet_model.durable import write_durably
from fleet_model.store import ModelStore

log = logging.getLogger(__name__)


class Mirror:
    """Copies models from the server above into this machine's store; for one thread."""

    def __init__(
        self, server_dir: ServerDirectory, settings: PublishSettings, above: ModelStore
    ) -> None:
        """Read nothing yet.

        Args:
            server_dir: of the relay.
            settings: of its channel, and how many versions are kept.
            above: the server's files.
        """
        self._server_dir, self._settings, self._above = server_dir, settings, above
        self._store = DirectoryStore(server_dir.store)

    def follow(self, offer: Offer) -> bool:
        """Let robots of the building get a model; return whether it is another one than before.

        Killed at any moment, the next call does the rest.

        Raises:
            BundleError: a file is not what the manifest says.
            ConnectionFailed: the server went away; what was fetched is kept.
            SettingsError: this machine's signing key is missing.
            OSError: the disk cannot be written.
        """
        version, channel = offer.manifest.version, self._settings.channel
        if self._store.latest_bytes(channel) == offer.content:
            return False
        aside = self._aside("model")
        self._fetch(aside, {**offer.manifest.files, TRAINER: offer.manifest.trainer})
        trainer = self._content(aside, TRAINER, offer.manifest.trainer)
        self._fetch(aside, parse_trainer(trainer).files)
        write_durably(aside / MANIFEST, offer.content)
        self._store.add(aside, aside)
        self._learned_from(trainer)
        ReleaseLog(self._server_dir.releases).add(version, "published", "the fleet's server")
        offer_signed(self._server_dir, channel, version)
        shutil.rmtree(aside)
        prune(self._server_dir, self._settings)
        return True

    def trainer(self, entry: FileEntry) -> TrainerSpec:
        """Return what a request trains with; its files are here for robots afterwards."""
        aside = self._aside("trainer")
        self._fetch(aside, {TRAINER: entry})
        content = self._content(aside, TRAINER, entry)
        spec = parse_trainer(content)
        self._fetch(aside, spec.files)
        for name, one in {TRAINER: entry, **spec.files}.items():
            if self._store.object(one.sha256) is None:
                self._store.keep(aside / name, one)
        self._learned_from(content)
        shutil.rmtree(aside)
        return spec

    def _aside(self, what: str) -> Path:
        """Return a folder that a fetch which was cut is continued in; the next start removes it."""
        folder = self._server_dir.store / f"{ASIDE}{what}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _fetch(self, aside: Path, files: Mapping[str, FileEntry]) -> None:
        """Fetch what neither the store nor an earlier try has."""
        for name, entry in files.items():
            if self._store.object(entry.sha256) is None and not (aside / name).exists():
                self._above.fetch(entry.sha256, entry.size_bytes, aside / name)

    def _content(self, aside: Path, name: str, entry: FileEntry) -> bytes:
        path = self._store.object(entry.sha256) or aside / name
        require_file(path, entry)
        return path.read_bytes()

    def _learned_from(self, trainer: bytes) -> None:
        """Keep trainer.json where the server's parts look for what is trained."""
        file = self._server_dir.model / TRAINER
        if not file.exists() or file.read_bytes() != trainer:
            write_durably(file, trainer)
