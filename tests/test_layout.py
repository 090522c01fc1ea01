"""A newcomer finds the room: no folder is a list too long to read, no file a book."""

from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("fleet_model", "edge_agent", "cloud_server", "site_relay")
MAX_FILES, MAX_LINES = 16, 350
ROS_PACKAGE = "ros2_ws/src/edge_perception/edge_perception"  # colcon runs its tests, beside it
FILES = [
    file for folder in (*PACKAGES, ROS_PACKAGE) for file in sorted((ROOT / folder).rglob("*.py"))
]
# Words of a private language. The field has words of its own for all of these.
UNWANTED = ("conduct", "sighting", "doorkeeper", "boards", "utils", "common", "helpers", "misc")


def test_no_folder_holds_more_files_than_a_newcomer_reads_at_a_glance():
    folders = Counter(str(file.parent.relative_to(ROOT)) for file in FILES)
    assert not {folder: n for folder, n in folders.items() if n > MAX_FILES}


def test_no_file_is_longer_than_one_story():
    lengths = {str(f.relative_to(ROOT)): len(f.read_text().splitlines()) for f in FILES}
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_LINES}


@pytest.mark.parametrize("word", UNWANTED)
def test_no_module_is_named_by_a_word_that_says_nothing(word):
    named = [file for file in FILES if word in file.stem or word in file.parent.name]
    assert not named


@pytest.mark.parametrize("package", PACKAGES)
def test_tests_lie_where_their_modules_do(package):
    """A test file mirrors a module, or stands in the folder of the package that it tests."""
    folders = {file.parent.relative_to(ROOT) for file in FILES}
    special = {Path("cloud_server/killed")}  # one process that dies, over many modules
    stray = [
        file
        for file in sorted((ROOT / "tests" / package).rglob("test_*.py"))
        if file.parent.relative_to(ROOT / "tests") not in folders | special
    ]
    assert not stray


def test_every_decision_has_a_number_of_its_own():
    files = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    numbers = [int(file.name[:4]) for file in files]
    assert len(numbers) == len(set(numbers)) > 50
    assert [int(f.read_text().split()[1].rstrip(".")) for f in files] == numbers
