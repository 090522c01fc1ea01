"""A whole data set: what is counted, and what it costs others meanwhile."""

import time

import pytest
from compared_models import bomb, picture

from cloud_server.console.compare.contenders import contenders
from cloud_server.console.compare.lineup import Lineup
from cloud_server.console.compare.view import batch_values
from fleet_model.engine import TFLiteEngine
from fleet_model.errors import BusyError, FrameError
from fleet_model.pictures.image_file import image_frame

MANY = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    for number, label in enumerate(["circle", "square", "star", "star", "unknown"]):
        (root / label).mkdir(exist_ok=True)
        (root / label / f"{number}.png").write_bytes(picture(side=40, seed=number))
    (root / "star" / "bomb.png").write_bytes(bomb(8_000))
    (root / "star" / "cut.jpg").write_bytes(picture(".jpg")[:-50])
    return root


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    root = tmp_path_factory.mktemp("many")
    for number in range(MANY):
        (root / f"{number}.png").write_bytes(picture(seed=number))
    return root


@pytest.fixture
def lineup(bundles):
    one = Lineup(contenders([*bundles, bundles[0] / "head_int8.tflite"]))
    yield one
    one.close()


def finished(lineup):
    while lineup.batch.state == "running":
        time.sleep(0.01)
    return lineup.batch


def best(bundle, file, precision="fp32"):
    frame = image_frame(file.read_bytes(), "", "", 0, "")
    return TFLiteEngine(bundle, precision).predict(frame)[0].label


def test_answers_are_counted_against_the_truth_and_each_other(lineup, folder, bundles):
    lineup.begin_batch(folder)
    batch = finished(lineup)
    assert (batch.state, batch.done, batch.refusals) == ("finished", 7, 2)
    assert [name for name, _ in batch.refused] == ["star/bomb.png", "star/cut.jpg"]
    assert "8000 x 8000" in batch.refused[0][1]
    files = [folder / batch.data.inputs[row.number].name for row in batch.rows]
    standings, known = batch.board.told().standings, batch.confusions(lineup.classes)
    engines = [(bundles[0], "fp32"), (bundles[1], "fp32"), (bundles[0], "int8")]
    for n, (bundle, precision) in enumerate(engines):
        expected = [best(bundle, file, precision) for file in files]
        assert [row.said[n].label for row in batch.rows] == expected
        right = sum(map(str.__eq__, expected, [file.parent.name for file in files]))
        assert known[n].count == 4  # the class of one is not known
        assert known[n].accuracy == standings[n].accuracy == right / 4
    beside, same = batch.answers_beside(lineup.classes)
    assert (beside.count, beside.accuracy) == (5, 0.0)
    assert same.accuracy == standings[2].agreement
    assert lineup.board.told().requests == 0  # a person's own questions are apart


def test_the_page_shows_the_surest_differences_first(lineup, folder):
    lineup.begin_batch(folder)
    finished(lineup)
    values = batch_values(lineup)
    assert values["differ"] == 5
    sums = [sum(said["said"].score for said in one["said"]) for one in values["gallery"]]
    assert sums == sorted(sums, reverse=True)
    titles = [one["title"] for one in values["matrices"]]
    assert titles[0] == "teacher: true class and answer"
    assert titles[3:] == ["Answers of teacher and student", "Answers of teacher and teacher int8"]
    matrix = values["matrices"][3]
    for label, cells in matrix["cells"]:
        assert len(cells) == len(matrix["labels"]), label
        assert all(cell["shade"] in range(5) for cell in cells)
    assert sum(cell["count"] for _, cells in matrix["cells"] for cell in cells) == 5


def test_a_second_data_set_waits_and_a_person_does_not(lineup, folder, many):
    lineup.begin_batch(many)
    with pytest.raises(BusyError, match="asked about already"):
        lineup.begin_batch(folder)
    assert lineup.ask(picture())["agree"][1] == 0
    assert lineup.batch.state == "running"
    lineup.batch.stop()
    assert lineup.batch.state == "stopped"
    assert len(lineup.batch.rows) < MANY
    assert lineup.preview(0, 16)[:3] == b"\xff\xd8\xff"
    lineup.begin_batch(folder)
    assert finished(lineup).done == 7
    with pytest.raises(FrameError, match="no such input"):
        lineup.input(MANY - 1)


def test_a_process_that_is_closed_ends_a_batch_with_the_reason(lineup, many):
    lineup.begin_batch(many)
    while not lineup.batch.rows:
        time.sleep(0.001)
    lineup.process.close()
    assert finished(lineup).state == "failed"
    assert lineup.batch.why
