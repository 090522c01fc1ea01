"""The process that computes: what it answers, and what a death of it costs."""

import threading
import time

import pytest
from compared_models import picture

from cloud_server.console.compare.contenders import contenders
from cloud_server.console.compare.process import MOST_WAITING, Process
from fleet_model.engine import TFLiteEngine
from fleet_model.errors import BundleError, BusyError, FrameError, RoundError, SettingsError
from fleet_model.pictures.image_file import image_frame


@pytest.fixture(scope="module")
def process(bundles):
    one = Process(contenders(list(bundles)))
    yield one
    one.close()


def test_models_are_told_with_the_size_of_their_engine(process, bundles):
    first, second = process.models()
    size = sum((bundles[0] / f"{name}.tflite").stat().st_size for name in ("trunk", "head"))
    assert (first["name"], first["takes"], first["answer"]) == ("teacher", "picture", "class")
    assert first["bytes"] == second["bytes"] == size
    assert second["classes"] == ["star", "circle", "square"]


def test_answers_are_those_of_the_engine(process, bundles):
    content = picture(".jpg", 96)
    told = process.answer(content)
    frame = image_frame(content, "", "", 0, "")
    for folder, answer in zip(bundles, told["answers"], strict=True):
        expected = [(one.label, one.score) for one in TFLiteEngine(folder).predict(frame)]
        assert [(one["label"], one["score"]) for one in answer["found"]] == expected
        assert 0 < answer["ms"] < 1000
    assert told["agree"] == [1.0, 0.0]
    assert told["size"] == [96, 96]


def test_what_is_no_picture_is_refused_and_the_process_lives(process):
    before = process.models() and process._child.pid
    with pytest.raises(FrameError, match="none of jpeg, png"):
        process.answer(b"GARBAGE")
    with pytest.raises(FrameError, match="damaged png"):
        process.answer(picture()[:33] + b"\0" * 60)
    process.answer(picture())
    assert process._child.pid == before


def test_a_preview_is_a_small_jpeg(process):
    small = image_frame(process.preview(picture(side=64), 16), "", "", 0, "")
    assert (small.format, small.width, small.height) == ("jpeg", 16, 16)


def test_a_process_that_was_killed_is_begun_anew(process):
    process.models()
    process._child.kill()
    process._child.wait()
    assert process.answer(picture())["agree"] == [1.0, 0.0]


def test_a_process_that_nobody_asks_ends_and_is_begun_with_the_next_question(bundles):
    process = Process(contenders(list(bundles)), idle_s=0.2)
    try:
        assert process.answer(picture())["agree"] == [1.0, 0.0]
        first = process._child
        assert first.wait(20) == 0
        assert process.answer(picture())["agree"] == [1.0, 0.0]
        assert process._child is not first
    finally:
        process.close()


def test_a_process_that_dies_over_a_question_says_so_and_the_next_one_is_answered(process):
    process.models()
    process._child.send_signal(19)  # it hangs
    threading.Timer(0.3, process._child.kill).start()
    with pytest.raises(RoundError, match=r"has ended .* begun anew"):
        process.answer(picture())
    assert process.answer(picture())["agree"] == [1.0, 0.0]


def test_more_questions_than_may_wait_are_refused(process):
    process.models()
    process._child.send_signal(19)
    threads = [threading.Thread(target=process.answer, args=(picture(),)) for _ in range(4)]
    for one in threads:
        one.start()
    until_s = time.monotonic() + 30
    while process._waiting._value and time.monotonic() < until_s:
        time.sleep(0.01)
    with pytest.raises(BusyError, match=f"{MOST_WAITING} questions are asked already"):
        process.answer(picture())
    process._child.send_signal(18)
    for one in threads:
        one.join(60)


def test_a_damaged_model_is_named(bundles, tmp_path):
    import shutil

    broken = shutil.copytree(bundles[0], tmp_path / "broken")
    (broken / "head.tflite").write_bytes(b"x")
    process = Process(contenders([bundles[0], broken]))
    with pytest.raises(BundleError, match=r"^broken: head\.tflite"):
        process.models()
    process.close()


def test_a_closed_comparison_answers_nothing(bundles):
    process = Process(contenders(list(bundles)))
    process.models()
    child = process._child
    process.close()
    assert child.poll() is not None
    with pytest.raises(RoundError, match="was closed"):
        process.answer(picture())


def test_models_of_other_kinds_cannot_be_compared(bundles, tmp_path):
    from text_bundles import write_text_bundle

    words = write_text_bundle(tmp_path)
    with pytest.raises(SettingsError, match=r"teacher answers a class to a picture, .* to a text"):
        Process(contenders([bundles[0], words])).models()
