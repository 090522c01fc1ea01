"""What was told comes back from disk, all of it."""

import json

import pytest

from edge_agent.training.profiles.told import TOLD, Told
from fleet_model.errors import TrainingError


def test_all_that_was_ever_told_comes_back(tmp_path):
    first, second, third = (frozenset(of) for of in ("abc", "abcd", "cde"))
    for names in (first, second, second, third):
        told = Told.read(tmp_path)
        told.add({("board", ""): names, ("board", "arms"): first})
        told.save(tmp_path)
    told = Told.read(tmp_path)
    assert told.last == {("board", ""): third, ("board", "arms"): first}
    assert told.ever == {first, second, third}
    assert json.loads((tmp_path / TOLD).read_text()) == [
        ["board", "", ["a", "b", "c"], []],
        ["board", "arms", ["a", "b", "c"], []],
        ["board", "", ["d"], []],
        ["board", "", ["e"], ["a", "b"]],
    ]


def test_a_disk_that_keeps_nothing_is_told(tmp_path):
    (tmp_path / "sums").write_text("in the way")
    told = Told()
    told.add({("board", ""): frozenset("a")})
    with pytest.raises(TrainingError, match="no profile is told, for what was told cannot be kept"):
        told.save(tmp_path / "sums")


@pytest.mark.parametrize("text", ["[[1]]", "{", "7", '[["board", "", 3, []]]', "\udcff"])
def test_damage_is_told(tmp_path, text):
    (tmp_path / TOLD).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(TrainingError, match="it is not known what was told before"):
        Told.read(tmp_path)
