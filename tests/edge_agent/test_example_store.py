import logging
import shutil

import pytest

from edge_agent.example_store import ExampleStore
from fleet_model.errors import FrameError, SettingsError

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


def test_good_bags_are_used_beside_damaged_ones_which_are_counted_and_logged_once(
    bags, tmp_path, store_of, caplog
):
    good, cut = (bags.drive(tmp_path / name, DRIVE) for name in ("good", "cut"))
    whole = (cut / "cut.mcap").read_bytes()
    (cut / "cut.mcap").write_bytes(whole[: len(whole) // 2])
    store = store_of(cut, good, tmp_path / "gone")
    with caplog.at_level(logging.WARNING):
        assert len(list(store.examples())) == 48
        assert store.summary().skipped == {"unreadable source": 2}
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(set(messages)) == 3
    assert any("cut/cut.mcap: " in message for message in messages)


def test_the_good_files_of_a_damaged_bag_are_used(bags, tmp_path, store_of):
    folder = tmp_path / "split"
    folder.mkdir()
    for part in range(2):
        bags.drive(tmp_path / f"part_{part}", DRIVE, start_ns=bags.START_NS + part * 60 * 10**9)
        shutil.move(tmp_path / f"part_{part}" / f"part_{part}.mcap", folder)
    (folder / "part_1.mcap").write_bytes((folder / "part_1.mcap").read_bytes()[:-9])
    summary = store_of(folder).summary()
    assert summary.examples == 48
    assert summary.skipped == {"unreadable source": 1}


def test_a_damaged_picture_in_a_good_message_is_left_to_the_decoder(bags, tmp_path, store_of):
    messages = [(bags.CAMERA, bags.START_NS, bags.jpeg(bags.START_NS, b"\xff\xd8\xff no jpeg"))]
    messages.append((bags.LABELS, bags.START_NS, bags.text("star")))
    (example,) = store_of(bags.write(tmp_path / "r1", messages)).examples()
    with pytest.raises(FrameError, match="cut short"):
        example.raw.decode()


def test_nothing_readable_is_an_error_with_the_first_reason(tmp_path, store_of):
    with pytest.raises(FrameError, match="no frame of any recording can be read: gone: no such"):
        list(store_of(tmp_path / "gone", tmp_path / "lost").examples())


def test_wrong_numbers_are_refused_before_anything_is_read(tmp_path, store_of):
    with pytest.raises(SettingsError, match=r"held_out is 0\.9"):
        store_of(tmp_path / "gone", held_out=0.9)
