import cv2
import pytest

from cloud_server.models.release_log import Release
from cloud_server.report import run_comparison as comparison
from cloud_server.report.run_comparison import Point, curve_of
from cloud_server.runs.conditions import Conditions
from cloud_server.state.round_record import RobotRecord, RoundRecord
from fleet_model.errors import SettingsError
from fleet_model.protocol.outcome import ACCEPTED, NO_REPLY, Outcome

REFUSED = Outcome("refused", "too long")


def record(number, value, outcomes=(ACCEPTED, ACCEPTED), seconds=2.0, measure="accuracy"):
    robots = tuple(
        RobotRecord(
            name=f"r{n}", site="hall", outcome=outcome,
            update_bytes=500_000 * (outcome is not NO_REPLY),
        )
        for n, outcome in enumerate(outcomes)
    )  # fmt: skip
    return RoundRecord(
        run="a", round=number, version=10 + number, seconds=seconds, robots=robots,
        metrics={f"{measure}_before": value, f"{measure}_after": 0.99},
    )  # fmt: skip


def release(version, **about):
    return Release(version=version, kind="published", at=1.0, by="run a", **about)


def conditions(from_round=1, epochs=5, rule="fedavg", **versions):
    settings = {"training": {"epochs": epochs}, "aggregation": {"rule": rule}}
    return Conditions(
        from_round=from_round, settings=settings, versions={"flwr": "1.42", **versions},
        trainer="ab" * 32,
    )  # fmt: skip


def curve(run, *values, seconds=2.0, held=(), last=None):
    records = [record(n, value, seconds=seconds) for n, value in enumerate(values, start=1)]
    made = None if last is None else release(10 + len(values), after={"accuracy": last})
    return curve_of(run, records, made, held)


def test_each_point_has_what_it_cost_until_the_model_was_there():
    """A refused update travelled, too; who never answered sent nothing."""
    records = [record(1, 0.2), record(2, 0.5, (ACCEPTED, REFUSED, NO_REPLY), 3.0)]

    made = curve_of("a", records, release(12, after={"accuracy": 0.7}), [])

    assert made.measured["accuracy"] == [
        Point(0, 0.0, 0.0, 0.2), Point(1, 1.0, 2.0, 0.5), Point(2, 2.0, 5.0, 0.7),
    ]  # fmt: skip
    assert (made.rounds, made.megabytes, made.seconds, made.robots) == (2, 2.0, 5.0, 2)


def test_the_measures_of_another_model_than_the_last_are_not_its_own():
    made = curve_of("a", [record(1, 0.2)], release(9, after={"accuracy": 0.7}), [])
    again = curve_of("a", [record(1, 0.2)], release(13, of=11, after={"accuracy": 0.7}), [])

    assert len(made.measured["accuracy"]) == 1
    assert again.measured["accuracy"][-1] == Point(1, 1.0, 2.0, 0.7)  # the same, published later


def test_runs_are_compared_at_what_all_have_reached():
    told = comparison.as_json(
        [curve("a", 0.2, 0.6, 0.9), curve("b", 0.2, 0.3, 0.5, last=0.7, seconds=1.0)],
        "accuracy",
        higher=True,
    )

    assert told["target"] == 0.7
    assert [one["until_target"]["rounds"] for one in told["runs"]] == [2, 3]
    assert [one["until_target"]["seconds"] for one in told["runs"]] == [4.0, 3.0]
    assert [one["best"] for one in told["runs"]] == [0.9, 0.7]


def test_of_a_loss_the_lower_is_better():
    runs = [
        curve_of(name, [record(n, v, measure="loss") for n, v in enumerate(values, 1)], None, [])
        for name, values in (("a", [2.0, 0.5]), ("b", [2.0, 1.0]))
    ]

    told = comparison.as_json(runs, "loss", higher=False)

    assert (told["target"], [one["until_target"]["rounds"] for one in told["runs"]]) == (
        1.0,
        [1, 1],
    )


def test_the_measure_is_the_first_of_the_workload_that_all_have():
    a, b = curve("a", 0.2), curve("b", 0.3)
    a.measured["loss"], b.measured["loss"] = [Point(0, 0, 0, 1.0)], [Point(0, 0, 0, 1.0)]
    a.measured["f1"] = [Point(0, 0, 0, 1.0)]

    assert comparison.measure_of([a, b], ["f1", "loss", "accuracy"]) == "loss"
    assert comparison.measure_of([a, b], [], "accuracy") == "accuracy"
    with pytest.raises(
        SettingsError, match="--measure f1: these runs have accuracy, loss in common"
    ):
        comparison.measure_of([a, b], [], "f1")
    with pytest.raises(SettingsError, match="run c: no robot has measured anything in it"):
        comparison.measure_of([a, curve_of("c", [], None, [])], [])


def test_what_differs_is_named_with_all_that_it_was():
    runs = [
        curve("a", 0.2, held=[conditions(epochs=3), conditions(4, epochs=7)]),
        curve("b", 0.2, held=[conditions(rule="median", numpy="2.4")]),
        curve("old", 0.2),
    ]

    assert comparison.differences(runs) == {
        "aggregation.rule": ['"fedavg"', '"median"', ""],
        "training.epochs": ["3, then 7", "5", ""],
        "version of numpy": ["", "2.4", ""],
    }


def test_the_picture_has_a_panel_for_rounds_bytes_and_seconds(tmp_path):
    runs = [curve("20260101-000000", 0.2, 0.6, 0.9), curve("20260102-000000", 0.2, 0.3, last=0.7)]

    comparison.draw(tmp_path / "runs.png", runs, "accuracy")

    assert cv2.imread(str(tmp_path / "runs.png")).shape == (170 + 3 * 470, 1600, 3)
