"""Two bundles, and the page of `cloud-server compare`."""

import json
import shutil
from pathlib import Path

import pytest
from compared_models import Page, shape

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
def shapes(tmp_path_factory):
    """Return a data set of a dozen pictures of three shapes."""
    folder = tmp_path_factory.mktemp("sets") / "shapes"
    for number in range(12):
        label = ("circle", "square", "star")[number % 3]
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{number}.jpg").write_bytes(shape(label, number))
    return folder


@pytest.fixture(scope="session")
def page(bundles, shapes):
    one = Page(*bundles, "--data", shapes)
    yield one
    assert one.end() == 0
    assert "Traceback" not in one.process.stderr.read().decode()
