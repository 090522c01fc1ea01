import shutil
import struct
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from loaded_frames import frames_of
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from edge_agent.data.frames.bag import BagFrames
from edge_agent.data.frames.source import find_bags, is_bag
from edge_agent.data.storage.compression import zstd_module
from fleet_model.errors import FrameError, StorageError
from fleet_model.files.damage import DamageLog

pytestmark = pytest.mark.base

CAMERA, LABELS = "/camera/image/compressed", "/camera/label"
T0 = 1_760_000_000_000_000_000
VARIANTS = [
    ("mcap", None),
    ("mcap", "STORAGE"),
    ("sqlite3", None),
    ("sqlite3", "MESSAGE"),
    ("sqlite3", "FILE"),
]


def storage_file(path):
    (file,) = (child for child in path.iterdir() if child.name != "metadata.yaml")
    return file


def read(source):
    """Return the frames that load, and (kind, count) of what does not."""
    damage = DamageLog()
    frames = list(frames_of(source, damage))
    return frames, [(kind.kind, kind.count) for kind in damage.all()]


def frames_in(path, topic=""):
    frames, damage = read(BagFrames(path, topic))
    assert not damage
    return frames


def texts_in(path):
    damage = DamageLog()
    stored = list(BagFrames(path).stored((LABELS,), damage))
    assert not damage
    return [(each.bag_ns, bytes(each.load())) for each in stored]


def text(label):
    """Return a serialized std_msgs/String."""
    return b"\0\1\0\0" + struct.pack("<I", len(label) + 1) + label.encode() + b"\0"


@pytest.mark.parametrize(("storage", "mode"), VARIANTS)
def test_jpegs_come_back_byte_for_byte_from_every_storage(
    bags, tmp_path, picture_bytes, storage, mode
):
    path = bags.drive(tmp_path / "r1", ["star"] * 3, storage=storage, mode=mode)
    frames = frames_in(path)
    assert [bytes(frame.data) for frame in frames] == [picture_bytes(i) for i in range(3)]
    assert [frame.stamp_ns for frame in frames] == [T0, T0 + 500_000_000, T0 + 1_000_000_000]
    assert {(f.source, f.topic, f.format) for f in frames} == {("r1", CAMERA, "jpeg")}
    assert abs(float(frames[2].decode().mean()) - 22) < 1


@pytest.mark.parametrize(("storage", "mode"), VARIANTS)
def test_raw_images_with_padded_rows_come_back_right(bags, tmp_path, storage, mode):
    rows = np.arange(80, dtype=np.uint8).reshape(4, 20)
    messages = [("/image", T0, bags.raw(T0, rows, "bgr8", width=6))]
    path = bags.write(tmp_path / "r1", messages, storage=storage, mode=mode)
    (frame,) = frames_in(path)
    assert frame.format == "bgr8"
    assert len(frame.data) == 80
    assert np.array_equal(frame.decode(), rows[:, :18].reshape(4, 6, 3)[..., ::-1])


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_types_without_msg_and_files_without_their_folder_are_read(bags, tmp_path, storage):
    path = bags.drive(tmp_path / "r1", ["star"] * 2, storage=storage, short_types=True)
    file = shutil.move(storage_file(path), tmp_path)
    assert len(frames_in(tmp_path / file)) == 2
    found = [content[: len(text("star"))] for _, content in texts_in(tmp_path / file)]
    assert found == [text("star")] * 2  # the message may be padded


def test_ros_1_bags_are_read(tmp_path, picture_bytes):
    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types
    name = "sensor_msgs/msg/CompressedImage"
    with Ros1Writer(tmp_path / "old.bag") as writer:
        camera = writer.add_connection(CAMERA, name, typestore=store)
        labels = writer.add_connection(LABELS, "std_msgs/msg/String", typestore=store)
        time = types["builtin_interfaces/msg/Time"](*divmod(T0, 10**9))
        header = types["std_msgs/msg/Header"](0, time, "camera")
        image = types[name](header, "jpeg", np.frombuffer(picture_bytes(5), np.uint8))
        writer.write(camera, T0 + 5, store.serialize_ros1(image, name))
        text = types["std_msgs/msg/String"]("star")
        writer.write(labels, T0 + 6, store.serialize_ros1(text, "std_msgs/msg/String"))
    (entry,) = BagFrames(tmp_path / "old.bag").entries(DamageLog())
    frame = entry.load()
    assert (entry.time_ns, frame.stamp_ns, bytes(frame.data)) == (T0 + 5, T0, picture_bytes(5))
    assert texts_in(tmp_path / "old.bag") == [(T0 + 6, struct.pack("<I", 4) + b"star")]
    (tmp_path / "folder").mkdir()
    shutil.copy(tmp_path / "old.bag", tmp_path / "folder")
    assert len(frames_in(tmp_path / "folder")) == 1


def test_a_zero_stamp_is_replaced_by_the_bag_time(bags, tmp_path, picture_bytes):
    messages = [(CAMERA, T0 + i, bags.jpeg(0, picture_bytes(i))) for i in range(2)]
    frames = frames_in(bags.write(tmp_path / "r1", messages))
    assert [frame.stamp_ns for frame in frames] == [T0, T0 + 1]


def test_several_cameras_are_listed_and_a_named_one_is_read(bags, tmp_path, picture_bytes):
    messages = [(f"/{side}", T0, bags.jpeg(T0, picture_bytes(7))) for side in ("left", "right")]
    path = bags.write(tmp_path / "r1", messages * 2)
    expected = (
        r"r1: name one camera topic \(--topic; in agent\.toml examples\.topic\): "
        r"/left \(2 messages\), /right \(2 messages\)"
    )
    with pytest.raises(FrameError, match=expected):
        frames_in(path)
    assert {frame.topic for frame in frames_in(path, "/right")} == {"/right"}
    assert BagFrames(path, "/right").choose_topic().messages == 2


def test_a_topic_that_is_not_there_or_no_camera_names_those_that_are(bags, tmp_path):
    path = bags.drive(tmp_path / "r1", ["star"])
    for topic in ("/front", LABELS):
        with pytest.raises(FrameError, match=rf"no camera topic {topic}; it has {CAMERA} \(1 m"):
            frames_in(path, topic)


def test_a_bag_without_a_camera_says_so(bags, tmp_path):
    path = bags.write(tmp_path / "r1", [(LABELS, T0, bags.text("star"))])
    named = (
        r"it has /camera/label \(std_msgs/String, cdr, 1 messages\); expected sensor_msgs/Image,"
    )
    with pytest.raises(FrameError, match=f"r1: no camera topic; {named}"):
        frames_in(path)


def foreign(path, *types, count=1):
    """Write a .mcap with topics of other types, "TYPE ENCODING"."""
    from mcap.writer import Writer

    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        for number, (name, encoding) in enumerate(words.split() for words in types):
            schema = writer.register_schema(name, encoding, b"")
            channel = writer.register_channel(f"/topic_{number:02}", encoding, schema)
            for i in range(count):
                writer.add_message(channel, T0 + i, b"\x1a\x04jpeg", T0 + i)
        writer.finish()
    return path


@pytest.mark.parametrize(
    "kind",
    [
        "foxglove.CompressedImage protobuf",
        "foxglove.RawImage flatbuffer",
        "theora_image_transport/msg/Packet cdr",
        "sensor_msgs/msg/Image json",
        "stereo_msgs/msg/DisparityImage cdr",
    ],
)
def test_what_seems_to_hold_pictures_and_is_not_read_is_named(tmp_path, kind):
    others = ("std_msgs/msg/String cdr", "sensor_msgs/msg/CameraInfo cdr")
    path = foreign(tmp_path / "a.mcap", *others, kind, "foxglove.ImageAnnotations protobuf")
    shown = ", ".join(kind.replace("/msg/", "/").split())
    with pytest.raises(FrameError) as caught:
        frames_in(path)
    assert str(caught.value) == (
        f"a.mcap: no camera topic; it has /topic_02 ({shown}, 1 messages), which is not read; "
        "expected sensor_msgs/Image, sensor_msgs/CompressedImage or video (docs/data.md)"
    )
    bag = BagFrames(path)
    assert [bag.kind_of_pictures(topic) for topic in bag.topics()] == ["", "", "not read", ""]


def test_of_many_topics_ten_are_named(tmp_path):
    path = foreign(tmp_path / "a.mcap", *["std_msgs/msg/String cdr"] * 14)
    with pytest.raises(FrameError, match=r"/topic_09 \(.*\) and 4 more; expected"):
        frames_in(path)
    with pytest.raises(FrameError, match="it has no topic at all; expected"):
        frames_in(foreign(tmp_path / "b.mcap"))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_names_in_capitals_are_bags_too(bags, tmp_path, picture_bytes, storage):
    messages = [(CAMERA, T0 + i, bags.jpeg(T0 + i, picture_bytes(i))) for i in range(2)]
    folder = bags.write(tmp_path / "r1", messages, storage=storage)
    (file,) = (f for f in folder.iterdir() if f.suffix != ".yaml")
    bare = tmp_path / f"REC{file.suffix.upper()}"
    shutil.copy(file, bare)
    assert len(frames_in(bare)) == 2
    file.rename(file.with_name(file.name.upper()))  # as disks of other systems do
    damage = DamageLog()
    assert len(list(frames_of(BagFrames(folder), damage))) == 2
    assert not damage
    packed = tmp_path / f"REC{file.suffix.upper()}.ZSTD"
    packed.write_bytes(zstd_module().compress(bare.read_bytes()))
    assert len(frames_in(packed)) == 2


def test_a_depth_topic_beside_the_camera_is_not_taken_for_one(bags, tmp_path, picture_bytes):
    depth = bags.jpeg(T0, b"\0" * 40, "16UC1; compressedDepth png")
    messages = [
        ("/depth/image/compressedDepth", T0, depth),
        (CAMERA, T0, bags.jpeg(T0, picture_bytes(1))),
    ]
    path = bags.write(tmp_path / "r1", messages)
    assert {frame.topic for frame in frames_in(path)} == {CAMERA}


def test_a_frame_outlives_its_bag_and_what_cannot_be_a_picture_is_counted_by_its_reason(
    bags, tmp_path, picture_bytes
):
    contents = [picture_bytes(0), picture_bytes(1)[:50], b"", picture_bytes(3)]
    messages = [(CAMERA, T0 + i, bags.jpeg(T0 + i, c)) for i, c in enumerate(contents)]
    path = bags.write(tmp_path / "r1", messages)
    (good, last), damage = read(BagFrames(path))
    shutil.rmtree(path)
    assert good.decode().shape == last.decode().shape == (24, 32, 3)
    assert damage == [("cut jpeg", 1), ("empty", 1)]


@pytest.mark.parametrize(("storage", "mode"), VARIANTS)
def test_entries_load_in_any_order_from_any_thread_after_the_bag_is_gone(
    bags, tmp_path, picture_bytes, storage, mode
):
    path = bags.drive(tmp_path / "r1", ["star"] * 30, storage=storage, mode=mode)
    entries = list(BagFrames(path).entries(DamageLog()))
    shutil.rmtree(path)
    with ThreadPoolExecutor(4) as pool:
        frames = list(pool.map(lambda entry: entry.load(), entries[::-1]))
    assert [bytes(f.data) for f in frames] == [picture_bytes(i) for i in range(30)][::-1]


def test_files_are_closed_when_nobody_holds_a_message_any_more(bags, tmp_path):
    def opened():
        return len(list(Path("/proc/self/fd").iterdir()))

    path = bags.drive(tmp_path / "r1", ["star"] * 3, mode="FILE")
    before = opened()
    bag = BagFrames(path)
    entries = list(bag.entries(DamageLog()))
    del bag
    assert opened() > before
    assert entries.pop().load().stamp_ns
    entries.clear()
    assert opened() == before


def test_a_message_that_is_no_image_is_counted(bags, tmp_path, picture_bytes):
    path = tmp_path / "r1"
    bags.write(path, [(CAMERA, T0 + i, bags.jpeg(T0 + i, picture_bytes(i))) for i in range(3)])
    content = bytearray(storage_file(path).read_bytes())
    at = content.index(b"camera\0", content.index(picture_bytes(0))) - 4  # frame_id of the second
    content[at : at + 4] = b"\xff\xff\xff\x7f"  # its length
    storage_file(path).write_bytes(content)
    (first, last), damage = read(BagFrames(path))
    assert (bytes(first.data), bytes(last.data)) == (picture_bytes(0), picture_bytes(2))
    assert damage == [("bad message", 1)]


def test_a_missing_or_wrong_metadata_file_does_not_matter(bags, tmp_path):
    for name, metadata in {
        "none": None,
        "empty": "",
        "wrong": "rosbag2: [",
        "other": "a: 1",
    }.items():
        path = bags.drive(tmp_path / name, ["star"] * 3)
        (path / "metadata.yaml").unlink()
        if metadata is not None:
            (path / "metadata.yaml").write_text(metadata)
        assert len(frames_in(path)) == 3
        assert len(texts_in(path)) == 3


def test_a_file_that_metadata_lists_and_that_is_not_there_is_told(bags, tmp_path):
    path = bags.drive(tmp_path / "r1", ["star"] * 3)
    metadata = (path / "metadata.yaml").read_text()
    assert "- r1.mcap" in metadata
    more = metadata.replace("- r1.mcap", "- r1.mcap\n  - 'r1/r1_1.mcap'\n  - \"r1_2.mcap\"")
    (path / "metadata.yaml").write_text(more)
    damage = DamageLog()
    assert len(list(BagFrames(path).entries(damage))) == 3
    (missing,) = damage.all()
    assert (missing.kind, missing.count) == ("missing file", 2)
    assert missing.begins == "r1/r1_1.mcap, which metadata.yaml lists"


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.9999])
def test_of_a_bag_that_was_cut_short_everything_before_the_cut_is_read(bags, tmp_path, kept):
    path = bags.drive(tmp_path / "r1", ["star"] * 20)
    content = storage_file(path).read_bytes()
    storage_file(path).write_bytes(content[: int(len(content) * kept)])
    if not kept:
        with pytest.raises(FrameError, match=r"^r1\.mcap: is empty"):
            frames_in(path)
        return
    frames, damage = read(BagFrames(path))
    assert [frame.stamp_ns for frame in frames] == [
        T0 + i * 500_000_000 for i in range(len(frames))
    ]
    assert len(frames) > 19 * kept - 3
    assert damage == [("cut file", 1)]


def test_good_files_of_a_split_bag_are_read_in_number_order_beside_a_damaged_one(bags, tmp_path):
    path = tmp_path / "long"
    path.mkdir()
    for number in (2, 9, 10, 11):
        part = bags.drive(tmp_path / f"long_{number}", ["star"], start_ns=T0 + number)
        shutil.move(storage_file(part), path)
    (path / "long_9.mcap").write_bytes(b"no bag" * 50)
    (path / "._long_2.mcap").write_bytes(b"written by macOS")
    frames, damage = read(BagFrames(path))
    assert [frame.stamp_ns - T0 for frame in frames] == [2, 10, 11]
    assert damage == [("damaged file", 1)]
    counts = {topic.name: topic.messages for topic in BagFrames(path).topics()}
    assert counts == {CAMERA: 3, LABELS: 3}


def test_a_cut_compressed_file_gives_what_can_be_unpacked(bags, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 600), np.uint8)
    messages = [("/image", T0 + i, bags.raw(T0 + i, rows)) for i, rows in enumerate(noise)]
    path = bags.write(tmp_path / "r1", messages, mode="FILE")
    content = storage_file(path).read_bytes()
    storage_file(path).write_bytes(content[: len(content) // 2])
    frames, damage = read(BagFrames(path))
    assert 10 < len(frames) <= 20
    assert [bytes(frame.data) for frame in frames] == [n.tobytes() for n in noise[: len(frames)]]
    assert damage == [("cut file", 1)]


def test_without_room_for_an_unpacked_file_the_error_names_the_way_out(bags, tmp_path, monkeypatch):
    path = bags.drive(tmp_path / "r1", ["star"], mode="FILE")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(StorageError, match=r"^r1\.mcap\.zstd: .*set TMPDIR"):
        frames_in(path)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_damaged_message_of_those_compressed_alone_fails_alone(
    bags, tmp_path, picture_bytes, storage
):
    path = bags.drive(tmp_path / "r1", [""] * 3, storage=storage, mode="MESSAGE")
    content = storage_file(path).read_bytes()
    at = [i for i in range(len(content)) if content[i : i + 4] == b"\x28\xb5\x2f\xfd"][1]
    storage_file(path).write_bytes(content[: at + 6] + b"damage" + content[at + 12 :])
    frames, damage = read(BagFrames(path))
    assert {bytes(f.data) for f in frames} < {picture_bytes(i) for i in range(3)}
    assert (len(frames), damage) == (2, [("message decompression", 1)])


@pytest.mark.parametrize("is_listed", [True, False])
def test_of_a_file_and_its_compressed_copy_one_is_read(bags, tmp_path, is_listed):
    path = bags.drive(tmp_path / "r1", ["star"] * 3, mode="FILE")
    other = bags.drive(tmp_path / "r2", ["star"] * 2)
    shutil.copy(storage_file(other), path / "r1.mcap")
    if not is_listed:  # a crash while it was being compressed
        (path / "metadata.yaml").unlink()
    assert len(frames_in(path)) == (3 if is_listed else 2)


def test_compressed_and_unfinished_files_are_bags_too(bags, tmp_path):
    bags.drive(tmp_path / "r1", ["star"], mode="FILE")
    (bare,) = (tmp_path / "r1").glob("*.zstd")
    assert is_bag(bare)
    shutil.copytree(tmp_path / "r1", tmp_path / "hall/r2")
    (tmp_path / "hall/r2/metadata.yaml").unlink()
    assert find_bags(tmp_path / "hall") == [tmp_path / "hall/r2"]
    (tmp_path / "a.bag.active").write_bytes(b"#ROSBAG V2.0\n")
    assert is_bag(tmp_path / "a.bag.active")
    (tmp_path / "a.zstd").write_bytes(b"")
    assert not is_bag(tmp_path / "a.zstd")


def test_a_file_that_is_no_bag_is_a_frame_error(tmp_path):
    for name in ("a.mcap", "a.db3", "a.bag", "a.mcap.zstd"):
        (tmp_path / name).write_bytes(b"this is no bag at all, but some bytes" * 40)
        with pytest.raises(FrameError, match=rf"^{name}: ") as caught:
            frames_in(tmp_path / name)
        assert str(tmp_path) not in str(caught.value)


def test_a_bag_that_vanished_is_a_frame_error_without_its_folder(bags, tmp_path):
    path = bags.drive(tmp_path / "r1", ["star"])
    file = storage_file(path)
    sources = [BagFrames(path), BagFrames(file)]
    shutil.rmtree(path)
    for source in sources:
        with pytest.raises(FrameError, match=r"^r1(\.mcap)?: no such file") as caught:
            read(source)
        assert str(tmp_path) not in str(caught.value)
    path.mkdir()
    with pytest.raises(FrameError, match=r"^r1: holds no \.mcap, \.db3 or \.bag file"):
        frames_in(path)


@pytest.mark.parametrize(("storage", "mode"), VARIANTS)
def test_flipped_and_missing_bytes_anywhere_raise_frame_errors_and_nothing_else(
    bags, tmp_path, storage, mode
):
    path = bags.drive(tmp_path / "r1", ["star"] * 4, storage=storage, mode=mode)
    file = storage_file(path)
    good = file.read_bytes()
    rng = np.random.default_rng(4)
    damaged = 0
    for at in rng.integers(0, len(good), 20):
        content = bytearray(good)
        content[at] ^= 0xFF
        file.write_bytes(content[: rng.choice([at, len(good)])])
        try:
            frames, damage = read(BagFrames(path))
        except FrameError:
            damaged += 1
            continue
        damaged += bool(damage)
        for frame in frames:
            try:
                assert frame.decode().shape[2] == 3
            except FrameError:
                damaged += 1
    assert damaged > 2
