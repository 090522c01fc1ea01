"""What it costs a robot to find out which model is signed, where a store has 1,000 versions."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

from benchmarks.measure import median
from cloud_server.signing.keys import OnlineKeys
from cloud_server.signing.repository import SignedStore
from cloud_server.state.model_store import DirectoryStore
from edge_agent.link.tuf_client import refresh
from fleet_model.bundle import parse_manifest, sha256_of, to_json
from fleet_model.protocol.proof import utc_now
from fleet_model.protocol.routes import target_of

VERSIONS, CHANNELS, TURNS = 1000, ("canary", "stable"), 20


def refresh_figures(work: Path, bundle: Path) -> dict[str, float]:
    """Return the bytes of a robot's first refresh after enrolling, and the time of a refresh.

    Neither has the network in it: an answer's head costs a few hundred bytes more. The time is of a
    refresh where nothing is new, the most frequent one: it reads, verifies and asks twice.
    """
    shutil.rmtree(work, ignore_errors=True)
    files = store_of(work / "store", bundle)
    SignedStore(work / "store", OnlineKeys(work / "secrets")).sign(lambda: files, utc_now())
    first = (work / "store" / "metadata" / "1.root.json").read_bytes()
    received = 0

    def get(path: str) -> bytes | None:
        nonlocal received
        file = work / "store" / path
        if not file.exists():
            return None
        content = file.read_bytes()
        received += len(content)
        return content

    held = {"root.json": first}
    target = target_of("stable")
    if refresh(held, [target], "metadata/", get) != {target: sha256_of(files["stable"])}:
        raise RuntimeError("what is signed is not what the channel offers")
    bytes_of_first = received
    seconds = []
    for _ in range(TURNS):
        begin = perf_counter()
        refresh(held, [target], "metadata/", get)
        seconds.append(perf_counter() - begin)
    return {"metadata_kb_1000": bytes_of_first / 1e3, "refresh_ms": 1e3 * median(seconds)}


def store_of(store: Path, bundle: Path) -> Mapping[str, bytes]:
    """Write the manifests of all versions, and return what channels offer of them."""
    manifest = parse_manifest((bundle / "manifest.json").read_bytes())
    (store / "versions").mkdir(parents=True)
    for version in range(VERSIONS):
        content = to_json(manifest.model_copy(update={"version": version}))
        (store / "versions" / f"{version:06d}.json").write_bytes(content)
    files = DirectoryStore(store)
    for number, channel in enumerate(CHANNELS, start=VERSIONS - len(CHANNELS)):
        files.offer(channel, number)
    return {channel: files.latest_bytes(channel) or b"" for channel in CHANNELS}
