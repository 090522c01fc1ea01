"""What an extraction writes, counts and leaves out; for crashes see test_crash.py."""

import shutil

import cv2
import numpy as np
import pytest

from edge_agent.data.extraction import extract as extraction
from edge_agent.data.extraction.extract import ExtractOptions, Progress, extract
from edge_agent.data.extraction.selection import Selection, TimeLimit
from edge_agent.data.frames.bag import BagFrames
from edge_agent.data.labels import LabelSettings, labelled_frames
from edge_agent.data.manifest import DataSetManifest
from fleet_model.errors import FrameError, SettingsError
from fleet_model.files.damage import DamageLog

pytestmark = pytest.mark.base

T0 = 1_760_000_000_000_000_000
CAMERA, LABELS = "/camera/image/compressed", "/camera/label"
WITH_LABELS = LabelSettings(label_topic=LABELS)


def manifest(out):
    return list(DataSetManifest(out / "manifest.csv"))


def tree(root):
    """Return every file below, with its bytes."""
    return {f.relative_to(root).as_posix(): f.read_bytes() for f in root.rglob("*") if f.is_file()}


def picture(seed, size=(48, 64)):
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_NEAREST)


def jpeg(rgb):
    return cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def run(path, out, **options):
    paths = path if isinstance(path, tuple) else (path,)
    summary = extract(ExtractOptions(paths=paths, out=out, **options))
    assert summary.frames_seen == summary.frames_written + sum(summary.skipped.values())
    assert len(manifest(out)) == summary.frames_written
    return summary


def test_jpegs_are_written_byte_for_byte_with_their_labels(bags, tmp_path, picture_bytes):
    bag = bags.drive(tmp_path / "r1", ["star", "", "circle"])
    summary = run(bag, tmp_path / "out", labels=WITH_LABELS)
    assert (summary.frames_seen, summary.skipped, summary.damage) == (3, {}, ())
    rows = manifest(tmp_path / "out")
    assert [row.file for row in rows] == [
        f"star/r1-{T0}.jpg",
        f"unlabeled/r1-{T0 + 500_000_000}.jpg",
        f"circle/r1-{T0 + 1_000_000_000}.jpg",
    ]
    assert [(r.topic, r.source, r.label, r.sharpness) for r in rows][:2] == [
        (CAMERA, "r1", "star", None),
        (CAMERA, "r1", "", None),
    ]
    for index, row in enumerate(rows):
        assert (tmp_path / "out" / row.file).read_bytes() == picture_bytes(index)
        assert (row.width, row.height) == (32, 24)


def test_raw_pictures_keep_every_pixel(bags, tmp_path):
    random = np.random.default_rng(1)
    images = [random.integers(0, 255, (12, 30), np.uint8) for _ in range(20)]
    messages = [
        ("/image", T0 + i, bags.raw(T0 + i, rows, "bgr8", width=9)) for i, rows in enumerate(images)
    ]
    out = tmp_path / "out"
    run(bags.write(tmp_path / "r1", messages), out)
    for rows, entry in zip(images, manifest(out), strict=True):
        assert np.array_equal(cv2.imread(str(out / entry.file)), rows[:, :27].reshape(12, 9, 3))


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        (Selection(every_n=3), [0, 3, 6, 9]),
        (Selection(rate_hz=1), [0, 2, 4, 6, 8]),
        (Selection(start=TimeLimit(10**9, False), end=TimeLimit(3 * 10**9, False)), [2, 3, 4, 5]),
    ],
)
def test_thinned_frames_are_counted_and_never_loaded(bags, tmp_path, monkeypatch, wanted, kept):
    bag = bags.drive(tmp_path / "r1", ["star"] * 10)
    loads = []

    def counted(path, settings, damage):
        for index, entry in enumerate(original(path, settings, damage)):
            load = entry.load
            yield entry._replace(load=lambda i=index, load=load: loads.append(i) or load())

    original = extraction.labelled_entries
    monkeypatch.setattr(extraction, "labelled_entries", counted)
    summary = run(bag, tmp_path / "out", selection=wanted)
    assert loads == kept
    assert summary.frames_written == len(kept)
    assert sum(summary.skipped.values()) == 10 - len(kept)


def test_damaged_frames_are_counted_by_reason_and_the_rest_is_written(
    bags, tmp_path, picture_bytes
):
    contents = [picture_bytes(i) for i in range(6)]
    contents[1] = contents[1][:-40]
    contents[3] = b""
    contents[4] = contents[4][:-30]
    messages = [(CAMERA, T0 + i, bags.jpeg(T0 + i, c)) for i, c in enumerate(contents)]
    summary = run(bags.write(tmp_path / "r1", messages), tmp_path / "out")
    assert summary.skipped == {"cut jpeg": 2, "empty": 1}
    assert [(d.kind, d.count) for d in summary.damage] == [("cut jpeg", 2), ("empty", 1)]
    assert str(T0 + 1) in summary.damage[0].begins
    again = run(tmp_path / "r1", tmp_path / "out")
    assert (again.skipped, again.damage) == (summary.skipped, summary.damage)


def test_what_only_decoding_shows_is_damage_when_it_is_decoded(bags, tmp_path, spoilt_png):
    messages = [(CAMERA, T0, bags.jpeg(T0, spoilt_png, "png"))]
    bag = bags.write(tmp_path / "r1", messages)
    assert run(bag, tmp_path / "kept").frames_written == 1
    for name, options in {"q": {"min_sharpness": 0.0}, "j": {"image_format": "jpeg"}}.items():
        summary = run(bag, tmp_path / name, **options)
        assert summary.skipped == {"damaged png": 1}
        assert len(summary.damage) == 1


def test_equal_stamps_get_names_of_their_own(bags, tmp_path, picture_bytes):
    messages = [(CAMERA, T0 + i, bags.jpeg(T0, picture_bytes(i))) for i in range(3)]
    out = tmp_path / "out"
    run(bags.write(tmp_path / "r1", messages), out)
    names = [row.file for row in manifest(out)]
    assert names == [f"unlabeled/r1-{T0}{end}.jpg" for end in ("", "_1", "_2")]
    assert [(out / name).read_bytes() for name in names] == [picture_bytes(i) for i in range(3)]


def test_several_bags_make_one_data_set(bags, tmp_path):
    first = bags.drive(tmp_path / "a" / "run", ["star"] * 2)
    second = bags.drive(tmp_path / "b" / "run", ["circle"] * 3)
    summary = run((first, second), tmp_path / "out", labels=WITH_LABELS)
    assert summary.frames_written == 5
    assert len({row.file for row in manifest(tmp_path / "out")}) == 5


def test_an_unreadable_bag_among_others_is_damage_and_alone_an_error(bags, tmp_path):
    good = bags.drive(tmp_path / "good", [""] * 2)
    bad = tmp_path / "bad.mcap"
    bad.write_bytes(b"nothing like a bag" * 100)
    summary = run((bad, good), tmp_path / "out")
    assert summary.frames_written == 2
    assert "bad.mcap" in summary.damage[0].begins
    assert summary.left_out == ("bad.mcap",)
    with pytest.raises(FrameError, match=r"bad\.mcap"):
        run(bad, tmp_path / "alone")


def test_a_bag_without_the_label_topic_among_others_is_counted_and_named(bags, tmp_path):
    # A recorder was killed before the label topic's first message.
    paths = (
        bags.drive(tmp_path / "first", [""] * 4),
        bags.drive(tmp_path / "good", ["star"] * 3),
        bags.drive(tmp_path / "last", [""] * 2),
    )
    summary = run(paths, tmp_path / "out", labels=WITH_LABELS)
    assert (summary.frames_written, summary.frames_labelled) == (3, 3)
    assert summary.skipped == {"no label topic": 6}
    assert summary.left_out == ("first", "last")
    (damage,) = summary.damage
    assert (damage.kind, damage.count) == ("no label topic", 6)
    assert damage.begins.startswith(f"first: no label topic {LABELS}; it has none")
    assert run(paths, tmp_path / "out", labels=WITH_LABELS).already_there == 3
    second = Selection(start=TimeLimit(10**9, False), end=None)
    summary = run(paths, tmp_path / "later", labels=WITH_LABELS, selection=second)
    assert summary.skipped == {"time range": 6, "no label topic": 2}  # of "last" none is later


def test_a_label_topic_that_no_bag_has_is_an_error_before_anything_is_written(bags, tmp_path):
    good, other = (bags.drive(tmp_path / name, ["star"] * 3) for name in ("good", "other"))
    cut = bags.drive(tmp_path / "cut", ["star"] * 3)
    (file,) = cut.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-20])  # maybe it had the topic
    paths = (cut, bags.drive(tmp_path / "lacking", [""]), good, other)
    with pytest.raises(FrameError, match=rf"^good: no label topic /lable; it has {LABELS} "):
        run(paths, tmp_path / "out", labels=LabelSettings(label_topic="/lable"))
    assert not (tmp_path / "out").exists()


def test_a_bag_without_the_camera_topic_among_others_is_named(bags, tmp_path):
    good, none = bags.drive(tmp_path / "good", [""] * 2), tmp_path / "none"
    bags.write(none, [(LABELS, T0, bags.text("star"))])
    summary = run((none, good), tmp_path / "out")
    assert (summary.frames_written, summary.left_out) == (2, ("none",))
    assert summary.damage[0].begins.startswith("none: no camera topic; it has ")
    wrong = LabelSettings("/rear")
    with pytest.raises(FrameError, match="no camera topic /rear"):
        run((none, good), tmp_path / "wrong", labels=wrong)


def test_a_topic_that_must_be_named_is_an_error_also_among_others(bags, tmp_path, picture_bytes):
    good = bags.drive(tmp_path / "good", [""] * 2)
    messages = [(topic, T0, bags.jpeg(T0, picture_bytes(0))) for topic in ("/left", "/right")]
    two = bags.write(tmp_path / "two", messages)
    with pytest.raises(FrameError, match="--topic"):
        run((good, two), tmp_path / "out")
    # The same folder then takes the command that names it.
    with pytest.raises(FrameError, match="--topic"):
        run(two, tmp_path / "default")
    assert run(two, tmp_path / "default", labels=LabelSettings("/left")).frames_written == 1


def test_blurred_frames_and_near_duplicates_are_dropped(bags, tmp_path):
    sharp, other = picture(1), picture(2)
    shown = [sharp, sharp, cv2.GaussianBlur(other, (0, 0), 6), other, other, sharp]
    messages = [(CAMERA, T0 + i, bags.jpeg(T0 + i, jpeg(rgb))) for i, rgb in enumerate(shown)]
    bag = bags.write(tmp_path / "r1", messages)
    summary = run(bag, tmp_path / "out", min_sharpness=100.0, drop_duplicates=True)
    assert summary.skipped == {"blurred": 1, "near duplicate": 2}
    assert summary.damage == ()
    rows = manifest(tmp_path / "out")
    assert [row.stamp_ns - T0 for row in rows] == [0, 3, 5]
    assert all(row.sharpness > 100 for row in rows)


def test_sharpness_zero_measures_and_drops_nothing(bags, tmp_path):
    bag = bags.drive(tmp_path / "r1", [""] * 3)  # plain gray
    assert run(bag, tmp_path / "out", min_sharpness=0.0).frames_written == 3
    assert [row.sharpness for row in manifest(tmp_path / "out")] == [0.0] * 3


def test_depth_is_kept_when_sharpness_is_asked_for(bags, tmp_path):
    rows = np.arange(64, dtype=np.uint16).reshape(4, 16).view(np.uint8)
    messages = [("/depth", T0, bags.raw(T0, rows, "16UC1", width=16))]
    out = tmp_path / "out"
    run(bags.write(tmp_path / "r1", messages), out, min_sharpness=50.0, drop_duplicates=True)
    (row,) = manifest(out)
    pixels = cv2.imread(str(out / row.file), cv2.IMREAD_UNCHANGED)
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, rows.view(np.uint16))


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_other_image_formats_are_written_on_request(bags, tmp_path, image_format):
    bag = bags.drive(tmp_path / "r1", ["star"] * 9)
    out = tmp_path / "out"
    run(bag, out, image_format=image_format)
    frames = list(labelled_frames(bag, LabelSettings(), DamageLog()))
    for row, (frame, *_) in zip(manifest(out), frames, strict=True):
        assert row.file.endswith(".jpg" if image_format == "jpeg" else ".png")
        written = cv2.imread(str(out / row.file))[..., ::-1]
        assert np.array_equal(written, frame.decode())


@pytest.mark.parametrize("through", ["yolo", "coco", "tfds"])
def test_a_data_set_is_converted_to_any_format_and_back(bags, tmp_path, through):
    bag = bags.drive(tmp_path / "r1", ["star", "", "circle", "star"])
    run(bag, tmp_path / "folder", labels=WITH_LABELS)
    run(tmp_path / "folder", tmp_path / "other", format=through)
    summary = run(tmp_path / "other", tmp_path / "back")
    assert summary.damage == ()
    images, back = tree(tmp_path / "folder"), tree(tmp_path / "back")
    assert images["manifest.csv"] == back["manifest.csv"]
    pictures = {name for name in images if name.endswith(".jpg")}
    assert all(images[name] == back[name] for name in pictures)
    assert pictures == {name for name in back if name.endswith(".jpg")}


@pytest.mark.parametrize("form", ["folder", "yolo", "coco", "tfds"])
def test_whether_somebody_has_looked_goes_through_every_format_and_back(
    tmp_path, picture_bytes, form
):
    given = tmp_path / "given"
    given.mkdir()
    for index in range(4):
        (given / f"{index}.jpg").write_bytes(picture_bytes(index))
    lines = ["file,label,x0,y0,x1,y1", "0.jpg,,,,,", "2.jpg,cup,1,2,9,8", "3.jpg,hall,,,,", ""]
    (given / "labels.csv").write_text("\n".join(lines))
    summary = run(given, tmp_path / "there", format=form)
    assert summary.frames_labelled == 3
    for out in (tmp_path / "there", tmp_path / "back"):
        if out.name == "back":
            run(tmp_path / "there", out)
        lines = (out / "manifest.csv").read_text().splitlines()[1:]
        assert [line.rpartition(",24,")[2] for line in lines] == [
            "[]",
            "",
            '"[{""label"": ""cup"", ""x0"": 1.0, ""y0"": 2.0, ""x1"": 9.0, ""y1"": 8.0}]"',
            "",
        ]
        found = labelled_frames(out, LabelSettings(), DamageLog())
        assert [each.seen for each in found] == [True, False, True, False]


@pytest.mark.parametrize("form", ["folder", "yolo", "coco", "tfds"])
def test_the_same_command_again_verifies_and_writes_nothing(bags, tmp_path, form):
    bag, out = bags.drive(tmp_path / "r1", ["star"] * 4 + [""]), tmp_path / "out"
    assert run(bag, out, format=form, labels=WITH_LABELS).frames_labelled == 4
    before = {f: (f.stat().st_mtime_ns, f.stat().st_ino) for f in out.rglob("*") if f.is_file()}
    again = run(bag, out, format=form, labels=WITH_LABELS)
    assert (again.already_there, again.frames_labelled) == (5, 4)
    assert before == {f: (f.stat().st_mtime_ns, f.stat().st_ino) for f in before}
    assert set(before) == {f for f in out.rglob("*") if f.is_file()}


@pytest.mark.parametrize("form", ["folder", "yolo", "coco", "tfds"])
def test_the_same_command_again_repairs_whatever_was_damaged(bags, tmp_path, form):
    bag, out = bags.drive(tmp_path / "r1", ["star"] * 5), tmp_path / "out"
    run(bag, out, format=form)
    good = tree(out)
    for name in good:
        if name.startswith(".extract"):
            continue
        (out / name).unlink()
        run(bag, out, format=form)
        assert tree(out) == good
        (out / name).write_bytes(good[name][:-1] + b"?")
        run(bag, out, format=form)
        assert tree(out) == good


@pytest.mark.parametrize(("form", "lost"), [("folder", 0), ("yolo", 2), ("coco", 2), ("tfds", 0)])
def test_labels_of_whole_frames_in_a_format_of_boxes_are_told(bags, tmp_path, form, lost):
    bag, out = bags.drive(tmp_path / "r1", ["star", "", "circle"]), tmp_path / "out"
    for _ in range(2):  # the second time nothing is written
        damage = run(bag, out, format=form, labels=WITH_LABELS).damage
        assert {loss.kind: loss.count for loss in damage} == (
            {"label without a box": lost} if lost else {}
        )
    if lost:
        assert damage[0].begins == (
            f"images/r1-{T0}.jpg: {form} files hold boxes, so only manifest.csv has it; "
            "--format folder keeps all labels"
        )


def test_other_options_into_the_same_folder_are_refused(bags, tmp_path):
    bag, out = bags.drive(tmp_path / "r1", ["star"] * 3), tmp_path / "out"
    run(bag, out)
    good = tree(out)
    for options in [
        {"format": "yolo"},
        {"selection": Selection(every_n=2)},
        {"min_sharpness": 1.0},
    ]:
        with pytest.raises(SettingsError, match="other options"):
            run(bag, out, **options)
    shutil.rmtree(bag)
    bags.drive(bag, ["star"] * 4)
    with pytest.raises(SettingsError, match="other options or sources"):
        run(bag, out)
    assert tree(out) == good


def test_a_source_that_changed_but_kept_its_size_is_noticed(bags, tmp_path):
    bag, out = bags.drive(tmp_path / "r1", ["star"] * 3), tmp_path / "out"
    run(bag, out)
    (out / manifest(out)[0].file).unlink()
    (file,) = bag.glob("*.mcap")
    content = file.read_bytes()
    entry = next(BagFrames(bag).entries(DamageLog()))
    data = bytes(entry.load().data)
    file.write_bytes(content.replace(data[200:210], b"0123456789"))
    with pytest.raises(SettingsError, match="is not what it was"):
        run(bag, out)


def test_nothing_to_extract_is_an_empty_data_set(bags, tmp_path):
    bag = bags.drive(tmp_path / "r1", ["star"] * 3)
    wanted = Selection(start=TimeLimit(10**12, absolute=False))
    assert run(bag, tmp_path / "out", selection=wanted).skipped == {"time range": 3}


def test_progress_tells_how_far_it_is(bags, tmp_path):
    bag, seen = bags.drive(tmp_path / "r1", ["star"] * 4), []
    options = ExtractOptions(paths=(bag,), out=tmp_path / "out", selection=Selection(every_n=2))
    extract(options, seen.append)
    assert seen == [Progress(1, 1), Progress(3, 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_format": "gif"}, "keep, jpeg, png"),
        ({"format": "voc"}, "coco"),
        ({"selection": Selection(rate_hz=-1)}, "rate"),
        ({"paths": ()}, "nothing to extract"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_made(bags, tmp_path, options, message):
    bag = bags.drive(tmp_path / "r1", ["star"])
    values = {"paths": (bag,), "out": tmp_path / "out", **options}
    with pytest.raises(SettingsError, match=message):
        extract(ExtractOptions(**values))
    assert not (tmp_path / "out").exists()


def test_a_missing_source_is_an_error_without_its_directory(tmp_path):
    with pytest.raises(FrameError, match="gone: no such file") as raised:
        extract(ExtractOptions(paths=(tmp_path / "gone",), out=tmp_path / "out"))
    assert str(tmp_path) not in str(raised.value)
