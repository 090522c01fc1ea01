import random
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from loaded_frames import frames_of
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores
from video_clips import (
    HEIGHT,
    WIDTH,
    compressed_image,
    ffmpeg,
    foxglove,
    number_in,
    packets,
    protobuf_video,
    typestore,
    write_protobuf_mcap,
)

from edge_agent.data.frames.bag import BagFrames
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

T0, PERIOD_NS, LATE_NS = 1_760_000_000_000_000_000, 33_000_001, 7_000_000
TOPIC = "/camera/video"
KINDS = {"foxglove": foxglove, "ffmpeg": ffmpeg, "compressed_image": compressed_image}


def stamp(number):
    return T0 + number * PERIOD_NS


def write_bag(path, clip, kind="foxglove", form="h264", plugin="MCAP"):
    """Write packets as messages: stamped as their picture, recorded in the order of decoding."""
    store = typestore()
    with Writer(path, version=9, storage_plugin=StoragePlugin[plugin]) as writer:
        connection = None
        for order, (number, data) in enumerate(clip):
            message = KINDS[kind](store, stamp(number), data, form)
            name = message.__msgtype__
            connection = connection or writer.add_connection(TOPIC, name, typestore=store)
            content = store.serialize_cdr(message, name)
            writer.write(connection, stamp(order) + LATE_NS, content)
    return path


def read(path, order=None):
    """Return {number of the stamp: number in the picture} and (kind, count) of what is left out."""
    damage, found = DamageLog(), {}
    frames = list(frames_of(BagFrames(path), damage))
    for frame in frames if order is None else [frames[i] for i in order(len(frames))]:
        number = (frame.stamp_ns - T0) // PERIOD_NS
        assert frame.stamp_ns == stamp(number)
        try:
            found[number] = number_in(frame.decode())
        except FrameError as error:
            damage.add(error.reason, str(error))
    return found, {loss.kind: loss.count for loss in damage.all()}


@pytest.fixture(scope="module")
def clips():
    """Return packets of 30 pictures with a key frame every ten; made once."""
    made = {}

    def clip(codec, b_frames=0):
        key = codec, b_frames
        if key not in made:
            made[key] = packets(codec, 30, b_frames)
        return made[key]

    return clip


def reference(clip):
    """Return the first packet of the second group that others are made from (nal_ref_idc)."""
    return next(i for i in range(11, 20) if clip[i][1][4] & 0x60)


RIGHT = {number: number for number in range(30)}


@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize(
    ("kind", "codec", "form"),
    [
        ("foxglove", "h264", "h264"),
        ("foxglove", "h265", "h265"),
        ("ffmpeg", "h264", "libx264"),
        ("ffmpeg", "h264", "h264;yuv420p;bgr8;bgr8"),
        ("ffmpeg", "h265", "hevc_nvenc"),
        ("compressed_image", "h264", "h264"),
        ("compressed_image", "h265", "hevc"),
    ],
)
def test_every_picture_is_the_one_of_its_stamp(tmp_path, clips, kind, codec, form, b_frames):
    bag = write_bag(tmp_path / "bag", clips(codec, b_frames), kind, form)
    assert read(bag) == (RIGHT, {})
    frame = next(frames_of(BagFrames(bag), DamageLog()))
    assert (frame.format, frame.width, frame.height) == (codec, WIDTH, HEIGHT)


def test_video_in_db3_in_ros1_and_in_protobuf_reads_the_same(tmp_path, clips):
    clip = clips("h264")
    assert read(write_bag(tmp_path / "db3", clip, plugin="SQLITE3")) == (RIGHT, {})
    store = typestore(Stores.ROS1_NOETIC)
    for kind in KINDS:
        path = tmp_path / f"{kind}.bag"
        with Ros1Writer(path) as writer:
            connection = None
            for number, data in clip:
                message = KINDS[kind](store, stamp(number), data)
                name = message.__msgtype__
                connection = connection or writer.add_connection(TOPIC, name, typestore=store)
                writer.write(connection, stamp(number), store.serialize_ros1(message, name))
        assert read(path) == (RIGHT, {}), kind
    messages = [(stamp(number), protobuf_video(stamp(number), data)) for number, data in clip]
    assert read(write_protobuf_mcap(tmp_path / "a.mcap", messages)) == (RIGHT, {})


def test_a_stream_that_begins_between_key_frames_waits_for_the_first_one(tmp_path, clips):
    for codec in ("h264", "h265"):
        bag = write_bag(tmp_path / codec, clips(codec)[3:], form=codec)
        expected = {number: number for number in range(10, 30)}
        assert read(bag) == (expected, {"before the first key frame": 7})


@pytest.mark.parametrize("b_frames", [0, 3])
def test_a_damaged_packet_costs_the_pictures_up_to_the_next_key_frame(tmp_path, clips, b_frames):
    clip = list(clips("h264", b_frames))
    # with B-frames, the next packet is shown before this one and made from it
    bad = next(i for i in range(11, 20) if not b_frames or clip[i + 1][0] < clip[i][0])
    number, data = clip[bad]
    clip[bad] = number, data[: len(data) // 2] + bytes(8) + data[len(data) // 2 + 8 :]
    bag = write_bag(tmp_path / "bag", clip)
    lost = {number for number, _ in clip[bad:20]}
    found, losses = read(bag)
    assert found == {n: n for n in RIGHT if n not in lost}
    assert losses == {"damaged h264": 1, "after a damaged frame": 19 - bad}
    # whatever the order in which pictures are asked for
    shuffled = random.Random(1).sample(range(30), 30)
    for order in (shuffled, sorted(range(30), key=lambda at: clip[at][0])):
        again, losses = read(bag, lambda _, order=order: order)
        assert again == found
        assert sum(losses.values()) == 20 - bad


@pytest.mark.parametrize("b_frames", [0, 3])
def test_behind_a_message_that_the_recorder_lost_nothing_is_shown_wrong(tmp_path, clips, b_frames):
    clip = list(clips("h264", b_frames))
    lost = reference(clip)
    del clip[lost]
    found, losses = read(write_bag(tmp_path / "bag", clip))
    assert found == {n: n for n, _ in [*clip[:lost], *clip[19:]]}
    assert losses == {"after a lost frame": 19 - lost}


def test_behind_a_lost_message_of_h265_nothing_is_shown_wrong(tmp_path, clips):
    clip = list(clips("h265"))
    del clip[14]
    found, losses = read(write_bag(tmp_path / "bag", clip, form="h265"))
    assert found == {n: n for n in RIGHT if not 14 <= n < 20}
    assert losses == {"damaged h265": 5}


def test_pictures_shown_before_their_key_frame_are_made_from_the_group_before(tmp_path):
    options = {"x265-params": "keyint=10:min-keyint=10:scenecut=0:open-gop=1:log-level=none"}
    clip = packets("libx265", 30, **options)
    assert [n for n, _ in clip] != sorted(n for n, _ in clip)
    bag = write_bag(tmp_path / "bag", clip, form="h265")
    assert read(bag) == (RIGHT, {})
    assert read(bag, lambda count: range(count - 1, -1, -1)) == (RIGHT, {})


def test_threads_get_the_same_pictures(tmp_path, clips):
    frames = list(frames_of(BagFrames(write_bag(tmp_path / "bag", clips("h264", 3))), DamageLog()))
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(lambda frame: number_in(frame.decode()), frames))
    assert pictures == [(frame.stamp_ns - T0) // PERIOD_NS for frame in frames]


def test_parameters_in_a_message_of_their_own_are_no_frame(tmp_path, clips):
    clip = list(clips("h264"))
    number, data = clip[0]
    begin = data.index(b"\0\0\1\x65")  # the first picture, behind its parameters
    clip[:1] = [(number, data[:begin]), (number, b"\0" + data[begin:])]
    assert read(write_bag(tmp_path / "bag", clip)) == (RIGHT, {})


def test_a_picture_has_its_own_data_and_the_same_ones_at_every_reading(tmp_path, clips):
    """Packets of a scene at rest can be equal; what they show is not."""
    bag = write_bag(tmp_path / "bag", clips("h264"))
    first, second = ([f.data for f in frames_of(BagFrames(bag), DamageLog())] for _ in range(2))
    assert first == second
    assert len(set(first)) == 30
    clip = list(clips("h264"))
    clip[10] = packets("h264", 30, crf="40")[10]
    other = write_bag(tmp_path / "other", clip)
    changed = [f.data for f in frames_of(BagFrames(other), DamageLog())]
    assert [a == b for a, b in zip(first, changed, strict=True)] == [
        not 10 <= n < 20 for n in range(30)
    ]


@pytest.mark.parametrize(
    ("form", "reason", "words"),
    [
        ("vp9", "unknown format", "video of format 'vp9', expected h264 or h265"),
        ("hevc;gray12le;mono16;16UC1", "not a color picture", "as video, expected color"),
    ],
)
def test_other_video_is_refused_by_its_declared_name(tmp_path, clips, form, reason, words):
    damage = DamageLog()
    bag = write_bag(tmp_path / "bag", clips("h264")[:3], "ffmpeg", form)
    assert not list(frames_of(BagFrames(bag), damage))
    (loss,) = damage.all()
    assert (loss.kind, loss.count) == (reason, 3)
    assert words in loss.begins


def test_without_the_extra_one_error_names_the_command(tmp_path, clips, monkeypatch):
    bag = write_bag(tmp_path / "bag", clips("h264")[:3])
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(FrameError, match=r"pip install 'fleetlearn\[video\]'") as caught:
        list(BagFrames(bag).entries(DamageLog()))
    assert str(caught.value).startswith("bag/camera/video: is video, which needs PyAV")


def test_a_message_that_is_cut_is_counted_and_decoding_goes_on_at_the_next_key_frame(tmp_path):
    clip = packets("h264", 30)
    messages = [(stamp(n), protobuf_video(stamp(n), data)) for n, data in clip]
    messages[4] = messages[4][0], messages[4][1][:40]
    found, losses = read(write_protobuf_mcap(tmp_path / "a.mcap", messages))
    assert found == {n: n for n in RIGHT if not 4 <= n < 10}
    assert losses == {"bad message": 1, "after a damaged frame": 5}
