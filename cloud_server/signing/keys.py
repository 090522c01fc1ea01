"""The keys that sign models: one file each, that only its owner may read."""

from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner

from fleet_model.durable import remove_asides, write_durably
from fleet_model.errors import SettingsError

PREFIX, SUFFIX = "signing-", ".key"  # in secrets/; between them the start of the key's id
SHOWN = 8  # characters of a key's id


class OfflineKeys:
    """Keys that a person holds: encrypted files in a folder that is not on the server."""

    def __init__(self, folder: Path, passphrase: Callable[[str], str]) -> None:
        """Read nothing yet.

        Args:
            folder: of the keys.
            passphrase: asks for that of a file, by its name.
        """
        self._folder, self._passphrase = folder, passphrase

    def make(self, name: str) -> CryptoSigner:
        """Return a key of a file; it is made if there is none, and durable.

        Raises:
            SettingsError: there is one, and its passphrase is another.
        """
        file = self._folder / f"{name}{SUFFIX}"
        if file.exists():
            return self.load(name)
        signer = CryptoSigner.generate_ed25519()
        key = load_pem_private_key(signer.private_bytes, password=None)
        word = self._passphrase(file.name).encode()
        locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(word))
        write_durably(file, locked, mode=0o600)
        return signer

    def load(self, name: str) -> CryptoSigner:
        """Return a key; raises SettingsError if it is not there, or its passphrase is another."""
        file = self._folder / f"{name}{SUFFIX}"
        try:
            word = self._passphrase(file.name).encode()
            return CryptoSigner(load_pem_private_key(file.read_bytes(), password=word))
        except OSError as error:
            reason = error.strerror or str(error)
        except (ValueError, TypeError):
            reason = "the passphrase is another, or it is damaged"
        raise SettingsError(f"{file}: cannot be used ({reason})")


class OnlineKeys:
    """Ed25519 keys that the server signs with by itself. They are not encrypted: it has to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> Mapping[str, CryptoSigner]:
        """Return key id -> signer; more than one after a change of keys that was cut short.

        Raises:
            SettingsError: a file is not readable, or no such key.
        """
        signers = map(_load, sorted(self._folder.glob(f"{PREFIX}*{SUFFIX}")))
        return {signer.public_key.keyid: signer for signer in signers}

    def make(self) -> CryptoSigner:
        """Make a key; it is durable before anything is signed with it."""
        signer = CryptoSigner.generate_ed25519()
        write_durably(self._file(signer.public_key.keyid), signer.private_bytes, mode=0o600)
        return signer

    def remove(self, keyid: str) -> None:
        """Delete a key that nothing is signed with any more; one that comes back goes again."""
        self._file(keyid).unlink()

    def tidy(self) -> None:
        """Remove halves of keys that killed processes have left."""
        remove_asides(self._folder)

    def _file(self, keyid: str) -> Path:
        return self._folder / f"{PREFIX}{keyid[:SHOWN]}{SUFFIX}"


def _load(file: Path) -> CryptoSigner:
    try:
        return CryptoSigner(load_pem_private_key(file.read_bytes(), password=None))
    except OSError as error:
        reason = error.strerror or str(error)
    except (ValueError, TypeError):  # no PEM, a passphrase, or a key of another kind
        reason = "it is no private key without a passphrase"
    raise SettingsError(
        f"{file}: cannot be read ({reason}); let the server's user read it, or restore it from a "
        "backup"
    )
