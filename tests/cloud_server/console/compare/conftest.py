"""Two bundles, and the page of `cloud-server compare`."""

import json
import shutil
from pathlib import Path

import pytest
from compared_models import Page

from fleet_model.bundle import MANIFEST

TINY = Path(__file__).parents[3] / "data" / "tiny_bundle"


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Return two folders: the second has the same engines, and names their classes otherwise."""
    folder = tmp_path_factory.mktemp("bundles")
    for name, labels in (("teacher", None), ("student", ["star", "circle", "square"])):
        shutil.copytree(TINY, folder / name)
        manifest = json.loads((folder / name / MANIFEST).read_text())
        if labels:
            manifest["labels"] = manifest["workload"]["config"]["labels"] = labels
        (folder / name / MANIFEST).write_text(json.dumps(manifest))
    return folder / "teacher", folder / "student"


@pytest.fixture(scope="session")
def page(bundles):
    one = Page(*bundles)
    yield one
    assert one.end() == 0
    assert "Traceback" not in one.process.stderr.read().decode()
