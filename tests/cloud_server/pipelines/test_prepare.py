"""Tables become texts for training and validation; what is wrong is refused in one line."""

import csv
import json

import pytest

from cloud_server.pipelines.options import PipelineOptions, pipeline_options
from cloud_server.pipelines.prepare import prepare, read_about, read_texts
from fleet_model.errors import FrameError, SettingsError


@pytest.fixture
def table(tmp_path):
    def write(rows, columns=("text", "label"), name="tickets.csv"):
        path = tmp_path / "data" / name
        path.parent.mkdir(exist_ok=True)
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([columns, *rows])
        return path

    return write


@pytest.fixture
def prepared(tmp_path):
    """Return prepared(path, **options) -> about, and what was told."""

    def run(path, **options):
        into, told = tmp_path / "prepared", []
        into.mkdir()
        prepare(path, PipelineOptions(**options), into, told.append)
        return read_about(into), told, {s: [*read_texts(into, s)] for s in ("train", "validation")}

    return run


ROWS = [(f"the ticket number {i}", ("billing", "shipping")[i % 2]) for i in range(40)]


def test_a_missing_validation_part_is_made_and_told(table, prepared):
    about, told, texts = prepared(table(ROWS))
    assert about["validation"] == "made"
    assert any("no validation part: 20% of the texts are held out" in one for one in told)
    assert sorted(texts["train"] + texts["validation"]) == sorted(ROWS)
    assert not {t for t, _ in texts["train"]} & {t for t, _ in texts["validation"]}
    assert 2 <= len(texts["validation"]) <= 16


def test_a_validation_part_of_the_data_is_taken(table, prepared):
    table(ROWS[:30], name="train.csv")
    path = table(ROWS[30:], name="validation.csv").parent
    about, told, texts = prepared(path)
    assert about["validation"] == "of the data"
    assert not any("held out" in one for one in told)
    assert texts["validation"] == ROWS[30:]


def test_what_is_left_out_is_counted_and_told(table, prepared):
    rows = [*ROWS, ("nobody knows", ""), ("both", "billing"), ("both", "shipping")]
    about, told, texts = prepared(table(rows))
    assert about["left_out"] == {"without a label": 1, "of a text that has several labels": 2}
    assert any("1 x without a label, first tickets.csv line 42" in one for one in told)
    assert len(texts["train"] + texts["validation"]) == 40


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        (ROWS, {"text": ("body",)}, "has no column 'body'; it has"),
        (ROWS, {"label": "queue"}, "has no column 'queue'; it has"),
        (ROWS, {"labels": ("billing", "sales")}, "line 3: has the label 'shipping', which is none"),
        (ROWS, {"labels": ("billing", "shipping", "x")}, "no row has the label 'x'"),
        (ROWS[::2], {}, "has one label, 'billing'; a classifier needs two"),
        ([(t, t) for t, _ in ROWS], {"label": "label"}, "40 rows have 40 different labels"),
    ],
)
def test_what_cannot_be_learned_is_refused_in_one_line(table, prepared, rows, options, words):
    with pytest.raises(FrameError) as refused:
        prepared(table(rows), **options)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_label_of_the_validation_part_alone_is_refused(table, prepared):
    table(ROWS[:30], name="train.csv")
    path = table([*ROWS[30:], ("a new one", "sales")], name="validation.csv").parent
    with pytest.raises(FrameError, match="'sales' is in the validation part alone"):
        prepared(path)


def test_the_lines_are_json_with_text_and_label(table, prepared, tmp_path):
    prepared(table(ROWS))
    first = (tmp_path / "prepared" / "train.jsonl").read_text().splitlines()[0]
    assert set(json.loads(first)) == {"text", "label"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"epochs": 0}, "--epochs 0: input should be greater than or equal to 1"),
        ({"learning_rate": float("nan")}, "--learning-rate nan"),
        ({"evaluate": "often"}, "--evaluate often: input should be 'no', 'epoch' or 'steps'"),
        ({"labels": ("a", "a")}, "labels: expected at least two different names"),
    ],
)
def test_a_wrong_option_is_refused_by_the_name_of_its_flag(given, words):
    with pytest.raises(SettingsError) as refused:
        pipeline_options(**given)
    assert words in str(refused.value)
