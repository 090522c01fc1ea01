import logging
import shutil
from collections import Counter
from dataclasses import replace

import pytest

from edge_agent.data.manifest import MANIFEST, ManifestRow, write_manifest
from edge_agent.examples.example_store import ExampleStore
from edge_agent.examples.left_out import by_kind
from edge_agent.examples.taught import Said
from fleet_model.errors import FrameError, SettingsError
from fleet_model.types import Box

pytestmark = pytest.mark.base

LABELS = ("circle", "star")
DRIVE = (["circle"] * 4 + ["star"] * 4) * 6  # 24 s at 2 Hz


@pytest.fixture
def store_of(bags):
    def make(*paths, **options):
        return ExampleStore(paths, "", bags.LABELS, LABELS, **({"segment_s": 2.0} | options))

    return make


def sides(store):
    return {example.key: example.held_out for example in store.examples()}


def test_examples_carry_frame_label_and_a_key_that_names_them(bags, tmp_path, store_of):
    path = bags.drive(tmp_path / "r1", DRIVE)
    examples = list(store_of(path).examples())
    assert [example.label for example in examples] == DRIVE
    assert len({example.key for example in examples}) == len(DRIVE)
    assert examples[0].key.startswith(f"r1/camera/image/compressed/{bags.START_NS}-")
    assert examples[3].raw.decode().shape == (24, 32, 3)


def test_the_summary_counts_what_examples_yields(bags, tmp_path, store_of):
    labels = [*DRIVE, "", "triangle", "", "star"]
    store = store_of(bags.drive(tmp_path / "r1", labels))
    summary = store.summary()
    examples = list(store.examples())
    assert summary.examples == len(examples) == 49
    assert summary.held_out == sum(example.held_out for example in examples) > 0
    assert summary.labels == {"circle": 24, "star": 25}
    assert summary.skipped == {
        "without a label": 2,
        "labelled 'triangle', which is not learned": 1,
    }


def test_keys_and_training_examples_stay_when_a_newer_bag_arrives(bags, tmp_path, store_of):
    day = tmp_path / "recordings"
    bags.drive(day / "b_morning", DRIVE)
    store = store_of(day)
    before = sides(store)
    bags.drive(day / "a_evening", DRIVE, start_ns=bags.START_NS + 3600 * 10**9)
    after = sides(store)
    assert len(after) == 2 * len(before)
    assert before.keys() <= after.keys()
    assert not any(after[key] for key, held_out in before.items() if not held_out)
    assert store.summary().examples == 96


def test_a_tiny_bag_gets_both_sides_and_one_frame_is_trained_on(bags, tmp_path, store_of):
    tiny = store_of(bags.drive(tmp_path / "r1", ["star"] * 3), segment_s=10.0)
    assert sorted(sides(tiny).values()) == [False, False, True]
    single = store_of(bags.drive(tmp_path / "r2", ["star"]))
    assert list(sides(single).values()) == [False]


def test_a_copy_of_a_bag_adds_nothing_and_another_bag_of_the_same_name_does(
    bags, tmp_path, store_of
):
    first = bags.drive(tmp_path / "monday" / "r1", DRIVE)
    copy = tmp_path / "backup" / "r1"
    shutil.copytree(first, copy)
    other = bags.drive(tmp_path / "tuesday" / "r1", ["star", *DRIVE[1:]], start_ns=10**18)
    summary = store_of(first, copy, other).summary()
    assert summary.examples == 96
    assert summary.skipped == {"a copy of another frame": 48}


def test_pictures_of_one_stamp_have_their_own_keys(bags, tmp_path, store_of, picture_bytes):
    stamp = bags.START_NS
    messages = [(bags.CAMERA, stamp, bags.jpeg(stamp, picture_bytes(i))) for i in range(5)]
    messages.append((bags.LABELS, stamp, bags.text("star")))
    examples = list(store_of(bags.write(tmp_path / "r1", messages)).examples())
    assert len({example.key for example in examples}) == 5


def test_image_folders_are_examples_and_every_label_is_measured(image_folder, store_of):
    folder = image_folder("signs", {"circle": 10, "star": 5, "moon": 2})
    store = store_of(folder)
    summary = store.summary()
    assert summary.labels == {"circle": 10, "star": 5}
    assert summary.skipped == {"labelled 'moon', which is not learned": 2}
    measured = {example.label for example in store.examples() if example.held_out}
    assert measured == set(LABELS)


def test_what_is_readable_of_a_cut_bag_is_used_and_its_damage_is_counted_and_logged_once(
    bags, tmp_path, store_of, caplog
):
    good, cut = (bags.drive(tmp_path / name, DRIVE) for name in ("good", "cut"))
    whole = (cut / "cut.mcap").read_bytes()
    (cut / "cut.mcap").write_bytes(whole[: len(whole) // 2])
    store = store_of(cut, good, tmp_path / "gone")
    with caplog.at_level(logging.WARNING):
        sources = Counter(example.key.partition("/")[0] for example in store.examples())
        skipped = store.summary().skipped
    assert sources["good"] == 48
    assert 15 < sources["cut"] < 33  # the readable half
    assert skipped.keys() == {"cut file", "unreadable source"}
    assert skipped["unreadable source"] == 1
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(set(messages)) == 2
    assert any(message.startswith("cut file: cut.mcap at byte ") for message in messages)
    assert "gone: no such file or folder" in messages


def test_a_bag_without_the_label_topic_is_counted_in_frames_and_named(
    bags, tmp_path, store_of, caplog
):
    good = bags.drive(tmp_path / "good", DRIVE)
    lacking = bags.drive(tmp_path / "lacking", [""] * 5)
    store = store_of(good, lacking)
    with caplog.at_level(logging.WARNING):
        summary = store.summary()
    assert (summary.examples, summary.skipped) == (48, {"no label topic": 5})
    assert by_kind(summary.skipped) == {"unlabelled": 5}
    assert "lacking: no label topic /camera/label; it has none" in caplog.text
    with pytest.raises(FrameError, match="lacking: no label topic") as raised:
        store_of(lacking).summary()
    assert raised.value.reason == "wrong label topic"  # what the server is told


def test_a_recording_of_nothing_but_damage_does_not_stop_the_others(bags, tmp_path, store_of):
    good, spoilt = (bags.drive(tmp_path / name, DRIVE) for name in ("good", "spoilt"))
    (spoilt / "spoilt.mcap").write_bytes(b"\0" * 1000)
    summary = store_of(spoilt, good).summary()
    assert summary.examples == 48
    assert sum(summary.skipped.values()) >= 1


def test_the_files_of_a_split_bag_without_metadata_are_used(bags, tmp_path, store_of):
    folder = tmp_path / "split"
    folder.mkdir()
    for part in range(2):
        bags.drive(tmp_path / f"part_{part}", DRIVE, start_ns=bags.START_NS + part * 60 * 10**9)
        shutil.move(tmp_path / f"part_{part}" / f"part_{part}.mcap", folder)
    (folder / "part_1.mcap").write_bytes((folder / "part_1.mcap").read_bytes()[:-9])
    summary = store_of(folder).summary()
    assert summary.examples == 96  # only the end of the index is gone
    assert summary.skipped.keys() == {"cut file"}


def test_a_picture_that_only_decoding_shows_damaged_is_left_to_the_decoder(
    bags, tmp_path, store_of, spoilt_png
):
    messages = [(bags.CAMERA, bags.START_NS, bags.jpeg(bags.START_NS, spoilt_png, "png"))]
    messages.append((bags.LABELS, bags.START_NS, bags.text("star")))
    (example,) = store_of(bags.write(tmp_path / "r1", messages)).examples()
    with pytest.raises(FrameError, match="a damaged png"):
        example.raw.decode()


def test_a_cut_picture_is_skipped_by_its_reason(bags, tmp_path, store_of, picture_bytes):
    messages = []
    for index in range(4):
        stamp = bags.START_NS + index * 10**9
        content = picture_bytes(index)[: -20 if index == 2 else None]
        messages.append((bags.CAMERA, stamp, bags.jpeg(stamp, content)))
        messages.append((bags.LABELS, stamp, bags.text("star")))
    summary = store_of(bags.write(tmp_path / "r1", messages)).summary()
    assert summary.examples == 3
    assert summary.skipped == {"cut jpeg": 1}


def test_nothing_readable_is_an_error_with_the_first_reason(tmp_path, store_of):
    with pytest.raises(FrameError, match="no frame of any recording can be read: gone: no such"):
        list(store_of(tmp_path / "gone", tmp_path / "lost").examples())


def test_wrong_numbers_are_refused_before_anything_is_read(tmp_path, store_of):
    with pytest.raises(SettingsError, match=r"held_out is 0\.9"):
        store_of(tmp_path / "gone", held_out=0.9)


# ------------------------------------------------------------------------------- what is held out


def test_frames_of_a_camera_on_both_sides_of_a_border_are_left_out(bags, tmp_path, store_of):
    drive = bags.drive(tmp_path / "r1", ["circle"] * 600, period_ns=100_000_000)
    store = store_of(drive, segment_s=10.0)
    stamps = {True: [], False: []}
    for example in store.examples():
        stamps[example.held_out].append(example.raw.stamp_ns)
    assert min(abs(held - other) for held in stamps[True] for other in stamps[False]) >= 10**9
    summary = store.summary()
    assert summary.skipped["between training and held out"] == 600 - summary.examples > 0
    assert summary.held_out == len(stamps[True]) > 0


def test_neighbors_are_measured_with_only_for_want_of_others_and_the_log_says_so(
    bags, tmp_path, store_of, caplog
):
    short = bags.drive(tmp_path / "short", ["star"] * 20, period_ns=100_000_000)
    assert store_of(short, segment_s=10.0).summary().held_out == 4
    assert "star: too short a recording to measure with" in caplog.text
    caplog.clear()
    long = bags.drive(tmp_path / "long", ["star"] * 600, period_ns=100_000_000)
    assert store_of(long, segment_s=10.0).summary().held_out > 4
    assert "too short" not in caplog.text


def test_examples_that_go_move_none_from_training_to_held_out(bags, tmp_path, store_of):
    """The oldest recording is removed: without a memory the newest frames would be held out."""
    memory = tmp_path / "state" / "trained.json"
    for hour in range(3):
        start_ns = bags.START_NS + hour * 3600 * 10**9
        bags.drive(tmp_path / "bags" / f"r{hour}", DRIVE, start_ns=start_ns)
    before = sides(store_of(tmp_path / "bags", trained=memory))
    shutil.rmtree(tmp_path / "bags" / "r0")
    shutil.rmtree(tmp_path / "bags" / "r1")
    forgetful = sides(store_of(tmp_path / "bags", segment_s=1000.0))
    after = sides(store_of(tmp_path / "bags", trained=memory))
    assert any(held and not before[key] for key, held in forgetful.items())
    assert not any(held and not before[key] for key, held in after.items())


# ------------------------------------------------------------------------------- data sets


@pytest.fixture
def kept_batch(tmp_path, picture_bytes):
    """Return a writer of one batch of KeptExamples."""

    def write(name, labels, start_ns):
        batch, rows = tmp_path / "kept" / name, []
        for index, label in enumerate(labels):
            file = f"{label}/{index}.jpg"
            (batch / file).parent.mkdir(parents=True, exist_ok=True)
            (batch / file).write_bytes(picture_bytes(index))
            boxes = (Box(label=label, x0=1.5, y0=2.0, x1=20.1, y1=12.0),)
            row = ManifestRow(
                file=file, topic="/c", stamp_ns=start_ns + index, source=name, label=label,
                boxes=boxes, width=32, height=24,
            )  # fmt: skip
            rows.append(row)
        write_manifest(batch / MANIFEST, rows)
        return tmp_path / "kept"

    return write


def test_the_robots_own_store_is_read_beside_the_recordings(bags, tmp_path, store_of, kept_batch):
    kept_batch("run-1", ["star"] * 3, bags.START_NS)
    kept = kept_batch("run-2", ["circle"] * 2, bags.START_NS + 10**12)
    drive = bags.drive(tmp_path / "r1", DRIVE)
    examples = list(store_of(drive, kept=kept).examples())
    assert len(examples) == 53
    mine = [example for example in examples if example.key.startswith("run-")]
    assert mine[0].key.startswith(f"run-1/c/{bags.START_NS}-")
    assert mine[0].boxes == (Box(label="star", x0=1.5, y0=2.0, x1=20.1, y1=12.0),)


CUP, LID = (Box(label=name, x0=1.0, y0=2.0, x1=9.0, y1=8.0) for name in ("cup", "lid"))
SEEN_NS = 10**18


@pytest.fixture
def boxed(tmp_path, picture_bytes):
    """Return a writer of a folder with a frame for each (label, boxes, seen), by manifest."""

    def write(*told):
        rows = []
        (tmp_path / "set").mkdir()
        for index, (label, boxes, seen) in enumerate(told):
            (tmp_path / "set" / f"{index}.jpg").write_bytes(picture_bytes(index))
            row = ManifestRow(
                file=f"{index}.jpg", topic="/c", stamp_ns=SEEN_NS + index * 10**9, source="r1",
                label=label, boxes=boxes, seen=seen, width=32, height=24,
            )  # fmt: skip
            rows.append(row)
        write_manifest(tmp_path / "set" / MANIFEST, rows)
        return tmp_path / "set"

    return write


def of_boxes(path, labels=("cup",), **options):
    return ExampleStore((path,), "", "", labels, boxes=True, **options)


def told(store):
    found = sorted(store.examples(), key=lambda example: example.raw.stamp_ns)
    return [
        ((e.raw.stamp_ns - SEEN_NS) // 10**9, e.label, [b.label for b in e.boxes]) for e in found
    ]


def test_where_boxes_are_learned_frames_that_nobody_has_looked_at_are_no_negatives(boxed):
    path = boxed(
        ("", (), True), ("", (), False), ("cup", (), False), ("hall", (), True),
        ("cup", (CUP,), True),
    )  # fmt: skip
    store = of_boxes(path)
    assert told(store) == [(0, None, []), (3, None, []), (4, "cup", ["cup"])]
    assert all(example.seen for example in store.examples())
    assert store.left_out == {"in which nobody has said what is there": 2}
    assert by_kind(store.left_out) == {"unlabelled": 2}
    assert store.summary().labels == {"cup": 1}
    every = list(ExampleStore((path,), "", "", ()).examples())
    assert [example.seen for example in every] == [True, False, False, True, True]


def test_frames_that_nobody_has_looked_at_take_no_place_among_the_held_out(boxed):
    path = boxed(*[("", (), index % 10 == 0) for index in range(50)])
    store = of_boxes(path, segment_s=2.0)
    held_out = [example.held_out for example in store.examples()]
    assert len(held_out) == 5
    assert sum(held_out) == 1


def test_a_frame_with_a_thing_that_is_not_learned_teaches_nothing(boxed):
    mug = replace(CUP, label="Cup")
    path = boxed(("", (CUP, LID), True), ("", (mug,), True), ("", (CUP,), True))
    store = of_boxes(path)
    assert told(store) == [(2, "cup", ["cup"])]
    assert store.left_out == {
        "labelled 'lid', which is not learned": 1,
        "labelled 'Cup', which is not learned (did you mean 'cup'?)": 1,
    }
    assert by_kind(store.left_out) == {"unknown_label": 2}
    assert len(list(of_boxes(path, labels=()).examples())) == 3


def test_boxes_by_another_word_are_learned_under_their_label(boxed):
    big = Box(label="mug", x0=0.0, y0=0.0, x1=30.0, y1=20.0)
    path = boxed(("hall", (CUP, big), True), ("hall", (CUP,), True))
    store = of_boxes(path, labels=("cup", "jug"), aliases={"mug": "jug", "hall": "cup"})
    assert told(store) == [(0, "jug", ["cup", "jug"]), (1, "cup", ["cup"])]
    assert store.renamed == {"'mug' as 'jug'": 1}


def test_an_empty_store_of_its_own_is_no_error(bags, tmp_path, store_of, kept_batch):
    drive = bags.drive(tmp_path / "r1", DRIVE)
    assert len(list(store_of(drive, kept=tmp_path / "none").examples())) == 48
    assert list(store_of(kept=tmp_path / "none").examples()) == []
    kept = kept_batch("run-1", ["star"] * 3, bags.START_NS)
    assert len(list(store_of(tmp_path / "gone", kept=kept).examples())) == 3


def test_a_picture_of_the_store_that_was_evicted_meanwhile_is_counted(
    bags, store_of, kept_batch, tmp_path
):
    kept = kept_batch("run-1", ["star"] * 3, bags.START_NS)
    (kept / "run-1" / "star" / "1.jpg").unlink()
    summary = store_of(kept=kept).summary()
    assert (summary.examples, summary.skipped) == (2, {"missing file": 1})


def test_an_empty_folder_holds_no_recordings_yet_and_is_no_failure(tmp_path, store_of, caplog):
    (tmp_path / "bags").mkdir()
    summary = store_of(tmp_path / "bags").summary()
    assert (summary.examples, summary.skipped, caplog.text) == (0, {}, "")


# ---------------------------------------------------------------- frames for a model to label

PSEUDO = {"most": 1000, "weight": 0.5, "precision": 0.95}


def test_frames_without_a_label_are_yielded_only_where_that_is_wanted(bags, tmp_path, store_of):
    labels = [*DRIVE, *[""] * 40, *["triangle"] * 4]  # nobody has to guess what a triangle is
    path = bags.drive(tmp_path / "r1", labels)
    assert not [e for e in store_of(path).examples() if e.pseudo]
    plain = list(store_of(path).examples())
    store = store_of(path, pseudo=PSEUDO)
    found = list(store.examples())
    unlabelled = [e for e in found if e.pseudo]
    assert [e.key for e in found if not e.pseudo] == [e.key for e in plain]
    assert [e.held_out for e in found if not e.pseudo] == [e.held_out for e in plain]
    assert 20 < len(unlabelled) <= 40
    assert store.left_out == {"without a label": 40, "labelled 'triangle', which is not learned": 4}
    for one in unlabelled:
        assert (one.label, one.held_out, one.seen) == (None, False, False)
        assert (one.pseudo.weight, one.pseudo.precision) == (0.5, 0.95)
        assert one.raw.decode().shape == (24, 32, 3)
    assert store.summary().examples == len(plain)


def test_those_that_a_label_would_hold_out_are_not_among_them(bags, tmp_path, store_of):
    labels = [*DRIVE, *[""] * 40]
    unlabelled = {
        e.key
        for e in store_of(bags.drive(tmp_path / "r1", labels), pseudo=PSEUDO).examples()
        if e.pseudo
    }
    labelled = store_of(bags.drive(tmp_path / "later" / "r1", [*DRIVE, *["star"] * 40]))
    held_out = {e.raw.stamp_ns for e in labelled.examples() if e.held_out}
    assert not {int(key.rpartition("/")[2].partition("-")[0]) for key in unlabelled} & held_out


def test_a_bag_without_the_label_topic_is_for_the_model_too(bags, tmp_path, store_of):
    labelled = bags.drive(tmp_path / "r1", DRIVE)
    bare = bags.drive(tmp_path / "r2", [""] * 40, start_ns=bags.START_NS + 3600 * 10**9)
    store = store_of(labelled, bare, pseudo=PSEUDO)
    unlabelled = [e for e in store.examples() if e.pseudo]
    assert unlabelled
    assert {e.raw.source for e in unlabelled} == {"r2"}


def test_there_are_at_most_so_many_and_they_stay_when_others_come(bags, tmp_path, store_of):
    labels = [*DRIVE, *[""] * 40]
    path = bags.drive(tmp_path / "bags" / "r1", labels)
    few = store_of(tmp_path / "bags", pseudo={**PSEUDO, "most": 10})
    before = {e.key for e in few.examples() if e.pseudo}
    assert len(before) == 10
    assert path.exists()
    bags.drive(tmp_path / "bags" / "r2", [""] * 20, start_ns=bags.START_NS + 3600 * 10**9)
    after = {e.key for e in few.examples() if e.pseudo}
    assert len(after) == 10
    assert 3 < len(before & after) < 10


def test_a_frame_that_a_person_has_labelled_is_never_left_to_the_model(bags, tmp_path, store_of):
    path = bags.drive(tmp_path / "r1", [*DRIVE, *[""] * 40])
    unlabelled = [e for e in store_of(path, pseudo=PSEUDO).examples() if e.pseudo]
    one = unlabelled[0].raw
    answered = tmp_path / "answered"
    answered.mkdir()
    (answered / "one.jpg").write_bytes(bytes(one.data))
    row = ManifestRow(
        file="one.jpg", topic=one.topic, stamp_ns=one.stamp_ns, source=one.source, label="star",
        width=32, height=24,
    )  # fmt: skip
    write_manifest(answered / MANIFEST, [row])
    found = list(store_of(path, pseudo=PSEUDO, answered=answered).examples())
    mine = [e for e in found if e.raw.stamp_ns == one.stamp_ns]
    assert [(e.label, e.pseudo) for e in mine] == [("star", None)]
    assert len([e for e in found if e.pseudo]) == len(unlabelled) - 1


# ------------------------------------------------------------------------- what teachers have said


def teach(folder, keys, label="star"):
    """Write what a teacher says of these frames; return the option of a store."""
    who = b'{"teacher": "big", "version": 1}\n'
    folder.mkdir(exist_ok=True)
    said = Said(label=label)
    (folder / "big.jsonl").write_bytes(who + b"".join(said.line(key) for key in keys))
    return {"folder": str(folder), "weight": 0.25}


def test_a_teacher_s_frames_are_trained_on_and_nothing_else_changes(bags, tmp_path, store_of):
    path = bags.drive(tmp_path / "r1", [*DRIVE, *[""] * 40])
    plain = list(store_of(path).examples())
    keys = [e.key for e in store_of(path, pseudo=PSEUDO).examples() if e.pseudo]
    store = store_of(path, pseudo=PSEUDO, taught=teach(tmp_path / "t", keys[:15]))
    found = list(store.examples())
    taught = [e for e in found if e.taught]
    assert {e.key for e in taught} == set(keys[:15])
    assert {(e.label, e.held_out, e.taught, e.pseudo) for e in taught} == {
        ("star", False, 0.25, None)
    }
    assert [e.key for e in found if e.pseudo] == sorted(keys[15:], key=keys.index)
    others = [(e.key, e.held_out) for e in found if not e.taught and not e.pseudo]
    assert others == [(e.key, e.held_out) for e in plain]
    assert store.left_out == {"without a label": 25}


def test_a_label_of_a_teacher_weighs_no_more_than_people_s_of_it(bags, tmp_path, store_of):
    path = bags.drive(tmp_path / "r1", [*["circle"] * 20, *DRIVE, *[""] * 200])
    keys = [e.key for e in store_of(path, pseudo={**PSEUDO, "most": 999}).examples() if e.pseudo]
    for label in ("circle", "star"):
        taught = {**teach(tmp_path / "t", keys, label), "weight": 0.5}
        found = list(store_of(path, taught=taught).examples())
        people = sum(e.label == label and not e.taught and not e.held_out for e in found)
        weights = [e.taught for e in found if e.taught]
        assert sum(weights) == pytest.approx(people)
        assert set(weights) == {people / len(keys)}
        assert max(weights) < 0.5


def test_where_nobody_learns_a_teacher_has_said_nothing(bags, tmp_path, store_of):
    path = bags.drive(tmp_path / "r1", [*DRIVE, *[""] * 40])
    keys = [e.key for e in store_of(path, pseudo=PSEUDO).examples() if e.pseudo]
    taught = {**teach(tmp_path / "t", keys), "weight": 0}
    store = store_of(path, taught=taught)
    assert sides(store) == sides(store_of(path))
    assert store.left_out == {"without a label": 40}


def test_a_teacher_s_words_that_are_not_learned_are_none(bags, tmp_path, store_of):
    path = bags.drive(tmp_path / "r1", [*DRIVE, *[""] * 40])
    keys = [e.key for e in store_of(path, pseudo=PSEUDO).examples() if e.pseudo]
    taught = teach(tmp_path / "t", keys, "truck")
    assert not [e for e in store_of(path, taught=taught).examples() if e.taught]
    renamed = store_of(path, taught=taught, aliases={"truck": "circle"})
    assert {e.label for e in renamed.examples() if e.taught} == {"circle"}


def test_a_label_of_a_person_takes_the_teacher_s_place_and_is_not_measured(
    bags, tmp_path, store_of
):
    labels = [*["circle"] * 20, *[""] * 60]  # 40 s at 2 Hz, in a minute that is not picked
    start = bags.START_NS + 40 * 10**9
    path = bags.drive(tmp_path / "one" / "r1", labels, start_ns=start)
    keys = [e.key for e in store_of(path, pseudo=PSEUDO, segment_s=60.0).examples() if e.pseudo]
    later = bags.drive(tmp_path / "two" / "r1", ["circle"] * 80, start_ns=start)
    before = sides(store_of(later, segment_s=60.0))
    assert any(before[key] for key in keys)  # the newest ones would be held out
    for weight in (0.25, 0):
        taught = {**teach(tmp_path / "t", keys, "star"), "weight": weight}
        store = store_of(later, segment_s=60.0, taught=taught)
        found = {e.key: e for e in store.examples()}
        mine = [found[key] for key in keys if key in found]  # but for those between the sides
        assert len(mine) > len(keys) / 2
        assert {(one.label, one.held_out) for one in mine} == {("circle", False)}
        assert any(before[one.key] for one in mine)
        assert not [e for e in found.values() if e.taught]
        assert store.summary().held_out == sum(e.held_out for e in found.values())


@pytest.mark.parametrize(("place", "last_s"), [(3, 19.5), (7, 36.0)])
def test_the_others_of_the_newest_frames_stay_held_out_beside_a_taught_one(
    bags, tmp_path, store_of, place, last_s
):
    start = bags.START_NS + 40 * 10**9  # a minute that is not picked
    bags.drive(tmp_path / "all" / "r1", ["circle"] * 39, start_ns=start)
    last = start + round(last_s * 10**9)  # the later one is far from all that is trained on
    bags.drive(tmp_path / "all" / "r1b", ["circle"], start_ns=last)
    found = store_of(tmp_path / "all", held_out=0.0).examples()
    newest = sorted(found, key=lambda example: example.raw.stamp_ns)[-8:]
    one, *others = (e.key for e in (newest[place], *newest[:place], *newest[place + 1 :]))
    options = {"segment_s": 60.0, "trained": tmp_path / "trained.json"}
    taught = teach(tmp_path / "t", [one])
    for _ in range(2):
        found = sides(store_of(tmp_path / "all", **options, taught=taught))
        assert {key for key, held_out in found.items() if held_out} == {*others}
        assert found[one] is False
        assert len(found) == 40


def test_boxes_of_a_teacher_teach_where_boxes_are_learned(bags, tmp_path, store_of):
    path = bags.drive(tmp_path / "r1", ["star"] * 40)
    keys = [e.key for e in store_of(path, pseudo=PSEUDO, boxes=True).examples()]
    folder = tmp_path / "t"
    option = teach(folder, keys[1:])  # a class is no box
    box = Box(label="star", x0=1.0, y0=2.0, x1=9.0, y1=9.0)
    with (folder / "big.jsonl").open("ab") as stream:
        stream.write(Said(boxes=(box,)).line(keys[0]))
    found = list(store_of(path, taught=option, boxes=True).examples())
    assert [(e.key, e.boxes, e.seen, e.label) for e in found] == [(keys[0], (box,), True, "star")]
