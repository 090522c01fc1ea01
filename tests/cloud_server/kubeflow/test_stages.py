"""The stages that train nothing; the others run in test_pipeline.py."""

import json

import pytest

from cloud_server.kubeflow import stages
from cloud_server.kubeflow.options import FleetOptions
from fleet_model.errors import CheckpointError, FrameError, SettingsError


@pytest.fixture
def world(tmp_path):
    """A folder with tables of two sites, and what looks like a base."""
    (tmp_path / "data").mkdir()
    for site in ("books", "games"):
        (tmp_path / "data" / f"{site}.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    return tmp_path


def prepare(world, name, **options):
    into = world / name
    into.mkdir()
    given = FleetOptions(**options)
    found = stages.prepare(str(world / "data"), str(world / "base"), given, into, lambda _: None)
    return into, *found


def test_the_key_is_another_one_for_other_data_another_base_and_other_code(world, monkeypatch):
    _, measures, key = prepare(world, "first")
    assert measures == {"sites": 2, "tables": 2}
    (world / "data").rename(world / "moved")
    (world / "moved").rename(world / "data")
    assert prepare(world, "again")[2] == key
    with (world / "data" / "books.jsonl").open("a") as stream:
        stream.write('{"prompt": "c", "completion": "d"}\n')
    other = prepare(world, "data2")[2]
    (world / "base" / "config.json").write_text("{ }")
    third = prepare(world, "base2")[2]
    monkeypatch.setattr(stages, "_SOURCES", ("fleet_model",))
    assert len({key, other, third, prepare(world, "code2")[2]}) == 4


def test_clients_are_of_each_site(world):
    prepared, *_ = prepare(world, "prepared")
    assert stages.clients(prepared, FleetOptions(clients=2), world / "who") == {"clients": 4}
    told = json.loads((world / "who" / "clients.json").read_text())
    assert [one["name"] for one in told] == ["books-1", "books-2", "games-1", "games-2"]
    assert told[3] == {
        "name": "games-2", "site": "games", "tables": ["tables/games/games.jsonl"],
        "part": 1, "parts": 2,
    }  # fmt: skip


def test_what_cannot_be_prepared_is_told(world):
    with pytest.raises(SettingsError, match="--sites 3"):
        prepare(world, "a", sites=3)
    (world / "base" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds no config\.json"):
        prepare(world, "b")
    (world / "data").rename(world / "elsewhere")
    with pytest.raises(FrameError, match="no such file or folder"):
        prepare(world, "c")


def test_one_client_is_no_fleet(world):
    (world / "data" / "games.jsonl").unlink()
    prepared, *_ = prepare(world, "one")
    with pytest.raises(SettingsError, match="1 clients are no fleet"):
        stages.clients(prepared, FleetOptions(clients=1), world / "who")
