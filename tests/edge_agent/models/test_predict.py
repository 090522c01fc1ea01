import csv
import io
import json
import sys

import cv2
import pytest

from edge_agent.data.extraction.extract import ExtractOptions, extract
from edge_agent.data.labels import LabelSettings
from edge_agent.models.predict import PredictOptions, run_predict
from fleet_model.errors import FrameError, SettingsError

pytestmark = pytest.mark.base

LABELS = ["circle", "square", "star"]


@pytest.fixture
def run(tmp_path, gray_engine):
    """Return (summary, text on stdout) of one call."""

    def call(path, **options):
        stdout = io.StringIO()
        wanted = PredictOptions(path=path, bundle=tmp_path / "bundle", **options)
        summary = run_predict(wanted, stdout, lambda bundle, precision: gray_engine(LABELS))
        return summary, stdout.getvalue()

    return call


@pytest.fixture
def bag(bags, tmp_path):
    # gray_engine answers circle, square, star, circle, square
    return bags.drive(tmp_path / "r1", ["circle", "square", "square", "circle", ""])


def test_rows_are_csv_on_stdout_with_the_truth_where_it_is_known(bags, bag, run):
    summary, text = run(bag, label_topic=bags.LABELS)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == ["file", "topic", "stamp_ns", "label", "score", "truth"]
    assert [row["label"] for row in rows] == ["circle", "square", "star", "circle", "square"]
    assert [row["truth"] for row in rows] == ["circle", "square", "square", "circle", ""]
    assert (rows[1]["file"], rows[1]["topic"]) == ("r1", bags.CAMERA)
    assert int(rows[1]["stamp_ns"]) == bags.START_NS + 500_000_000
    assert float(rows[1]["score"]) == 0.75
    assert (summary.frames, summary.confusion.count, summary.confusion.accuracy) == (5, 4, 0.75)


def test_json_is_one_object_with_predictions_and_summary(bags, bag, run):
    _, text = run(bag, label_topic=bags.LABELS, json=True)
    found = json.loads(text)
    assert found["predictions"][2] == {
        "file": "r1",
        "topic": bags.CAMERA,
        "stamp_ns": bags.START_NS + 1_000_000_000,
        "label": "star",
        "score": 0.75,
        "truth": "square",
    }
    assert found["predictions"][4]["truth"] is None
    summary = found["summary"]
    assert summary.pop("milliseconds_per_frame") > 0
    assert summary == {
        "frames": 5,
        "labelled": 4,
        "accuracy": 0.75,
        "macro_f1": pytest.approx((1 + 2 / 3 + 0) / 3),
        "confusion": {
            "labels": ["circle", "square", "star"],
            "matrix": [[2, 0, 0], [0, 1, 1], [0, 0, 0]],
        },
        "model_version": 3,
        "skipped": {},
    }


def test_a_bag_without_truth_has_null_scores(bag, run):
    summary = json.loads(run(bag, json=True)[1])["summary"]
    assert (summary["labelled"], summary["accuracy"], summary["macro_f1"]) == (0, None, None)
    assert summary["confusion"] == {"labels": [], "matrix": []}


def test_a_csv_file_takes_the_rows_and_stdout_stays_free_for_json(bag, run, tmp_path):
    file = tmp_path / "new" / "rows.csv"
    _, text = run(bag, csv_file=file)
    assert text == ""
    assert len(file.read_text().splitlines()) == 6
    _, text = run(bag, csv_file=file, json=True)
    assert len(json.loads(text)["predictions"]) == len(file.read_text().splitlines()) - 1


def test_a_csv_file_is_whole_or_the_old_one(bag, run, tmp_path, monkeypatch):
    file = tmp_path / "rows.csv"
    file.write_text("old")
    monkeypatch.setattr("edge_agent.models.predict._annotate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(bag, csv_file=file, annotate=tmp_path / "out")
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_folder_names_are_the_truth_unless_the_model_has_no_such_label(image_folder, run):
    folder = image_folder("signs", {"circle": 2, "moon": 1})
    summary, text = run(folder)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["topic"], row["truth"]) for row in rows] == [
        ("circle/000.png", "circle"),
        ("circle/001.png", "circle"),
        ("moon/000.png", ""),
    ]
    assert summary.confusion.count == 2


def test_the_limit_ends_after_so_many_frames(bag, run):
    summary, text = run(bag, limit=2)
    assert summary.frames == len(text.splitlines()) - 1 == 2


def test_every_frame_gets_an_annotated_picture_and_the_matrix_a_png(bags, bag, run, tmp_path):
    run(bag, label_topic=bags.LABELS, annotate=tmp_path / "out", confusion=tmp_path / "c.png")
    pictures = sorted((tmp_path / "out").iterdir())
    assert pictures[0].name == f"000000_compressed_{bags.START_NS}.jpg"
    assert len(pictures) == 5
    assert cv2.imread(str(pictures[0])).shape == (360 + 54, 480, 3)
    assert min(cv2.imread(str(tmp_path / "c.png")).shape[:2]) > 300


def test_a_matrix_of_unlabelled_frames_is_an_error_after_the_rows(bag, run, tmp_path):
    rows = tmp_path / "rows.csv"
    with pytest.raises(FrameError, match=r"c\.png: no frame has a label; name a label topic"):
        run(bag, confusion=tmp_path / "c.png", csv_file=rows)
    assert len(rows.read_text().splitlines()) == 6


def test_damaged_frames_are_counted_by_reason_and_the_others_predicted(
    image_folder, run, caplog, spoilt_png
):
    folder = image_folder("signs", {"circle": 4})
    (folder / "circle/001.png").write_bytes(b"spoilt")
    (folder / "circle/002.png").write_bytes(spoilt_png)  # only decoding shows it
    summary, text = run(folder)
    assert summary.frames == len(text.splitlines()) - 1 == 2
    assert summary.skipped == {"unknown format": 1, "damaged png": 1}
    assert "signs: damaged: 1 x " in caplog.text


def test_a_bag_that_was_cut_keeps_what_came_before(bags, run, tmp_path):
    bag = bags.drive(tmp_path / "long", ["circle", "square"] * 50)
    (file,) = bag.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    summary, text = run(bag)
    assert 30 < summary.frames == len(text.splitlines()) - 1 < 70
    assert summary.skipped == {"cut file": 1}


def test_nothing_readable_is_an_error_and_leaves_the_old_csv(image_folder, run, tmp_path):
    folder, rows = image_folder("signs", {"circle": 1}), tmp_path / "rows.csv"
    rows.write_text("old")
    (folder / "circle/000.png").write_bytes(b"spoilt")
    with pytest.raises(FrameError, match=r"no frame can be read: .* signs/circle/000\.png"):
        run(folder, csv_file=rows)
    assert rows.read_text() == "old"
    with pytest.raises(FrameError, match="gone: no such file"):
        run(tmp_path / "gone")


def test_the_truth_of_a_bag_may_stand_in_a_file(bags, bag, run, tmp_path):
    lines = [f"{bags.START_NS + i * 500_000_000},circle" for i in range(3)]
    (tmp_path / "truth.csv").write_text("stamp_ns,label\n" + "\n".join(lines) + "\n")
    summary, text = run(bag, label_topic=str(tmp_path / "truth.csv"))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["truth"] for row in rows] == ["circle", "circle", "circle", "", ""]
    assert summary.confusion.count == 3


def test_a_data_set_has_no_label_topic_so_another_word_is_a_file_name_mistyped(image_folder, run):
    with pytest.raises(SettingsError, match=r"typo\.csv: no such file"):
        run(image_folder("signs", {"star": 1}), label_topic="typo.csv")


@pytest.mark.parametrize("form", ["folder", "yolo", "coco", "tfds"])
def test_every_kind_of_data_set_is_predicted_with_its_truth(bags, bag, run, tmp_path, form):
    extract(
        ExtractOptions(
            paths=(bag,), out=tmp_path / form, labels=LabelSettings("", bags.LABELS), format=form
        )
    )
    summary, text = run(tmp_path / form)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["label"] for row in rows] == ["circle", "square", "star", "circle", "square"]
    assert [row["truth"] for row in rows] == ["circle", "square", "square", "circle", ""]
    assert [int(row["stamp_ns"]) - bags.START_NS for row in rows] == [
        index * 500_000_000 for index in range(5)
    ]
    assert summary.skipped == {}


def test_progress_is_shown_on_a_terminal_and_nowhere_else(bag, run, monkeypatch, capsys):
    pytest.importorskip("rich")
    run(bag)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _, text = run(bag)
    assert len(text.splitlines()) == 6
    assert "frames" in capsys.readouterr().err
