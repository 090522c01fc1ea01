import pytest
from bag_writer import BagWriter, encode
from edge_perception.camera.source import CameraSource

from fleet_model.errors import FrameError, SettingsError
from fleet_model.files.damage import DamageLog

pytestmark = pytest.mark.base

T0 = BagWriter.START_NS


def two_cameras(path):
    bags = BagWriter()
    messages = [("/left", T0 + i, bags.jpeg(T0 + i, encode(i))) for i in range(3)]
    return bags.write(path, [*messages, ("/right", T0, bags.jpeg(T0, encode(9)))])


def frames(source):
    damage = DamageLog()
    found = [picture.load() for picture in source.pictures(damage)]
    assert not damage
    return found


def test_a_bag_gives_the_jpegs_of_one_topic_byte_for_byte_as_often_as_it_is_played(tmp_path):
    source = CameraSource(str(two_cameras(tmp_path / "bag")), "/left")
    assert (source.name, source.is_live, source.has_times) == ("bag", False, True)
    for _ in range(2):
        found = frames(source)
        assert [bytes(frame.data) for frame in found] == [encode(i) for i in range(3)]
        assert [frame.stamp_ns - T0 for frame in found] == [0, 1, 2]


def test_a_folder_gives_its_pictures_in_the_order_of_names_and_knows_no_times(tmp_path):
    for index in (2, 0, 1):
        (tmp_path / f"{index}.jpg").write_bytes(encode(index))
    source = CameraSource(str(tmp_path))
    assert not source.has_times
    assert [bytes(frame.data) for frame in frames(source)] == [encode(i) for i in range(3)]


@pytest.mark.parametrize(
    "text", ["rtsp://ada:secret@127.0.0.1:9/live", "/dev/video77", "77"]
)  # fmt: skip
def test_a_camera_is_not_asked_while_it_is_opened_and_its_password_is_not_told(text):
    source = CameraSource(text)
    assert (source.is_live, source.has_times) == (True, True)
    assert "secret" not in source.name


@pytest.mark.parametrize(
    ("text", "topic", "error", "expected"),
    [
        ("", "", SettingsError, r"^the parameter source is empty; expected a camera \(/dev/video0"),
        ("ros:/image", "", SettingsError, r"^source ros:/image: is a topic already; expected a c"),
        ("/no/such.mp4", "", FrameError, r"^such.mp4: no such file or folder$"),
        ("{bag}", "", FrameError, r"^bag: name one camera topic .*/left \(3 messages\), /right"),
        ("{bag}", "/up", FrameError, r"^bag: no camera topic /up; it has /left \(3 messages\)"),
        ("{empty}", "", FrameError, r"^empty: neither a bag nor an image; expected a rosbag2 fold"),
        ("rtsp://a:b@host/x", "/t", SettingsError, r"^source rtsp://host/x: a camera has no topi"),
    ],
)
def test_what_cannot_be_played_is_said_when_it_is_opened(tmp_path, text, topic, error, expected):
    two_cameras(tmp_path / "bag")
    (tmp_path / "empty").mkdir()
    places = {name: str(tmp_path / name) for name in ("bag", "empty")}
    with pytest.raises(error, match=expected):
        CameraSource(text.format(**places), topic)
