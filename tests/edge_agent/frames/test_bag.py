import shutil

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.typesys import Stores, get_typestore

from edge_agent.frames.bag import BagFrames
from fleet_model.errors import FrameError

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


def read_until_error(source):
    frames = []
    try:
        frames.extend(source.frames())  # keeps what came before the error
    except FrameError as error:
        return frames, str(error)
    return frames, ""


@pytest.mark.parametrize(("storage", "mode"), VARIANTS)
def test_jpegs_come_back_byte_for_byte_from_every_storage(
    bags, tmp_path, picture_bytes, storage, mode
):
    path = bags.drive(tmp_path / "r1", ["star"] * 3, storage=storage, mode=mode)
    frames = list(BagFrames(path).frames())
    assert [bytes(frame.data) for frame in frames] == [picture_bytes(i) for i in range(3)]
    assert [frame.stamp_ns for frame in frames] == [T0, T0 + 500_000_000, T0 + 1_000_000_000]
    assert {(f.source, f.topic, f.format) for f in frames} == {("r1", CAMERA, "jpeg")}
    assert abs(float(frames[2].decode().mean()) - 22) < 1


@pytest.mark.parametrize(("storage", "mode"), VARIANTS)
def test_raw_images_with_padded_rows_come_back_right(bags, tmp_path, storage, mode):
    rows = np.arange(80, dtype=np.uint8).reshape(4, 20)
    messages = [("/image", T0, bags.raw(T0, rows, "bgr8", width=6))]
    path = bags.write(tmp_path / "r1", messages, storage=storage, mode=mode)
    (frame,) = BagFrames(path).frames()
    assert frame.format == "bgr8"
    assert len(frame.data) == 80
    assert np.array_equal(frame.decode(), rows[:, :18].reshape(4, 6, 3)[..., ::-1])


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_types_without_msg_and_files_without_their_folder_are_read(bags, tmp_path, storage):
    path = bags.drive(tmp_path / "r1", ["star"] * 2, storage=storage, short_types=True)
    file = shutil.move(storage_file(path), tmp_path)
    assert len(list(BagFrames(tmp_path / file).frames())) == 2
    assert [text for _, text in BagFrames(tmp_path / file).texts(LABELS)] == ["star", "star"]


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
    bag = BagFrames(tmp_path / "old.bag")
    ((bag_ns, frame),) = bag.recorded()
    assert (bag_ns, frame.stamp_ns, bytes(frame.data)) == (T0 + 5, T0, picture_bytes(5))
    assert list(bag.texts(LABELS)) == [(T0 + 6, "star")]
    (tmp_path / "folder").mkdir()
    shutil.copy(tmp_path / "old.bag", tmp_path / "folder")
    assert len(list(BagFrames(tmp_path / "folder").frames())) == 1


def test_a_zero_stamp_is_replaced_by_the_bag_time(bags, tmp_path, picture_bytes):
    messages = [(CAMERA, T0 + i, bags.jpeg(0, picture_bytes(i))) for i in range(2)]
    frames = BagFrames(bags.write(tmp_path / "r1", messages)).frames()
    assert [frame.stamp_ns for frame in frames] == [T0, T0 + 1]


def test_several_cameras_are_listed_and_a_named_one_is_read(bags, tmp_path, picture_bytes):
    messages = [(f"/{side}", T0, bags.jpeg(T0, picture_bytes(7))) for side in ("left", "right")]
    path = bags.write(tmp_path / "r1", messages * 2)
    expected = r"r1: name one camera topic: /left \(2 messages\), /right \(2 messages\)"
    with pytest.raises(FrameError, match=expected):
        next(BagFrames(path).frames())
    assert {frame.topic for frame in BagFrames(path, "/right").frames()} == {"/right"}


def test_a_topic_that_is_not_there_or_no_camera_names_those_that_are(bags, tmp_path):
    path = bags.drive(tmp_path / "r1", ["star"])
    for topic in ("/front", LABELS):
        with pytest.raises(FrameError, match=rf"no camera topic {topic}; it has {CAMERA} \(1 m"):
            next(BagFrames(path, topic).frames())
    with pytest.raises(FrameError, match=rf"no label topic .* {CAMERA}; it has {LABELS} \(1 mess"):
        next(BagFrames(path).texts(CAMERA))


def test_a_bag_without_a_camera_says_so(bags, tmp_path):
    path = bags.write(tmp_path / "r1", [(LABELS, T0, bags.text("star"))])
    with pytest.raises(FrameError, match="r1: no camera topic; it has none at all"):
        next(BagFrames(path).frames())


def test_a_depth_topic_beside_the_camera_is_not_taken_for_one(bags, tmp_path, picture_bytes):
    depth = bags.jpeg(T0, b"\0" * 40, "16UC1; compressedDepth png")
    messages = [
        ("/depth/image/compressedDepth", T0, depth),
        (CAMERA, T0, bags.jpeg(T0, picture_bytes(1))),
    ]
    path = bags.write(tmp_path / "r1", messages)
    assert {frame.topic for frame in BagFrames(path).frames()} == {CAMERA}


def test_a_frame_outlives_its_bag_and_a_broken_one_fails_only_when_decoded(
    bags, tmp_path, picture_bytes
):
    contents = [picture_bytes(0), picture_bytes(1)[:50], b"", picture_bytes(3)]
    messages = [(CAMERA, T0 + i, bags.jpeg(T0 + i, c)) for i, c in enumerate(contents)]
    path = bags.write(tmp_path / "r1", messages)
    good, cut, empty, last = BagFrames(path).frames()
    shutil.rmtree(path)
    assert good.decode().shape == last.decode().shape == (24, 32, 3)
    with pytest.raises(FrameError, match=f"r1{CAMERA} at {T0 + 1}: a jpeg that was cut short"):
        cut.decode()
    with pytest.raises(FrameError, match="no data"):
        empty.decode()


def test_a_message_that_is_no_image_becomes_a_frame_that_cannot_be_decoded(
    bags, tmp_path, picture_bytes
):
    path = tmp_path / "r1"
    bags.write(path, [(CAMERA, T0 + i, bags.jpeg(T0 + i, picture_bytes(i))) for i in range(3)])
    content = bytearray(storage_file(path).read_bytes())
    at = content.index(b"camera\0", content.index(picture_bytes(0))) - 4  # frame_id of the second
    content[at : at + 4] = b"\xff\xff\xff\x7f"  # its length
    storage_file(path).write_bytes(content)
    first, damaged, last = BagFrames(path).frames()
    assert damaged.stamp_ns == T0 + 1
    with pytest.raises(FrameError, match="it is damaged"):
        damaged.decode()
    assert (bytes(first.data), bytes(last.data)) == (picture_bytes(0), picture_bytes(2))


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
        assert len(list(BagFrames(path).frames())) == 3
        assert len(list(BagFrames(path).texts(LABELS))) == 3


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.9999])
def test_an_mcap_that_was_cut_short_says_how_to_save_it_and_not_where_it_lies(bags, tmp_path, kept):
    path = bags.drive(tmp_path / "r1", ["star"] * 20)
    content = storage_file(path).read_bytes()
    storage_file(path).write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(FrameError, match=r"^r1/r1\.mcap: ") as caught:
        list(BagFrames(path).frames())
    assert str(tmp_path) not in str(caught.value)
    assert kept == 0 or "cut short; `mcap recover`" in str(caught.value)


def test_good_files_of_a_split_bag_are_read_in_number_order_beside_a_damaged_one(bags, tmp_path):
    path = tmp_path / "long"
    path.mkdir()
    for number in (2, 9, 10):
        part = bags.drive(tmp_path / f"long_{number}", ["star"], start_ns=T0 + number)
        shutil.move(storage_file(part), path)
    whole = (path / "long_9.mcap").read_bytes()
    (path / "long_9.mcap").write_bytes(whole[:-20])
    frames, error = read_until_error(BagFrames(path))
    assert [frame.stamp_ns - T0 for frame in frames] == [2, 10]
    assert error.startswith("long/long_9.mcap: ")


def test_a_file_that_is_no_bag_is_a_frame_error(tmp_path):
    for name in ("a.mcap", "a.db3", "a.bag"):
        (tmp_path / name).write_bytes(b"this is no bag at all, but some bytes" * 40)
        with pytest.raises(FrameError, match=rf"^{name}: ") as caught:
            next(BagFrames(tmp_path / name).frames())
        assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(("storage", "mode"), VARIANTS)
def test_flipped_and_missing_bytes_anywhere_raise_frame_errors_and_nothing_else(
    bags, tmp_path, storage, mode
):
    path = bags.drive(tmp_path / "r1", ["star"] * 4, storage=storage, mode=mode)
    file = storage_file(path)
    good = file.read_bytes()
    rng = np.random.default_rng(4)
    damaged = 0
    for at in rng.integers(0, len(good), 10):
        content = bytearray(good)
        content[at] ^= 0xFF
        file.write_bytes(content[: rng.choice([at, len(good)])])
        frames, error = read_until_error(BagFrames(path))
        for frame in frames:
            try:
                assert frame.decode().shape[2] == 3
            except FrameError:
                damaged += 1
        damaged += bool(error)
    assert damaged > 2
