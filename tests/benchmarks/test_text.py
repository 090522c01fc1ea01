"""The parts of benchmarks/text.py that can be wrong without anyone noticing."""

import csv

import pytest

from benchmarks import text_cost, vader
from benchmarks.text import result
from benchmarks.vader import Sentence

SENTENCES = {
    "film": [
        Sentence(f"film-{n}", f"a film number {n} of many", (-1.0, 1.0)[n % 2]) for n in range(600)
    ],
}


def scores(federated, central, *single):
    return {
        "federated": [{"f1": federated, "untrained_f1": 0.7}],
        "central": [{"f1": central, "untrained_f1": 0.6}],
        "single": [{"f1": one, "untrained_f1": 0.5} for one in single],
    }


FOUND = [scores(0.8, 0.81, 0.7, 0.6, 0.8), scores(0.78, 0.81, 0.7, 0.7, 0.7)]
ENGINES = {
    "accuracy": {"eager": 0.8, "int8": 0.803, "fp32": 0.8},
    "milliseconds": {"eager": 9.0, "int8": 3.0, "fp32": 4.5},
}


def cost(**values):
    return {
        "peak_mb": 600.0, "first_s": 20.0, "round_s": 5.0, "step_ms": 200.0, "update_bytes": 1e6,
    } | values  # fmt: skip


COSTS = {
    "ours": cost(),
    "stock": cost(peak_mb=900.0, round_s=20.0, update_bytes=1.2e6),
    "plain": cost(update_bytes=92e6),
    "ours_long": cost(round_s=50.0),
    "stock_long": cost(round_s=80.0),
}


def told(**others):
    return result(FOUND, ENGINES, {**COSTS, **others}, limited=True)


def test_the_fleet_beside_single_clients_and_all_texts_in_one_place():
    figures = told().figures
    assert figures["federated_f1"] == pytest.approx(0.79)
    assert figures["gap_to_central"] == pytest.approx(0.02)
    assert figures["gap_to_central_most"] == pytest.approx(0.03)
    assert figures["gain"] == pytest.approx(0.09)
    assert figures["untrained_gain"] == pytest.approx(0.2)
    assert figures["int8_points"] == pytest.approx(0.003)


def test_ratios_are_above_one_where_a_client_of_ours_costs_less():
    ratios = {one.key: one.ratio for one in told().comparisons}
    assert ratios == pytest.approx(
        {
            "bytes_lora": 92.0, "bytes_adapter_only": 1.2, "peak_rss": 1.5, "round_time": 4.0,
            "first_round": 1.0, "step_time": 1.0, "latency_onnx": 3.0, "latency_onnx_fp32": 2.0,
            "round_time_200_steps": 1.6,
        }
    )  # fmt: skip


def test_few_texts_are_held_against_no_limit():
    short = {name: value for name, value in COSTS.items() if not name.endswith("_long")}
    quick = result(FOUND, ENGINES, short, limited=False)
    assert not quick.limits
    assert "round_time_200_steps" not in {one.key for one in quick.comparisons}
    assert {one.key for one in told().limits} == {"gap_to_central", "int8_points"}


def test_rows_of_the_table_differ_and_fill_the_length(tmp_path, monkeypatch):
    monkeypatch.setattr(text_cost, "read_vader", lambda: SENTENCES)
    text_cost.write_table(tmp_path / "t.csv", 20)
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["text"] for row in rows}) == 20
    assert [row["label"] for row in rows].count("positive") == 10
    assert min(len(row["text"].split()) for row in rows) >= text_cost.LENGTH
    assert {row["label"] for row in rows} == set(vader.LABELS)


def test_a_round_is_timed_between_closings_and_a_step_within_its_process(tmp_path):
    stamps = tmp_path / "steps.txt"
    stamps.write_text("7 1.0 9.0\n7 1.0 9.2\n7 1.0 9.4\n8 20.0 31.0\n8 20.0 31.2\n")
    found = text_cost._cost(500.0, [0.0, 12.0, 15.0, 19.0], stamps, 10.0)
    assert found.first_s == pytest.approx(12.0)
    assert found.round_s == pytest.approx(3.5)
    assert found.step_ms == pytest.approx(200.0)
    assert text_cost._cost(500.0, [0.0, 12.0], stamps, 10.0).round_s == pytest.approx(12.0)
