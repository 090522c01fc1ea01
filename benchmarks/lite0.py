"""A bundle as robots have it: EfficientNet-Lite0 at 128 pixels, as a new server publishes it."""

import shutil
from pathlib import Path

from benchmarks.measure import say
from benchmarks.services import run_python


def lite0_bundle(work: Path, *options: str) -> Path:
    """Return a bundle directory below `work`, made by `cloud-server init` if it is not there."""
    if not (work / "bundle").exists():
        say(f"{work.name}: making server directory and bundle")
        shutil.rmtree(work, ignore_errors=True)
        labels = ("--labels", "circle,square,star,triangle")
        run_python("-m", "cloud_server.cli", "init", work / "server", *labels, *options)
        unpack(work / "server" / "store", work / "bundle")
    return work / "bundle"


def unpack(store: Path, bundle: Path) -> None:
    """Write version 0 of a server's store as a bundle directory."""
    from cloud_server.state.model_store import DirectoryStore
    from fleet_model.bundle import to_json

    aside = bundle.with_suffix(".part")
    aside.mkdir()
    published = DirectoryStore(store)
    (manifest,) = published.versions()
    for name, entry in manifest.files.items():
        published.fetch(entry.sha256, entry.size_bytes, aside / name)
    (aside / "manifest.json").write_bytes(to_json(manifest))
    aside.rename(bundle)
