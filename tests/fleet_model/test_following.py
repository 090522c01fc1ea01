"""A program that runs the model of a robot while the agent switches it."""

import logging
import shutil
import threading
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest
from tiny_versions import write_versions

from fleet_model.durable import point_durably
from fleet_model.engine import TFLiteEngine
from fleet_model.errors import BundleError
from fleet_model.following import FollowedModel, FollowingEngine
from fleet_model.personal.choice import FILE, OWN_SHARES, PersonalChoice, write_personal
from fleet_model.types import Frame

pytestmark = pytest.mark.base

TINY = Path(__file__).parents[1] / "data" / "tiny_bundle"
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
FRAME = Frame(source="s", topic="t", stamp_ns=0, data=b"", format="rgb8", decode=lambda: PICTURE)


@pytest.fixture
def robot(tmp_path):
    """Return a folder with versions 1 and 2, and a link to version 1."""
    write_versions(tmp_path, 1, 2)
    point_durably(tmp_path / "current", "versions/1")
    return tmp_path


def until(holds):
    end = monotonic() + 240
    while not holds():
        assert monotonic() < end
        sleep(0.001)


def test_every_input_is_answered_while_the_model_is_switched_and_loaded(robot):
    loading, loaded = threading.Event(), threading.Event()

    def slowly(bundle, precision):
        engine = TFLiteEngine(bundle, precision)
        if bundle.name == "2":
            loading.set()
            assert loaded.wait(240)
        return engine

    engine = FollowingEngine(robot / "current", every_s=0.001, open_engine=slowly)
    first = engine.answer(FRAME)
    point_durably(robot / "current", "versions/2")
    assert loading.wait(240)
    for _ in range(20):  # the new one is not there yet
        assert engine.answer(FRAME).predictions == first.predictions
    assert engine.manifest.version == 1
    loaded.set()
    until(lambda: engine.manifest.version == 2)
    assert engine.answer(FRAME).predictions == first.predictions
    engine.close()


def test_nobody_is_told_of_a_model_that_loads_while_the_engine_is_closed(robot):
    loading, loaded, told = threading.Event(), threading.Event(), []

    def slowly(bundle, precision):
        if bundle.name == "2":
            loading.set()
            assert loaded.wait(240)
        return TFLiteEngine(bundle, precision)

    engine = FollowingEngine(
        robot / "current", every_s=0.001, open_engine=slowly, switched=told.append
    )
    point_durably(robot / "current", "versions/2")
    assert loading.wait(240)
    closing = threading.Thread(target=engine.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()  # it waits for who may be about to tell
    loaded.set()
    closing.join(240)
    assert told == []


def test_a_new_model_has_run_before_it_takes_over(robot):
    runs = []

    class Counting(TFLiteEngine):
        def run(self, inputs):
            runs.append(self.manifest.version)
            return super().run(inputs)

    engine = FollowingEngine(robot / "current", every_s=0.001, open_engine=Counting)
    assert runs == [1]
    point_durably(robot / "current", "versions/2")
    until(lambda: engine.manifest.version == 2)
    assert runs == [1, 2]
    engine.close()


def test_a_model_that_does_not_load_is_told_once_and_the_running_one_goes_on(robot, caplog):
    caplog.set_level(logging.INFO)
    engine = FollowingEngine(robot / "current", every_s=0.001)
    (robot / "versions" / "2" / "head.tflite").write_bytes(b"no model")
    point_durably(robot / "current", "versions/2")
    until(lambda: caplog.messages)
    assert engine.answer(FRAME).predictions
    point_durably(robot / "current", "versions/1")
    until(lambda: len(caplog.messages) > 1)
    told, back = caplog.messages
    assert told.startswith("version 1 goes on, the new model does not load: head.tflite: 8 bytes")
    assert str(robot) not in told
    assert back == "version 1 answers now"
    engine.close()


def test_what_a_disk_does_not_give_for_a_moment_is_told_once_and_tried_again(robot, caplog):
    caplog.set_level(logging.INFO)
    tries = []

    def failing(bundle, precision):
        if bundle.name == "2":
            tries.append(bundle)
            if len(tries) < 4:
                raise OSError(24, "Too many open files")
        return TFLiteEngine(bundle, precision)

    engine = FollowingEngine(robot / "current", every_s=0.001, open_engine=failing)
    point_durably(robot / "current", "versions/2")
    until(lambda: engine.manifest.version == 2)
    engine.close()
    failed, answers = caplog.messages
    assert failed.endswith("does not load: [Errno 24] Too many open files")
    assert answers == "version 2 answers now"


def test_a_workload_that_raises_what_nobody_expected_does_not_end_the_following(robot, caplog):
    def failing(bundle, precision):
        if bundle.name == "2":
            raise ZeroDivisionError
        return TFLiteEngine(bundle, precision)

    engine = FollowingEngine(robot / "current", every_s=0.001, open_engine=failing)
    point_durably(robot / "current", "versions/2")
    until(lambda: caplog.messages)
    assert caplog.messages == [
        "version 1 goes on, the new model does not load: ZeroDivisionError()"
    ]
    shutil.copytree(robot / "versions" / "1", robot / "versions" / "3")
    point_durably(robot / "current", "versions/3")
    until(lambda: engine._seen.bundle.name == "3")
    engine.close()


def test_without_a_model_it_does_not_begin(tmp_path):
    with pytest.raises(BundleError, match=r"current: no manifest\.json; is it a bundle"):
        FollowingEngine(tmp_path / "current")


def test_a_model_that_answers_what_is_no_number_does_not_warm_up(robot, monkeypatch):
    engine = TFLiteEngine(robot / "versions" / "2")
    engine.warm_up()
    monkeypatch.setattr(engine, "_model", lambda inputs: {"logits": np.array([0.0, np.nan])})
    with pytest.raises(BundleError, match="version 2: logits is not finite for an input of zeros"):
        engine.warm_up()


def test_a_first_model_may_come_later_and_is_told_of_once(robot):
    (robot / "current").unlink()
    told = []
    model = FollowedModel(robot / "current", "fp32", 1, told.append)
    assert model.engine is None
    assert "no model answers" in model.problem
    assert "no model answers" in model.reload()

    point_durably(robot / "current", "versions/1")
    model.look()
    model.look()

    assert (model.problem, told) == ("", [model.engine])
    model.close()


def test_a_reload_that_fails_is_told_and_the_running_model_goes_on(robot):
    told = []
    model = FollowedModel(robot / "current", "fp32", 1, told.append)
    first = model.engine
    assert model.reload() == ""
    assert [one.manifest.version for one in told] == [1, 1]
    (robot / "versions" / "1" / "head.tflite").unlink()

    assert "version 1 goes on, the model does not load" in model.reload()
    assert model.engine is not first  # the one of the first reload
    assert model.engine.answer(FRAME).predictions
    model.close()


def test_a_model_that_this_user_may_not_read_says_what_to_do(robot, monkeypatch):
    def refuse(link):  # root may read everything
        raise PermissionError(13, "Permission denied", str(link))

    monkeypatch.setattr("fleet_model.following.pointed", refuse)
    model = FollowedModel(robot / "current", "fp32", 1, lambda engine: None)
    assert model.problem == (
        f"no model answers, {robot}/current: this user may not read it: `sudo adduser USER "
        "edge-agent`, and log in again"
    )
    assert model.engine is None


def test_what_of_the_robots_own_is_chosen_takes_over_without_another_version(robot):
    told = []
    engine = FollowingEngine(robot / "current", every_s=0.001, switched=told.append)
    before = engine.answer(FRAME).outputs["logits"]

    own = PersonalChoice(precision="fp32", uses=(OWN_SHARES,), counts={"circle": 30.0})
    write_personal(robot / "versions" / "1", own)

    until(lambda: told)
    assert [one.runs for one in told] == ["the model with own label shares"]
    after = engine.answer(FRAME).outputs["logits"]
    shares = np.array([30.5, 0.5, 0.5]) / 31.5
    np.testing.assert_allclose(after - before, np.log(shares), atol=1e-5)
    (robot / "versions" / "1" / FILE).unlink()
    until(lambda: len(told) == 2)
    assert engine.answer(FRAME).outputs["logits"].tobytes() == before.tobytes()
    engine.close()
