"""`edge-agent predict` over tables of texts, with a real engine."""

import csv
import io
import json
import math
import sys
from pathlib import Path

import cv2
import pytest

sys.path.append(str(Path(__file__).parent))
from letters_workload import TINY, install

from edge_agent.examples.source import SourceSpec
from edge_agent.models.predict import run_predict
from edge_agent.models.predict_options import PredictOptions
from fleet_model.engine import open_engine
from fleet_model.errors import FrameError, SettingsError
from fleet_model.tables.columns import Columns

pytestmark = pytest.mark.base

LABELS = ("billing", "repair", "other")
TEXTS = [f"ticket {'x' * (n % 7)} number {n * 37 % 101}, please" for n in range(30)]
ROWS = [(f"T-{n}", text, LABELS[n % 3]) for n, text in enumerate(TEXTS)]


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "site")
    return install(tmp_path / "site", tmp_path / "bundle")


@pytest.fixture
def run(bundle):
    """Return (summary, text on stdout) of one call."""

    def call(path, **options):
        stdout = io.StringIO()
        wanted = PredictOptions(**{"path": path, "bundle": bundle, **options})
        return run_predict(wanted, stdout), stdout.getvalue()

    return call


def table(path, rows=ROWS, head=("id", "text", "label")):
    with path.open("w", newline="") as out:
        csv.writer(out).writerows([head, *rows])
    return path


@pytest.fixture
def expected(bundle):
    """Return what the engine says of a text: class -> score, the best first."""
    engine = open_engine(bundle)
    return lambda text: {one.label: one.score for one in engine.answer(text).predictions}


def test_every_row_is_told_with_its_id_the_label_and_a_probability_a_class(run, tmp_path, expected):
    summary, text = run(table(tmp_path / "tickets.csv"))
    rows = list(csv.DictReader(io.StringIO(text)))
    scores = [f"p_{label}" for label in LABELS]
    assert list(rows[0]) == ["file", "row", "id", "label", "score", "truth", *scores]
    for n, (row, (id, raw, truth)) in enumerate(zip(rows, ROWS, strict=True)):
        answer = expected(raw)
        assert (row["file"], row["row"], row["id"]) == ("tickets.csv", str(n + 2), id)
        assert (row["label"], row["truth"]) == (next(iter(answer)), truth)
        told = {label: float(row[f"p_{label}"]) for label in LABELS}
        assert told == pytest.approx(answer, abs=1e-6)
        assert float(row["score"]) == max(told.values())
    right = sum(row["label"] == row["truth"] for row in rows)
    assert summary.confusion.count == 30
    assert summary.confusion.accuracy == right / 30
    assert 0 < summary.confusion.macro_f1 < 1
    assert summary.sentence().startswith("version 1: 30 texts; accuracy 0.")
    assert summary.sentence().endswith(
        " of 30 labelled texts; text in 'text' (by its name), labels in 'label' (by the fleet's "
        "labels)"
    )


def test_json_has_the_same_cells_and_says_what_was_read(run, tmp_path):
    _, rows = run(table(tmp_path / "tickets.csv"))
    _, text = run(tmp_path / "tickets.csv", json=True)
    found = json.loads(text)
    assert [one["id"] for one in found["predictions"]] == [id for id, *_ in ROWS]
    first = next(csv.DictReader(io.StringIO(rows)))
    told = {name: str(value) for name, value in found["predictions"][0].items()}
    assert told == first
    assert math.isclose(
        sum(found["predictions"][0][f"p_{name}"] for name in LABELS), 1, abs_tol=1e-5
    )
    assert found["summary"]["notes"] == [
        "text in 'text' (by its name), labels in 'label' (by the fleet's labels)"
    ]
    assert (found["summary"]["frames"], found["summary"]["labelled"]) == (30, 30)


def test_jsonl_parquet_and_a_folder_give_the_answers_of_the_csv(run, tmp_path):
    arrow = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    answers = [run(table(tmp_path / "t.csv"))[1]]
    objects = [dict(zip(("id", "text", "label"), row, strict=True)) for row in ROWS]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, objects)))
    arrow.write_table(pa.Table.from_pylist(objects), tmp_path / "t.parquet")
    (tmp_path / "set").mkdir()
    table(tmp_path / "set" / "a.csv", ROWS[:10])
    table(tmp_path / "set" / "b.csv", ROWS[10:])
    answers += [run(tmp_path / name)[1] for name in ("t.jsonl", "t.parquet", "set")]
    tables = [list(csv.DictReader(io.StringIO(text))) for text in answers]
    assert [one[10]["file"] for one in tables] == ["t.csv", "t.jsonl", "t.parquet", "set/b.csv"]
    assert [one[10]["row"] for one in tables] == ["12", "11", "11", "2"]
    for one in tables:
        for row in one:
            del row["file"], row["row"]
    assert tables[1:] == tables[:1] * 3


def test_rows_that_cannot_be_read_are_told_and_labels_that_the_model_lacks_counted(run, tmp_path):
    rows = [
        *ROWS[:4],
        ("T-x", "", "repair"),
        ("T-y", "who knows this", "Repair"),
        ("T-z", "no", ""),
    ]
    path = table(tmp_path / "t.csv", rows)
    path.write_text(path.read_text() + "one,two\n")
    summary, text = run(path)
    found = list(csv.DictReader(io.StringIO(text)))
    assert [row["id"] for row in found] == ["T-0", "T-1", "T-2", "T-3", "T-y", "T-z"]
    assert [row["truth"] for row in found[4:]] == ["", ""]
    assert summary.skipped == {"without a text": 1, "wrong number of fields": 1}
    assert summary.losses == (
        "1 x without a text, first t.csv line 6; 1 x wrong number of fields, first t.csv line 9"
    )
    assert summary.unknown_labels == {"Repair": 1}
    summary, _ = run(
        path, source=SourceSpec(name="texts", options={"aliases": {"Repair": "repair"}})
    )
    assert (summary.unknown_labels, summary.labelled) == ({}, 5)


def test_a_table_without_labels_has_answers_and_no_scores(run, tmp_path):
    path = table(tmp_path / "t.csv", [(text,) for text in TEXTS], ["body"])
    summary, text = run(path)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {(row["id"], row["truth"]) for row in rows} == {("", "")}
    assert summary.labelled == 0
    assert summary.sentence() == "version 1: 30 texts; text in 'body' (by its name), no labels"
    with pytest.raises(FrameError, match=r"^t\.csv: it is not clear which column has the labels"):
        run(path, confusion=tmp_path / "c.png")


def test_columns_may_be_named_and_the_matrix_is_drawn(run, tmp_path):
    rows = [(f"about {n}", text, "x", label) for n, (_, text, label) in enumerate(ROWS)]
    path = table(tmp_path / "t.csv", rows, ("subject", "body", "label", "queue"))
    summary, _ = run(
        path, columns=Columns(("subject", "body"), "queue"), confusion=tmp_path / "c.png"
    )
    assert summary.notes == [
        "text in 'subject' and 'body' (as named), labels in 'queue' (as named)"
    ]
    assert min(cv2.imread(str(tmp_path / "c.png")).shape[:2]) > 300
    with pytest.raises(FrameError, match=r"^t\.csv: has no column 'dept'; it has 'subject', 'body"):
        run(path, columns=Columns((), "dept"))


def test_a_guessed_encoding_is_told_and_is_no_loss(run, tmp_path):
    (tmp_path / "t.csv").write_bytes("text,label\nune journée,repair\n".encode("latin-1"))
    summary, text = run(tmp_path / "t.csv")
    assert summary.notes[1] == (
        "1 lines: text not in UTF-8, first t.csv line 2; read as Windows-1252"
    )
    assert (summary.losses, len(text.splitlines())) == ("", 2)


def test_the_own_texts_of_a_robot_are_predicted_without_a_path(run, tmp_path):
    path = table(tmp_path / "t.csv", [*ROWS, ("T-y", "unlabelled text", "")])
    source = SourceSpec(name="texts", options={"paths": [str(path)]})
    summary, text = run(None, source=source)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["file"], row["row"]) for row in rows] == [("t.csv", str(n)) for n in range(2, 32)]
    assert (summary.labelled, summary.left_out) == (30, {"unlabelled": 1})
    assert not (tmp_path / "state").exists()


def test_what_does_not_go_together_is_one_line_before_the_work(run, image_folder, tmp_path):
    path = table(tmp_path / "t.csv")
    with pytest.raises(SettingsError, match=r"^t\.csv: holds texts in a table, and this model tak"):
        run(path, bundle=TINY)
    with pytest.raises(SettingsError, match="--annotate and --coco are of pictures"):
        run(path, annotate=tmp_path / "out")
    with pytest.raises(SettingsError, match=r"is a table; name the column of its labels with --la"):
        run(path, label_topic="/labels")
    folder = image_folder("signs", {"billing": 2})
    with pytest.raises(SettingsError, match=r"^signs: is no table, so it has no columns to name$"):
        run(folder, columns=Columns(("body",)))
    with pytest.raises(FrameError, match=r"^signs: no frame can be read: .*expected a text"):
        run(folder)
    (tmp_path / "empty.csv").write_text("text,label\n,repair\n ,repair\n")
    with pytest.raises(FrameError, match=r"^empty\.csv: no column looks like texts"):
        run(tmp_path / "empty.csv")
    with pytest.raises(FrameError, match=r"no text can be read: 2 x without a text, first empty"):
        run(tmp_path / "empty.csv", columns=Columns(("text",)))
