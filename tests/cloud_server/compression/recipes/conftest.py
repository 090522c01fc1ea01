"""A small network that knows three colors, pictures of them, and a recipe."""

import pytest
from colored_pictures import COLORS, make_network, write_checkpoint, write_pictures

DISTILLED = """
[data]
folder = "PICTURES"

[[step]]
do = "distill"
epochs = 30
learning_rate = 0.01
mirrored = true

[[step]]
do = "prune"
share = 0.5
among = "each"
epochs = 2
learning_rate = 0.01

[[step]]
do = "quantize"
kinds = ["int8"]
samples = 40

[[step]]
do = "export"

[[step]]
do = "benchmark"
timed = 20
"""


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A folder of 40 pictures of each color."""
    return write_pictures(tmp_path_factory.mktemp("colors") / "pictures")


@pytest.fixture(scope="session")
def narrow_checkpoint(made_once):
    """A .keras file of a network of so few numbers that fewer bits are no gain."""

    def write(folder):
        from cloud_server.compression.recipes.network import Classifier, write_classifier

        folder.mkdir()
        write_classifier(Classifier(make_network(8, 4), COLORS), folder / "narrow.keras")

    return made_once("narrow-network-of-colors", write) / "narrow.keras"


@pytest.fixture(scope="session")
def checkpoint(made_once):
    """A .keras file of a network that has learned the colors, with its labels."""

    def write(folder):
        folder.mkdir()
        write_checkpoint(folder / "teacher.keras", folder / "state")

    return made_once("network-of-colors", write) / "teacher.keras"


@pytest.fixture(scope="session")
def recipe(pictures):
    """The text of a file with all steps."""
    return DISTILLED.replace("PICTURES", str(pictures))
