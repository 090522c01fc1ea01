import csv
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))
from tiny_encoders import texts, write_encoder


@pytest.fixture(scope="session")
def encoder(made_once):
    """A folder of an encoder of a few kilobytes, without a head; needs torch."""
    return made_once("encoder-of-pipelines", write_encoder)


@pytest.fixture
def tickets(tmp_path):
    """A table of 240 texts, "good" or "bad" by one word of each."""
    path = tmp_path / "tickets.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *texts(240)])
    return path
