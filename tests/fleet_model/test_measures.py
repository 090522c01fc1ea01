import pytest

from fleet_model.measures import AFTER, BEFORE, Change, at, changes, finite

pytestmark = pytest.mark.base


def test_measures_are_found_again_by_their_own_names():
    metrics = {**at(BEFORE, {"loss": 0.5, "map50": 0.1}), **at(AFTER, {"map50": 0.4, "loss": 0.25})}

    assert changes({**metrics, "held_out": 3.0}) == {
        "loss": Change(0.5, 0.25),
        "map50": Change(0.1, 0.4),
    }


def test_a_measure_that_one_time_lacks_is_no_change():
    assert changes({"loss_before": 0.5, "accuracy_after": 1.0}) == {}


def test_measures_that_have_no_place_in_json_are_left_out():
    assert finite({"loss": float("nan"), "map50": -float("inf"), "accuracy": 1}) == {
        "accuracy": 1.0
    }
