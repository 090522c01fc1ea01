import json
import logging

import pytest

from cloud_server.runs.conditions import note, read
from cloud_server.state.settings import ServerSettings

pytestmark = pytest.mark.base
AB = "ab" * 32


def settings(**training):
    return ServerSettings.model_validate({"training": training})


def test_what_holds_is_written_down_once(tmp_path):
    note(tmp_path, 1, settings(epochs=3), AB)
    note(tmp_path, 2, settings(epochs=3), AB)  # resumed

    (held,) = read(tmp_path)
    assert (held.from_round, held.trainer) == (1, AB)
    assert held.settings["training"]["epochs"] == 3
    assert held.settings.keys() == {
        "training",
        "start",
        "rounds",
        "aggregation",
        "privacy",
        "checks",
    }
    assert {"python", "fleetlearn", "numpy"} <= held.versions.keys()
    assert held.flat()["training.epochs"] == "3"


def test_a_change_holds_from_its_round_on(tmp_path):
    note(tmp_path, 1, settings(epochs=3), AB)
    note(tmp_path, 4, settings(epochs=5), AB)
    note(tmp_path, 4, settings(epochs=6), AB)  # killed before round 4 closed, and changed again

    assert [(one.from_round, one.settings["training"]["epochs"]) for one in read(tmp_path)] == [
        (1, 3), (4, 6),
    ]  # fmt: skip


@pytest.mark.parametrize("content", [b"{", b"[1]", b'[{"from_round": 1}]'])
def test_a_damaged_file_is_left_out_with_a_line_in_the_log(tmp_path, content, caplog):
    (tmp_path / "conditions.json").write_bytes(content)

    with caplog.at_level(logging.WARNING):
        assert read(tmp_path) == ()

    assert "conditions.json is left out" in caplog.text
    note(tmp_path, 2, settings(), AB)
    assert json.loads((tmp_path / "conditions.json").read_text())[0]["from_round"] == 2


def test_a_run_of_an_earlier_release_has_none(tmp_path):
    assert read(tmp_path) == ()
