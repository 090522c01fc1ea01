import threading
import time

import numpy as np
import pytest

from cloud_server.state.sums.sums_store import ClosedForm, SumsSpace, SumsStore
from fleet_model.errors import StorageError
from fleet_model.sums.class_sums import class_sums
from fleet_model.sums.packing import pack_sums
from fleet_model.weights import write_weights

SPACE = SumsSpace(trunk="t1", labels=("a", "b"), width=6, former={})


def tensors(seed=0, rank=3):
    rng = np.random.default_rng(seed)
    return pack_sums(class_sums(rng.normal(1, 1, (40, 6)), np.arange(40) % 2, 2, rank))


@pytest.fixture
def store(tmp_path):
    made = SumsStore(tmp_path / "sums")
    for number in (2, 1):
        made.save(f"r{number}", tensors(number), SPACE)
    return made


def test_what_was_told_comes_back_by_robot(store):
    robots = store.of(SPACE)
    assert list(robots) == ["r1", "r2"]
    assert robots["r1"].counts.tolist() == [20, 20]
    assert list(store.of(SPACE, without="r1")) == ["r2"]
    with pytest.raises(KeyError):
        robots["r3"]


def test_a_new_label_is_a_new_column_and_a_renamed_one_stays(store):
    now = SumsSpace(trunk="t1", labels=("new", "z", "a"), width=6, former={"b": "z"})
    before, after = store.of(SPACE)["r1"], store.of(now)["r1"]
    assert after.counts.tolist() == [0, 20, 20]
    assert np.array_equal(after.means[1:], before.means[::-1])
    assert np.array_equal(after.scatter(), before.scatter())


def test_sums_of_another_trunk_or_of_a_damaged_file_do_not_count(store, tmp_path, caplog):
    assert len(store.of(SumsSpace(trunk="t2", labels=("a", "b"), width=6, former={}))) == 0
    file = tmp_path / "sums" / "r1.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    assert list(store.of(SPACE)) == ["r2"]
    assert "r1" in caplog.text
    assert "until the robot tells it again" in caplog.text


def test_sums_of_other_sizes_than_they_say_do_not_count(store, caplog):
    wide = SumsSpace(trunk="t1", labels=("a", "b"), width=7, former={})
    assert len(store.of(wide)) == 0
    assert "damaged (the sums: means is float16" in caplog.text


def test_sums_of_a_relay_say_of_how_many_robots_they_are(store, tmp_path):
    store.save("relay", tensors(rank=0), SPACE, 12)
    robots = store.of(SPACE)
    assert {name: robots[name].robots for name in robots} == {"r1": 1, "r2": 1, "relay": 12}
    file = tmp_path / "sums" / "relay.safetensors"
    write_weights(file, tensors(rank=0), {"trunk": "t1", "labels": '["a","b"]', "robots": "-3"})
    assert list(store.of(SPACE)) == ["r1", "r2"]


def test_who_adds_sums_up_is_waited_for(store):
    taken, order = threading.Event(), []

    def takes_away():
        taken.set()
        with store.changing():
            order.append("taken away")

    with store.changing():
        thread = threading.Thread(target=takes_away)
        thread.start()
        taken.wait()
        time.sleep(0.05)
        order.append("added up")
    thread.join()
    assert order == ["added up", "taken away"]


def test_a_robot_that_is_forgotten_is_gone(store):
    store.forget("r1")
    assert store.robots() == ["r2"]


def test_a_disk_that_takes_nothing_is_named(tmp_path):
    (tmp_path / "sums").write_text("a file")
    with pytest.raises(StorageError, match="the sums of r1 cannot be kept"):
        SumsStore(tmp_path / "sums").save("r1", tensors(), SPACE)


def test_what_was_made_of_them_is_told(store, tmp_path, caplog):
    assert store.head() is None
    made = ClosedForm(
        version=4, method="ridge", strength=1.0, robots=("r1",), left_out={"r2": "why"}
    )
    store.note(made)
    assert store.head() == made
    assert made.sentences() == [
        "version 4 is a head in closed form (ridge): 1 robot",
        "sums of r2 are left out: why",
    ]
    relayed = made.model_copy(update={"robots": ("r1", "relay"), "behind": {"relay": 12}})
    assert relayed.words == (
        "version 4 is a head in closed form (ridge): 13 robots, 12 of them behind relay"
    )
    (tmp_path / "sums" / "head.json").write_text("{")
    assert store.head() is None
    assert "head.json is left out" in caplog.text
