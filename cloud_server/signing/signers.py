"""Which of the keys that are here a root asks for."""

from collections.abc import Mapping, Sequence

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root

from cloud_server.signing.keys import SHOWN
from fleet_model.errors import SettingsError


def online_key(root: Root) -> str:
    """Return the id of the key that the server signs with."""
    return root.roles["timestamp"].keyids[0]


def of_root(root: Root, signers: Sequence[CryptoSigner]) -> list[CryptoSigner]:
    """Return those that sign roots; SettingsError if they are too few."""
    role = root.roles["root"]
    found = [one for one in signers if one.public_key.keyid in role.keyids]
    if len(found) < role.threshold:
        raise SettingsError(
            f"a root needs {role.threshold} of its {len(role.keyids)} offline keys, {len(found)} "
            "are here; name the folder that has them: --keys KEYS"
        )
    return found


def key_of(root: Root, signers: Mapping[str, CryptoSigner]) -> CryptoSigner:
    """Return the online key; SettingsError if it is not here."""
    keyid = online_key(root)
    if keyid not in signers:
        raise SettingsError(
            f"the key {keyid[:SHOWN]} that signs models is not in secrets/ any more; restore "
            f"signing-{keyid[:SHOWN]}.key from a backup"
        )
    return signers[keyid]
