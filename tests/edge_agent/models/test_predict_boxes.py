"""What `predict` gives for a model that answers boxes: lists, pictures, COCO's files, curves."""

import contextlib
import io
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edge_agent.examples.source import SourceSpec
from edge_agent.models.predict import run_predict
from edge_agent.models.predict_options import PredictOptions
from fleet_model.bundle import Task, TensorSpec
from fleet_model.engine import Answer
from fleet_model.errors import FrameError, SettingsError
from fleet_model.types import Example, Prediction, Target
from fleet_model.workloads.object_detector.average_precision import Found, Truth, evaluate
from fleet_model.workloads.object_detector.details import details_of

pytestmark = pytest.mark.base

LABELS = ("cup", "jug")
MOST = 8  # boxes of a picture
# Of each picture: what is there, and what is found (label, score, box), the unsure ones, too.
TRUE = [
    [("cup", (10, 20, 90, 100)), ("jug", (200, 40, 260, 160))],
    [],
    [("cup", (40, 40, 104, 104))],
]
FOUND = [
    [
        ("cup", 0.9, (10, 20, 90, 100)),
        ("jug", 0.6, (200, 40, 260, 120)),
        ("jug", 0.125, (0, 0, 9, 9)),
    ],
    [("cup", 0.25, (5, 5, 25, 25))],
    [("cup", 0.75, (200, 0, 240, 40)), ("cup", 0.5, (40, 40, 104, 96))],
]


class Shelf:
    """A workload of things on a shelf; its tensors are boxes in rows, the class -1 is none."""

    sure_score = 0.3

    def __init__(self, labels=LABELS):
        box, row = TensorSpec(shape=(MOST, 4)), TensorSpec(shape=(MOST,))
        self.task = Task(
            inputs={"image": TensorSpec(shape=(8, 8, 3))},
            targets={"boxes": box, "classes": row},
            outputs={"boxes": box, "scores": row, "classes": row},
            measures={"map50": "higher", "map": "higher"},
            answer="boxes",
            classes=labels,
        )

    def rows(self, labelled):
        boxes, classes = np.zeros((MOST, 4)), np.full(MOST, -1)
        for index, (label, box) in enumerate(labelled):
            boxes[index], classes[index] = box, self.task.classes.index(label)
        return {"boxes": boxes, "classes": classes}

    def target(self, example):
        if not example.seen:
            raise FrameError("nobody has said what is in it")
        known = [b for b in example.boxes if b.label in self.task.classes]
        if len(known) < len(example.boxes):
            raise FrameError("a label that nobody has taught")
        return Target(tensors=self.rows([(b.label, (b.x0, b.y0, b.x1, b.y1)) for b in known]))

    def _scores(self, outputs, targets):
        found, true = [], []
        columns = outputs["boxes"], outputs["scores"], outputs["classes"]
        for boxes, scores, classes in zip(*columns, strict=True):
            there = classes >= 0
            found.append(Found(boxes[there], scores[there], classes[there]))
        for boxes, classes in zip(targets["boxes"], targets["classes"], strict=True):
            true.append(Truth(boxes[classes >= 0], classes[classes >= 0]))
        return evaluate(found, true, len(self.task.classes))

    def measure(self, outputs, targets):
        scores = self._scores(outputs, targets)
        return {"map50": scores.map50, "map": scores.map}

    def details(self, outputs, targets):
        return details_of(self._scores(outputs, targets), self.task.classes)


def engine_of(found, former=None):
    """Answer the frames in turn."""
    turns, shelf = iter(found), Shelf()

    def answer(frame):
        frame.decode()
        said = next(turns)
        scores = np.zeros(MOST)
        scores[: len(said)] = [score for _, score, _ in said]
        outputs = shelf.rows([(label, box) for label, _, box in said]) | {"scores": scores}
        boxes = [Prediction(label=n, score=s, box=tuple(map(float, b))) for n, s, b in said]
        return Answer(outputs, boxes)

    manifest = SimpleNamespace(version=7, described_task=SimpleNamespace(former=former or {}))
    return SimpleNamespace(answer=answer, workload=shelf, manifest=manifest)


def data_set(folder, true):
    """Write a COCO data set of pictures of 320 x 240."""
    (folder / "images").mkdir(parents=True)
    names = sorted({label for boxes in true for label, _ in boxes})
    entries = {"images": [], "categories": [], "annotations": []}
    for number, name in enumerate(names, start=1):
        entries["categories"].append({"id": number, "name": name})
    for number, boxes in enumerate(true, start=1):
        gray = np.full((240, 320, 3), 60, np.uint8)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), gray)
        entries["images"].append(
            {"id": number, "file_name": f"{number}.png", "width": 320, "height": 240}
        )
        for label, (x0, y0, x1, y1) in boxes:
            entries["annotations"].append(
                {
                    "id": len(entries["annotations"]) + 1,
                    "image_id": number,
                    "category_id": names.index(label) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
    (folder / "annotations.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture
def run(tmp_path):
    """Return (summary, text on stdout) of one call."""
    folder = data_set(tmp_path / "shelf", TRUE)

    def call(path=folder, found=FOUND, former=None, **options):
        stdout = io.StringIO()
        wanted = PredictOptions(path=path, bundle=tmp_path, **options)
        summary = run_predict(wanted, stdout, lambda *_: engine_of(found, former))
        return summary, stdout.getvalue()

    return call


# cup: of 2 boxes, right .9, wrong .75, right .5 (7/8), wrong .25; jug: right .6 at 2/3, wrong .125
CUP50 = (51 + 50 * 2 / 3) / 101
CUP = (CUP50 * 8 + 51 / 101 * 2) / 10  # 7/8 is enough at eight thresholds of ten
JUG = 0.4  # 2/3 is enough at .5 to .65


def test_the_measures_and_each_class_are_those_of_all_boxes_however_unsure(run):
    summary, _ = run()
    assert (summary.frames, summary.labelled) == (3, 3)
    assert summary.measures == pytest.approx({"map50": (CUP50 + 1) / 2, "map": (CUP + JUG) / 2})
    assert summary.details.table["cup"] == pytest.approx({"ap50": CUP50, "ap": CUP, "boxes": 2})
    assert summary.details.table["jug"] == pytest.approx({"ap50": 1, "ap": JUG, "boxes": 1})
    assert summary.sentence() == (
        "version 7: 3 frames; map50 0.917, map 0.584 of 3 labelled frames"
    )


def test_a_person_sees_a_table_and_a_program_the_same_numbers(run):
    summary, text = run(json=True)
    assert summary.table() == [
        "      ap50     ap  boxes",
        "cup  0.835  0.769      2",
        "jug      1    0.4      1",
    ]
    table = json.loads(text)["summary"]["details"]
    assert table["jug"] == pytest.approx({"ap50": 1, "ap": JUG, "boxes": 1})


def test_a_class_without_a_box_has_no_number(run, tmp_path):
    folder = data_set(tmp_path / "cups", [[("cup", (0, 0, 8, 8))]])
    summary, text = run(folder, [[("cup", 0.5, (0, 0, 8, 8))]], json=True)
    assert summary.table()[2].split() == ["jug", "-", "-", "0"]
    assert json.loads(text)["summary"]["details"]["jug"] == {"ap50": None, "ap": None, "boxes": 0}


def test_rows_are_the_boxes_that_the_workload_is_sure_of_or_those_of_the_option(run):
    def scores(**options):
        found = json.loads(run(json=True, **options)[1])["predictions"]
        return [row["score"] for row in found]

    assert scores() == [0.9, 0.6, None, 0.75, 0.5]
    assert scores(min_score=0.0) == [0.9, 0.6, 0.125, 0.25, 0.75, 0.5]
    assert scores(min_score=0.6) == [0.9, 0.6, None, 0.75]
    assert scores(min_score=0.8) == [0.9, None, None]
    assert run(min_score=0.8)[0].measures == run()[0].measures


def test_pictures_show_what_is_right_wrong_and_missed(run, tmp_path):
    run(annotate=tmp_path / "out")
    first, empty, third = (
        cv2.imread(str(file)).astype(int) for file in sorted((tmp_path / "out").iterdir())
    )

    def is_about(picture, x, y, rgb):
        return np.abs(picture[y, x, ::-1] - rgb).max() < 40

    assert is_about(first, 10, 60, (26, 127, 80))  # right
    assert is_about(third, 240, 20, (201, 60, 48))  # wrong
    assert not np.abs(empty - 60).max() > 20  # its one box is unsure

    run(annotate=tmp_path / "sure", min_score=0.7)
    third = cv2.imread(str(sorted((tmp_path / "sure").iterdir())[2])).astype(int)
    assert is_about(third, 42, 27, (176, 112, 0))  # the title of a missed one


def test_cocos_own_program_reads_both_files_and_gives_the_same_measures(run, tmp_path):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    summary, _ = run(coco=tmp_path / "results.json")
    assert len(json.loads((tmp_path / "results.json").read_text())) == 6  # unsure ones, too
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(tmp_path / "results.images.json")
        judged = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    assert judged.stats[1] == pytest.approx(summary.measures["map50"], abs=1e-9)
    assert judged.stats[0] == pytest.approx(summary.measures["map"], abs=1e-9)
    pictures = [(one["file_name"], one["width"], one["height"]) for one in truth.imgs.values()]
    assert pictures == [(f"images/{number}.png", 320, 240) for number in (1, 2, 3)]


def test_pictures_that_nobody_has_looked_at_are_not_measured(run, tmp_path):
    folder = data_set(tmp_path / "shelf2", TRUE)
    gray = np.full((240, 320, 3), 60, np.uint8)
    cv2.imwrite(str(folder / "images" / "9.png"), gray)  # no JSON file lists it
    found = [*FOUND, [("cup", 0.95, (0, 0, 50, 50))]]
    summary, _ = run(folder, found, coco=tmp_path / "results.json")
    assert (summary.frames, summary.labelled) == (4, 3)
    assert summary.measures == pytest.approx({"map50": (CUP50 + 1) / 2, "map": (CUP + JUG) / 2})
    pictures = json.loads((tmp_path / "results.images.json").read_text())["images"]
    assert [one["seen"] for one in pictures] == [True, True, True, False]


def test_the_robots_own_frames_that_nobody_has_looked_at_are_left_out(run, tmp_path):
    folder = data_set(tmp_path / "shelf2", TRUE)
    cv2.imwrite(str(folder / "images" / "9.png"), np.full((240, 320, 3), 60, np.uint8))
    options = {"paths": [str(folder)], "topic": "", "label_topic": ""}
    summary, _ = run(None, FOUND, source=SourceSpec(name="frames", options=options))
    assert (summary.frames, summary.labelled, summary.left_out) == (3, 3, {"unlabelled": 1})


def test_the_curves_are_a_picture_of_each_class(run, tmp_path):
    run(curves=tmp_path / "curves.png")
    picture = cv2.imread(str(tmp_path / "curves.png"))
    assert min(picture.shape[:2]) > 700
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_curves_of_frames_without_a_box_are_an_error_that_says_what_to_do(run, tmp_path):
    folder = data_set(tmp_path / "empty", [[], []])
    with pytest.raises(FrameError, match=r"^c\.png: no frame has a label; "):
        run(folder, [[], []], curves=tmp_path / "c.png")


def test_boxes_of_labels_that_the_model_lacks_are_told(run, tmp_path):
    folder = data_set(tmp_path / "kitchen", [[("Cup", (0, 0, 8, 8))], [("pan", (0, 0, 8, 8))]])
    summary, _ = run(folder, [[], []])
    assert (summary.labelled, summary.unknown_labels) == (0, {"Cup": 1, "pan": 1})


def test_boxes_of_a_former_label_have_its_new_name(run, tmp_path):
    folder = data_set(tmp_path / "kitchen", [[("mug", (0, 0, 8, 8))]])
    found = [[("cup", 0.9, (0, 0, 8, 8))]]
    summary, _ = run(folder, found, former={"mug": "cup"})
    assert summary.details.table["cup"]["ap"] == 1.0


@pytest.mark.parametrize(
    ("name", "path", "said"),
    [
        ("coco", "-", r"--coco -: there are two files; name the first, e\.g\. results\.json"),
        ("coco", "results.txt", r"--coco .*results\.txt: the name must end with \.json"),
        ("curves", "-", "--curves -: stdout has the predictions already; name a file"),
        ("curves", "c.txt", r"--curves .*c\.txt: the name must end with \.png"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_the_work(run, tmp_path, name, path, said):
    file = Path(path) if path == "-" else tmp_path / path
    with pytest.raises(SettingsError, match=said):
        run(found=[], **{name: file})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("coco", "--coco needs a model that answers boxes; this one answers class"),
        ("curves", "--curves: a model that answers class has none; leave the option out"),
    ],
)
def test_a_classifier_has_neither_boxes_nor_curves(gray_engine, tmp_path, name, said):
    file = tmp_path / ("c.png" if name == "curves" else "c.json")
    wanted = PredictOptions(path=tmp_path, bundle=tmp_path, **{name: file})
    with pytest.raises(SettingsError, match=said):
        run_predict(wanted, io.StringIO(), lambda *_: gray_engine(["a", "b"]))


def test_examples_that_are_no_frames_have_no_coco_results(tmp_path, monkeypatch):
    class Drawer:
        def examples(self):
            yield Example(raw=0, key="drawer/0")

    monkeypatch.setattr("edge_agent.examples.source.load_plugin", lambda table, name: Drawer)
    engine = engine_of([[]])
    engine.answer = lambda raw: Answer({}, [])
    engine.workload.target = lambda example: Target(tensors={})
    wanted = PredictOptions(
        bundle=tmp_path, source=SourceSpec(name="drawer", options={}), coco=tmp_path / "c.json"
    )
    with pytest.raises(SettingsError, match="--coco needs camera frames; these examples are none"):
        run_predict(wanted, io.StringIO(), lambda *_: engine)
