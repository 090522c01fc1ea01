"""The store on disk: what goes first, and what a crash leaves."""

import os
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.data.manifest import MANIFEST, DataSetManifest, ManifestRow, write_manifest
from edge_agent.examples.spool import kept_examples
from edge_agent.examples.spool.kept_examples import (
    BatchNote,
    Held,
    KeptExamples,
    choose_evicted,
    keep_rows,
)

pytestmark = pytest.mark.base

NOW_S, DAY_S, PICTURE = 1_760_000_000.0, 86_400.0, b"p" * 1000
EVERYTHING = 1e9


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    return KeptExamples(tmp_path / "store")


def fill(store, batch, labels, at_s=NOW_S, first_ns=0):
    """Put a batch together as an extraction does, and accept it."""
    inside, rows = store.incoming(batch), []
    for index, label in enumerate(labels):
        file = f"{label}/{batch}-{first_ns + index}.jpg"
        (inside / file).parent.mkdir(parents=True, exist_ok=True)
        (inside / file).write_bytes(PICTURE)
        rows.append(
            ManifestRow(file=file, topic="/c", stamp_ns=first_ns + index, source=batch, label=label)
        )
    inside.mkdir(parents=True, exist_ok=True)
    write_manifest(inside / MANIFEST, rows)
    (inside / ".extract").mkdir()
    (inside / ".extract" / "journal").write_text("of the extraction")
    store.accept(batch, BatchNote(at_s, len(rows), len(rows), {}, {}))


def labels_of(store):
    return Counter(row.label for _, row in store.rows())


def whole(store, root):
    """Every picture has a row, every row a picture, and there is nothing else."""
    rows = {batch / row.file for batch, row in store.rows()}
    files = {p for p in root.rglob("*") if p.is_file() and p.suffix == ".jpg"}
    hidden = {p.name for p in root.rglob(".*")} - {".batch.json", ".incoming"}
    return rows == files and not hidden


def test_an_accepted_batch_is_there_with_its_note_and_nothing_else(store, tmp_path):
    fill(store, "run-1", ["star"] * 3)
    assert [path.name for path in store.batches()] == ["run-1"]
    assert store.note("run-1").kept == 3
    assert store.note("run-2") is None
    assert whole(store, tmp_path / "store")


def test_a_batch_without_examples_does_not_appear(store, tmp_path):
    fill(store, "run-1", [])
    assert store.batches() == []
    assert not store.incoming("run-1").exists()


def test_a_store_that_is_not_there_is_empty(tmp_path):
    store = KeptExamples(tmp_path / "none")
    assert store.batches() == list(store.rows()) == []


def test_the_oldest_of_the_commonest_label_go_first(store, tmp_path):
    fill(store, "monday", ["star"] * 6 + ["circle"] * 3)
    fill(store, "tuesday", ["star"] * 2 + ["circle"], at_s=NOW_S + 1)
    size = store.evict(8 * len(PICTURE), 1, NOW_S)
    assert (size.examples, size.size_bytes) == (8, 8 * len(PICTURE))
    assert labels_of(store) == {"star": 4, "circle": 4}
    kept = [(row.source, row.stamp_ns) for _, row in store.rows() if row.label == "star"]
    assert kept == [("monday", 4), ("monday", 5), ("tuesday", 0), ("tuesday", 1)]
    assert whole(store, tmp_path / "store")


def test_a_batch_that_has_lost_all_its_examples_is_gone(store, tmp_path):
    fill(store, "monday", ["star"] * 3)
    fill(store, "tuesday", ["star"] * 3, at_s=NOW_S + 1)
    store.evict(3 * len(PICTURE), 1, NOW_S)
    assert [path.name for path in store.batches()] == ["tuesday"]
    assert whole(store, tmp_path / "store")


def test_age_counts_from_the_day_a_batch_came_in_not_from_its_stamps(store):
    fill(store, "monday", ["star"], at_s=NOW_S - 3 * DAY_S, first_ns=10**18)
    fill(store, "wednesday", ["star"], at_s=NOW_S - DAY_S, first_ns=0)  # simulated time
    store.evict(EVERYTHING, 2, NOW_S)
    assert [path.name for path in store.batches()] == ["wednesday"]
    store.evict(EVERYTHING, 2, NOW_S - 100 * DAY_S)  # a clock that was set back
    assert [path.name for path in store.batches()] == ["wednesday"]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50)), max_size=40),
    st.integers(0, 1000),
)
def test_eviction_ends_within_the_limit_and_takes_no_more_than_it_must(examples, limit):
    held = [Held(0.0, i, "b", str(i), label, size) for i, (label, size) in enumerate(examples)]
    gone = choose_evicted(held, limit)
    left = [example for example in held if example not in gone]
    assert sum(example.size_bytes for example in left) <= limit
    if gone:
        assert sum(example.size_bytes for example in [*left, gone[-1]]) > limit
    before, after = (Counter(e.label for e in some) for some in (held, left))
    for label in before:
        if after[label] < before[label]:  # it was the commonest when its last one went
            assert after[label] + 1 >= max(after.values(), default=0)
        oldest = [e for e in held if e.label == label]
        assert [e for e in left if e.label == label] == oldest[before[label] - after[label] :]


class Killed(BaseException):
    """Stands for kill -9: nothing behind it runs."""


@pytest.mark.parametrize("moment", range(22))
def test_an_eviction_that_is_killed_at_any_moment_is_completed(
    store, tmp_path, monkeypatch, moment
):
    """Every call that changes the disk is the last one once."""
    fill(store, "monday", ["star"] * 3 + ["circle"] * 2)
    fill(store, "tuesday", ["star"] * 2 + ["circle"] * 2, at_s=NOW_S + 1)
    calls = iter(range(1000))

    def dies(name):
        original = getattr(os, name)

        def call(*arguments, **options):
            if next(calls) == moment:
                raise Killed(name)
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patched:
        for name in ("unlink", "rename", "replace", "rmdir", "fsync", "mkdir"):
            patched.setattr(os, name, dies(name))
        try:
            store.evict(3 * len(PICTURE), 1, NOW_S)
            finished = True
        except Killed:
            finished = False
    assert all((batch / row.file).exists() for batch, row in store.rows())  # nothing by half
    store.repair()
    size = store.evict(3 * len(PICTURE), 1, NOW_S)
    assert size.examples == 3
    assert whole(store, tmp_path / "store")
    assert finished is (moment >= next(calls))


def test_what_a_crash_leaves_in_incoming_goes_unless_it_is_underway(store):
    for batch in ("run-1", "run-2"):
        store.incoming(batch).mkdir(parents=True)
    store.repair({"run-2"})
    assert not store.incoming("run-1").exists()
    assert store.incoming("run-2").exists()


def test_a_full_disk_makes_room_before_it_writes(store, tmp_path, monkeypatch):
    fill(store, "monday", ["star"] * 3)
    write, tries = kept_examples.write_manifest, []

    def full_at_first(path, rows):
        tries.append(len(list((tmp_path / "store").rglob("*.jpg"))))
        if len(tries) == 1:
            raise OSError(28, "No space left on device")
        write(path, rows)

    monkeypatch.setattr(kept_examples, "write_manifest", full_at_first)
    store.evict(2 * len(PICTURE), 1, NOW_S)
    assert tries == [3, 2]
    assert whole(store, tmp_path / "store")


def test_rows_without_a_picture_are_dropped(store, tmp_path):
    fill(store, "monday", ["star"] * 3)
    next((tmp_path / "store").rglob("*.jpg")).unlink()
    store.repair()
    assert labels_of(store) == {"star": 2}


def test_nothing_is_written_where_nothing_goes(store):
    fill(store, "monday", ["star"] * 3)
    (batch,) = store.batches()
    before = (batch / MANIFEST).stat().st_ino
    keep_rows(batch, lambda row: True)
    assert (batch / MANIFEST).stat().st_ino == before
    assert len(list(DataSetManifest(batch / MANIFEST))) == 3


def test_a_manifest_that_a_bad_disk_has_spoilt_is_left_alone(store, caplog):
    fill(store, "monday", ["star"] * 3)
    fill(store, "tuesday", ["star"])
    (store.batches()[0] / MANIFEST).write_bytes(b"\0\0")
    store.repair()
    assert store.evict(EVERYTHING, 1, NOW_S).examples == 1
    assert "monday is left alone" in caplog.text
