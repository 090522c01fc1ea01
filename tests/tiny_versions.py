"""A robot's folder of models, out of the smallest bundle that there is."""

import shutil
from pathlib import Path

from fleet_model.bundle import MANIFEST, read_bundle, to_json

TINY = Path(__file__).parent / "data" / "tiny_bundle"


def write_versions(folder, *versions):
    """Write these versions of the bundle into `folder`/versions; there is no `current` yet."""
    for version in versions:
        bundle = shutil.copytree(TINY, folder / "versions" / str(version))
        manifest = read_bundle(TINY).model_copy(update={"version": version})
        (bundle / MANIFEST).write_bytes(to_json(manifest))
    return folder
