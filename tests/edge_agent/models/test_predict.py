import csv
import dataclasses
import io
import json
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mcap.writer import Writer

from edge_agent.data.extraction.extract import ExtractOptions, extract
from edge_agent.data.labels import LabelSettings
from edge_agent.examples.source import SourceSpec, source_of
from edge_agent.models.predict import run_predict
from edge_agent.models.predict_options import PredictOptions
from edge_agent.robot.settings import load_settings
from fleet_model.bundle import Task, TensorSpec
from fleet_model.engine import Answer
from fleet_model.errors import FrameError, SettingsError
from fleet_model.types import Example, Prediction, Target

pytestmark = pytest.mark.base

LABELS = ["circle", "square", "star"]

MANIFEST = SimpleNamespace(version=5, described_task=SimpleNamespace(former={}))


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
        "measures": {
            "accuracy": 0.75,
            "loss": pytest.approx(-(3 * np.log(0.75) + np.log(0.125)) / 4),
        },
        "model_version": 3,
        "skipped": {},
        "unknown_labels": {},
        "left_out": {},
    }


def test_a_bag_without_truth_has_null_scores(bag, run):
    summary = json.loads(run(bag, json=True)[1])["summary"]
    assert (summary["labelled"], summary["accuracy"], summary["macro_f1"]) == (0, None, None)
    assert summary["measures"] == {}
    assert summary["confusion"] == {"labels": [], "matrix": []}


def test_a_csv_file_takes_the_rows_and_stdout_stays_free_for_json(bag, run, tmp_path):
    file = tmp_path / "rows.csv"
    _, text = run(bag, csv_file=file)
    assert text == ""
    assert len(file.read_text().splitlines()) == 6
    _, text = run(bag, csv_file=file, json=True)
    assert len(json.loads(text)["predictions"]) == len(file.read_text().splitlines()) - 1


def test_without_a_row_there_is_no_head(tmp_path, gray_engine):
    stdout = io.StringIO()
    wanted = PredictOptions(path=tmp_path / "gone", bundle=tmp_path / "bundle")
    with pytest.raises(FrameError):
        run_predict(wanted, stdout, lambda *_: gray_engine(LABELS))
    assert stdout.getvalue() == ""


def test_a_csv_file_is_whole_or_the_old_one(bag, run, tmp_path, monkeypatch):
    file = tmp_path / "rows.csv"
    file.write_text("old")
    monkeypatch.setattr("edge_agent.models.predict.annotate", lambda *_: 1 / 0)
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


def test_a_matrix_of_a_bag_without_named_labels_is_refused_before_the_bag_is_read(
    bag, run, tmp_path
):
    rows = tmp_path / "rows.csv"
    with pytest.raises(SettingsError, match="--confusion needs true labels: name the topic of r1"):
        run(bag, confusion=tmp_path / "c.png", csv_file=rows)
    assert not rows.exists()


def test_a_matrix_of_unlabelled_frames_is_an_error_after_the_rows(
    bags, run, tmp_path, picture_bytes
):
    rows = tmp_path / "rows.csv"
    (tmp_path / "photo.png").write_bytes(picture_bytes(0, ".png"))
    with pytest.raises(FrameError, match=r"c\.png: no frame has a label; name a label topic"):
        run(tmp_path / "photo.png", confusion=tmp_path / "c.png", csv_file=rows)
    assert len(rows.read_text().splitlines()) == 2


def test_a_matrix_of_labels_that_the_model_does_not_know_names_them(image_folder, run, tmp_path):
    folder = image_folder("signs", {"Circle": 2, "moon": 1})
    expected = r"c\.png: the model knows no label of these frames: Circle, moon"
    with pytest.raises(FrameError, match=expected):
        run(folder, confusion=tmp_path / "c.png")


def test_a_bag_has_the_robots_usual_label_topic_without_naming_it(bags, bag, run):
    assert run(bag, usual_labels=bags.LABELS)[0].labelled == 4
    assert run(bag, usual_labels="/another")[0].labelled == 0
    assert run(bag, usual_labels="/another", label_topic=bags.LABELS)[0].labelled == 4


def test_truth_that_the_model_does_not_know_is_counted_and_told(bags, run, tmp_path):
    labels = ["circle", "square", *["Blocked"] * 3, "gras"]
    bag = bags.drive(tmp_path / "r2", labels)
    summary, text = run(bag, label_topic=bags.LABELS, json=True)
    assert (summary.labelled, summary.unknown_labels) == (2, {"Blocked": 3, "gras": 1})
    assert summary.sentence() == (
        "version 3: 6 frames; accuracy 1.000, macro F1 1.000 of 2 labelled frames; 4 have labels "
        "that the model does not know: Blocked, gras"
    )
    assert json.loads(text)["summary"]["unknown_labels"] == {"Blocked": 3, "gras": 1}
    assert len(text.splitlines()) == 6 + 2  # a line each


def test_damaged_frames_are_counted_by_reason_and_the_others_predicted(
    image_folder, run, spoilt_png
):
    folder = image_folder("signs", {"circle": 4})
    (folder / "circle/001.png").write_bytes(b"spoilt")
    (folder / "circle/002.png").write_bytes(spoilt_png)  # only decoding shows it
    summary, text = run(folder)
    assert summary.frames == len(text.splitlines()) - 1 == 2
    assert summary.skipped == {"unknown format": 1, "damaged png": 1}
    assert summary.losses.startswith("1 x unknown format, first ")


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


def test_a_bag_without_a_frame_is_an_error(tmp_path, run):
    with (tmp_path / "empty.mcap").open("wb") as stream:
        writer = Writer(stream)
        writer.start("ros2")
        image = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", b"")
        writer.register_channel("/camera/image", "cdr", image)
        writer.finish()
    with pytest.raises(FrameError, match=r"^empty\.mcap: holds no frame; `edge-agent inspect`"):
        run(tmp_path / "empty.mcap")


def test_the_truth_of_a_bag_may_stand_in_a_file(bags, bag, run, tmp_path):
    lines = [f"{bags.START_NS + i * 500_000_000},circle" for i in range(3)]
    (tmp_path / "truth.csv").write_text("stamp_ns,label\n" + "\n".join(lines) + "\n")
    summary, text = run(bag, label_topic=str(tmp_path / "truth.csv"))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["truth"] for row in rows] == ["circle", "circle", "circle", "", ""]
    assert summary.confusion.count == 3


def test_the_truth_may_have_this_robots_own_word_for_a_label(bags, bag, run, tmp_path):
    lines = [f"{bags.START_NS + i * 500_000_000},Kreis" for i in range(3)]
    (tmp_path / "truth.csv").write_text("stamp_ns,label\n" + "\n".join(lines) + "\n")
    source = SourceSpec(name="frames", options={"aliases": {"Kreis": "circle"}})
    summary, _ = run(bag, label_topic=str(tmp_path / "truth.csv"), source=source)
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


# --------------------------------------------------------------------- other answers than a class

CORNER, CENTRE = (2.0, 1.0, 10.0, 9.0), (12.5, 8.0, 20.0, 16.0)


class Tray:
    """A workload of cups on a tray: its truth is in the example, its answer is as many boxes."""

    def __init__(self, answer="boxes"):
        specs = {"count": TensorSpec(shape=())}
        self.task = Task(
            inputs=specs, targets=specs, outputs=specs, measures={"miss": "lower"}, answer=answer
        )

    def target(self, example):
        if not example.label:
            raise FrameError("nobody counted")
        return Target(tensors={"count": np.array(len(example.label), np.float32)})

    def measure(self, outputs, targets):
        return {"miss": float(np.mean(np.abs(outputs["count"] - targets["count"])))}


def tray_engine(predictions, answer="boxes"):
    """Answer the frames in turn."""
    turns = iter(predictions)

    def one(frame):
        frame.decode()
        found = next(turns)
        return Answer({"count": np.array(len(found), np.float32)}, found)

    return SimpleNamespace(answer=one, workload=Tray(answer), manifest=MANIFEST)


def cup(box, score=0.5):
    return Prediction(label="cup", score=score, box=box)


def tray_run(path, tmp_path, predictions, answer="boxes", **options):
    stdout = io.StringIO()
    wanted = PredictOptions(path=path, bundle=tmp_path, **options)
    summary = run_predict(wanted, stdout, lambda *_: tray_engine(predictions, answer))
    return summary, stdout.getvalue()


def test_a_detector_may_find_nothing_or_many_and_every_frame_has_a_row(bags, bag, tmp_path):
    found = [[cup(CORNER), cup(CENTRE, 0.25)], [], [cup(CENTRE)], [], []]
    summary, text = tray_run(bag, tmp_path, found, label_topic=bags.LABELS)

    rows = list(csv.DictReader(io.StringIO(text)))
    columns = ["file", "topic", "stamp_ns", "label", "score", "x0", "y0", "x1", "y1"]
    assert list(rows[0]) == columns
    assert [row["label"] for row in rows] == ["cup", "cup", "", "cup", "", ""]
    assert [float(rows[1][name]) for name in columns[4:]] == [0.25, *CENTRE]
    assert rows[2]["x0"] == rows[2]["score"] == ""
    assert len({row["stamp_ns"] for row in rows}) == summary.frames == 5
    assert (summary.labelled, summary.confusion) == (4, None)
    # labels have 6, 6, 6, 6 letters, the answers 2, 0, 1, 0 boxes
    assert summary.measures == {"miss": pytest.approx((4 + 6 + 5 + 6) / 4)}
    assert summary.sentence() == "version 5: 5 frames; miss 5.250 of 4 labelled frames"


def test_the_json_of_a_detector_has_boxes_and_no_confusion(bag, tmp_path):
    _, text = tray_run(bag, tmp_path, [[cup(CORNER)], [], [], [], []], json=True)

    found = json.loads(text)
    assert [found["predictions"][0][name] for name in ("x0", "y0", "x1", "y1")] == [*CORNER]
    assert found["predictions"][1]["label"] is None
    assert "confusion" not in found["summary"]
    assert found["summary"]["measures"] == {}


def test_boxes_are_drawn_where_they_are(image_folder, tmp_path):
    folder = image_folder("tray", {"a": 2})
    tray_run(folder, tmp_path, [[cup((4.0, 18.0, 28.0, 22.0))], []], annotate=tmp_path / "out")

    with_box, plain = (cv2.imread(str(file)) for file in sorted((tmp_path / "out").iterdir()))
    changed = np.abs(with_box.astype(int) - plain).max(axis=2) > 40
    assert with_box.shape == (24, 32, 3)
    assert changed[18, 4:28].all()


def test_a_text_is_a_column_of_its_own(bag, tmp_path):
    said = [[Prediction(text=f"{number} cups", score=0.5)] for number in range(4)]
    summary, text = tray_run(bag, tmp_path, [*said, []], answer="text", annotate=tmp_path / "out")

    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == ["file", "topic", "stamp_ns", "text", "score"]
    assert [row["text"] for row in rows] == ["0 cups", "1 cups", "2 cups", "3 cups", ""]
    assert (summary.frames, len(list((tmp_path / "out").iterdir()))) == (5, 5)


def test_a_confusion_matrix_needs_an_answer_that_is_a_class(bag, tmp_path):
    with pytest.raises(SettingsError, match="--confusion needs a model that answers classes"):
        tray_run(bag, tmp_path, [], confusion=tmp_path / "c.png")


# ---------------------------------------------------------------------- this robot's own examples


class Drawer:
    """A source of examples that are no frames."""

    def __init__(self, count):
        self.count = count

    def examples(self):
        for number in range(self.count):
            yield Example(raw=number, key=f"drawer/{number}", label="x" * number)


def test_without_a_path_the_examples_of_this_robot_are_predicted(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_agent.examples.source.load_plugin", lambda table, name: Drawer)
    source = SourceSpec(name="drawer", options={"count": 3})
    stdout = io.StringIO()
    engine = SimpleNamespace(
        answer=lambda raw: Answer({"count": np.array(raw, np.float32)}, []),
        workload=Tray(),
        manifest=MANIFEST,
    )
    wanted = PredictOptions(bundle=tmp_path, source=source)
    summary = run_predict(wanted, stdout, lambda *_: engine)

    rows = list(csv.DictReader(io.StringIO(stdout.getvalue())))
    assert [row["file"] for row in rows] == [f"drawer/{number}" for number in range(3)]
    assert (summary.frames, summary.labelled, summary.measures) == (3, 2, {"miss": 0.0})
    with pytest.raises(SettingsError, match="--annotate draws on camera frames"):
        run_predict(dataclasses.replace(wanted, annotate=tmp_path / "o"), stdout, lambda *_: engine)


def test_a_source_of_ones_own_that_fails_is_one_line_with_its_name(tmp_path, monkeypatch):
    class Broken:
        def examples(self):
            yield Example(raw=0, key="drawer/0")
            raise KeyError("handle")

    monkeypatch.setattr("edge_agent.examples.source.load_plugin", lambda table, name: Broken)
    engine = tray_engine([[]])
    engine.answer = lambda raw: Answer({"count": np.zeros((), np.float32)}, [])
    wanted = PredictOptions(bundle=tmp_path, source=SourceSpec(name="drawer", options={}))
    with pytest.raises(FrameError, match=r"^examples\.source 'drawer' has failed: KeyError: 'hand"):
        run_predict(wanted, io.StringIO(), lambda *_: engine)


@pytest.fixture
def own(bags, bag, tmp_path):
    """Return the source of a robot that has five frames, four of them labelled."""
    path = tmp_path / "agent.toml"
    path.write_text(
        f'[server]\naddress = "localhost:1"\n[examples]\npaths = ["{bag}"]\n'
        f'label_topic = "{bags.LABELS}"\n'
    )
    settings = load_settings(path, {})
    return settings, source_of(settings, read_only=True)


def test_own_frames_have_the_same_rows_and_pictures_as_a_path_that_names_them(
    bags, bag, own, run, tmp_path
):
    by_path = run(bag, label_topic=bags.LABELS, limit=4, annotate=tmp_path / "first")[1]
    assert run(None, source=own[1], annotate=tmp_path / "second")[1] == by_path
    first, second = (sorted((tmp_path / name).iterdir()) for name in ("first", "second"))
    assert [path.name for path in second] == [path.name for path in first]
    assert [path.read_bytes() for path in second] == [path.read_bytes() for path in first]


def test_predictions_of_own_examples_leave_the_state_of_the_robot_as_it_is(own, run):
    settings, source = own
    run(None, source=source)
    assert not settings.state.exists()
    training = source_of(settings)
    list(training.examples(LABELS))
    (settings.state / "known-frames" / "of another recording.jsonl").touch()
    before = {path: path.read_bytes() for path in settings.state.rglob("*") if path.is_file()}
    assert {path.name for path in before} >= {"trained.json"}
    settings.examples.paths[0].joinpath("metadata.yaml").touch()  # news for the index
    run(None, source=source)
    assert {p: p.read_bytes() for p in settings.state.rglob("*") if p.is_file()} == before


def test_what_is_left_out_of_own_examples_is_counted_and_said(own, run):
    summary, _ = run(None, source=own[1])
    assert (summary.skipped, summary.left_out) == ({}, {"unlabelled": 1})
    assert summary.sentence().endswith("; left out: 1 without a label")
