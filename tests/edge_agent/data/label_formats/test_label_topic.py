import shutil
import sqlite3
import struct
from types import SimpleNamespace

import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from edge_agent.data.label_formats.definition import MessageReader
from edge_agent.data.label_formats.vision_msgs import default_definitions
from edge_agent.data.labels import LabelSettings, labelled_frames
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.types import Box

pytestmark = pytest.mark.base

RULE = "\n" + "=" * 80 + "\n"
CAMERA, LABELS = "/camera", "/labels"

FOXY = {  # vision_msgs 2, the names and the nesting of its day
    "Detection2DArray": "std_msgs/Header header\nvision_msgs/Detection2D[] detections",
    "Detection2D": "std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n"
    "vision_msgs/BoundingBox2D bbox\nsensor_msgs/Image source_img\nbool is_tracking\n"
    "string tracking_id",
    "ObjectHypothesisWithPose": "string id\nfloat64 score\ngeometry_msgs/PoseWithCovariance pose",
    "BoundingBox2D": "geometry_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "ObjectHypothesis": "string id\nfloat64 score",
    "Classification2D": "std_msgs/Header header\nvision_msgs/ObjectHypothesis[] results\n"
    "sensor_msgs/Image source_img",
}


def foxy(name):
    others = (f"MSG: vision_msgs/{key}\n{text}" for key, text in FOXY.items())
    return RULE.join([FOXY[name], *others])


def store_of(definition, name):
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg(definition, name))
    return store


class Messages:
    """Builds vision_msgs messages by one definition."""

    def __init__(self, definition, name, *, old=False):
        self.store, self.old = store_of(definition, f"vision_msgs/msg/{name}"), old

    def make(self, name, **fields):
        return self.store.types[name.replace("/", "/msg/")](**fields)

    def header(self, stamp_ns):
        stamp = self.make(
            "builtin_interfaces/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9
        )
        return self.make("std_msgs/Header", stamp=stamp, frame_id="camera")

    def hypothesis(self, label, score):
        if self.old:
            return self.make("vision_msgs/ObjectHypothesis", id=label, score=score)
        return self.make("vision_msgs/ObjectHypothesis", class_id=label, score=score)

    def with_pose(self, label, score):
        import numpy as np

        point = self.make("geometry_msgs/Point", x=0.0, y=0.0, z=0.0)
        turn = self.make("geometry_msgs/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
        pose = self.make("geometry_msgs/Pose", position=point, orientation=turn)
        pose = self.make("geometry_msgs/PoseWithCovariance", pose=pose, covariance=np.zeros(36))
        name = "vision_msgs/ObjectHypothesisWithPose"
        if self.old:
            return self.make(name, id=label, score=score, pose=pose)
        return self.make(name, hypothesis=self.hypothesis(label, score), pose=pose)

    def detection(self, stamp_ns, results, box, theta=0.0):
        x, y, width, height = box
        if self.old:
            center = self.make("geometry_msgs/Pose2D", x=x, y=y, theta=theta)
        else:
            point = self.make("vision_msgs/Point2D", x=x, y=y)
            center = self.make("vision_msgs/Pose2D", position=point, theta=theta)
        bbox = self.make("vision_msgs/BoundingBox2D", center=center, size_x=width, size_y=height)
        fields = {
            "header": self.header(stamp_ns),
            "results": [self.with_pose(*result) for result in results],
            "bbox": bbox,
        }
        if self.old:
            more = {"source_img": self.image(stamp_ns), "is_tracking": True, "tracking_id": "7"}
            return self.make("vision_msgs/Detection2D", **fields, **more)
        return self.make("vision_msgs/Detection2D", **fields, id="7")

    def image(self, stamp_ns):
        import numpy as np

        fields = {"height": 1, "width": 3, "encoding": "mono8", "is_bigendian": 0, "step": 3}
        data = np.arange(3, dtype=np.uint8)
        return self.make("sensor_msgs/Image", header=self.header(stamp_ns), **fields, data=data)

    def array(self, stamp_ns, detections):
        fields = {"header": self.header(stamp_ns), "detections": detections}
        return self.make("vision_msgs/Detection2DArray", **fields)


VERSIONS = {
    "vision_msgs 4": Messages(
        default_definitions("vision_msgs/msg/Detection2DArray")[0], "Detection2DArray"
    ),
    "vision_msgs 2": Messages(foxy("Detection2DArray"), "Detection2DArray", old=True),
}


@pytest.fixture(params=VERSIONS)
def version(request):
    return VERSIONS[request.param]


@pytest.fixture
def record(bags, tmp_path, picture_bytes):
    """Return a writer of a bag with four frames and the label messages that it is given."""

    def write(messages, labels, storage="mcap"):
        from rosbags.rosbag2 import StoragePlugin, Writer

        path = tmp_path / "run"
        with Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()]) as writer:
            camera = writer.add_connection(
                CAMERA, "sensor_msgs/msg/CompressedImage", typestore=bags.store
            )
            topic = None
            for index in range(4):
                stamp = bags.START_NS + index * 10**9
                message = bags.jpeg(stamp, picture_bytes(index))
                content = bags.store.serialize_cdr(message, message.__msgtype__)
                writer.write(camera, stamp + 9_000_000, content)
            for stamp, message in labels:
                kind = message.__msgtype__
                topic = topic or writer.add_connection(LABELS, kind, typestore=messages.store)
                content = messages.store.serialize_cdr(message, kind)
                writer.write(topic, bags.START_NS + stamp, content)
        return path

    return write


def read(path, damage=None, tolerance_s=0.1):
    log = DamageLog() if damage is None else damage
    settings = LabelSettings(label_topic=LABELS, tolerance_s=tolerance_s)
    found = list(labelled_frames(path, settings, log))
    assert damage is not None or not log, log.sentence()
    return found


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_detections_belong_to_the_frame_with_their_stamp_however_late_they_come(
    version, record, bags, storage
):
    start, late = bags.START_NS, 5 * 10**9
    labels = []
    for index in (0, 2):
        stamp = start + index * 10**9
        small = version.detection(stamp, [("cup", 0.5), ("bin", 0.75)], (10.0, 12.0, 4.0, 6.0))
        large = version.detection(stamp, [("cup", 0.5)], (16.0, 12.0, 10.25, 6.0))
        labels.append((late + index, version.array(stamp, [small, large])))
    labels.append((late + 9, version.array(start + 10**9, [])))
    found = read(record(version, labels, storage))
    boxes = (
        Box(label="bin", x0=8.0, y0=9.0, x1=12.0, y1=15.0),
        Box(label="cup", x0=10.875, y0=9.0, x1=21.125, y1=15.0),
    )
    assert [labelled.label for labelled in found] == ["cup", "", "cup", ""]
    assert [labelled.boxes for labelled in found] == [boxes, (), boxes, ()]


def test_only_detections_say_that_nothing_is_there(version, record, bags):
    start, place = bags.START_NS, (10.0, 12.0, 4.0, 6.0)
    stamps = [start + index * 10**9 for index in range(4)]
    labels = [
        (1, version.array(stamps[0], [])),
        (2, version.array(stamps[1], [version.detection(stamps[1], [("bin", 0.5)], place)])),
        (3, version.array(stamps[2], [version.detection(stamps[2], [], place)])),  # of no class
    ]
    found = read(record(version, labels))
    assert [(each.seen, len(each.boxes)) for each in found] == [
        (True, 0), (True, 1), (False, 0), (False, 0),
    ]  # fmt: skip


def test_a_single_detection_says_what_is_there_if_it_has_a_class(version, record, bags):
    start, place = bags.START_NS, (10.0, 12.0, 4.0, 6.0)
    labels = [
        (1, version.detection(start, [("bin", 0.5)], place)),
        (2, version.detection(start, [], place)),
        (3, version.detection(start + 10**9, [], place)),
        (4, version.detection(start + 2 * 10**9, [], place)),
        (5, version.detection(start + 2 * 10**9, [], place)),
    ]
    found = read(record(version, labels))
    assert [each.seen for each in found] == [True, False, False, False]


@pytest.fixture(params=range(4))
def of_foxy(request, bags):
    """Return messages of vision_msgs 2 in one of their forms, and what their boxes are."""
    version, start = VERSIONS["vision_msgs 2"], bags.START_NS
    shapes = [
        ("cup", (10.0, 12.0, 4.0, 6.0)),
        ("", (5.0, 5.0, 2.0, 2.0)),
        ("a", (9.0, 9.0, 6.0, 6.0)),
    ]
    shapes = shapes[: request.param]
    detections = [version.detection(start, [(name, 0.5)] * bool(name), box) for name, box in shapes]
    boxes = tuple(
        Box(label=name, x0=x - w / 2, y0=y - h / 2, x1=x + w / 2, y1=y + h / 2)
        for name, (x, y, w, h) in shapes
        if name
    )
    return version, [(1, version.array(start, detections))], boxes


def without_definitions(path):
    """Leave a .db3 as recorders before Iron do."""
    (file,) = path.glob("*.db3")
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM message_definitions")
    connection.close()
    return path


def test_detections_of_foxy_are_read_without_their_definition(of_foxy, record):
    version, labels, boxes = of_foxy
    path = without_definitions(record(version, labels, "sqlite3"))
    assert read(path)[0].boxes == boxes


def test_single_detections_and_classes_of_foxy_are_read_without_their_definition(record, bags):
    version = VERSIONS["vision_msgs 2"]
    labels = [
        (i, version.detection(bags.START_NS, [(name, 1.0)], (10.0, 12.0, 4.0, 6.0)))
        for i, name in enumerate(["a", "b"])
    ]
    path = without_definitions(record(version, labels, "sqlite3"))
    assert [box.label for box in read(path)[0].boxes] == ["a", "b"]
    version = Messages(foxy("Classification2D"), "Classification2D", old=True)
    results = [version.hypothesis("cup", 0.25), version.hypothesis("bin", 0.5)]
    message = version.make(
        "vision_msgs/Classification2D",
        header=version.header(bags.START_NS),
        results=results,
        source_img=version.image(0),
    )
    shutil.rmtree(path)
    assert read(without_definitions(record(version, [(0, message)], "sqlite3")))[0].label == "bin"


def cdr(*fields):
    """Return a CDR message of numbers as (format, value), and texts."""
    data = bytearray()
    for field in fields:
        form, value = ("I", len(field) + 1) if isinstance(field, str) else field
        data += bytes(-len(data) % struct.calcsize(form)) + struct.pack("<" + form, value)
        data += field.encode() + b"\0" if isinstance(field, str) else b""
    return b"\0\1\0\0" + bytes(data)


def old_array(identities, *, covariance, padding=b""):
    """Return a Detection2DArray of vision_msgs 1 (Dashing) or 0 (ROS 1) by hand."""
    header = [("i", 7), ("I", 8), "camera"]
    fields = [*header, ("I", len(identities))]
    for identity in identities:
        fields += [*header, ("I", 1), ("q", identity), ("d", 0.5), *[("d", 0.0)] * 7]
        fields += [("d", 0.0)] * 36 * covariance
        fields += [("d", value) for value in (10.0, 12.0, 0.0, 4.0, 6.0)]
        fields += [*header, ("I", 0), ("I", 0), "", ("B", 0), ("I", 0), ("I", 0)]
    return cdr(*fields) + padding


@pytest.mark.parametrize("covariance", [True, False])
@pytest.mark.parametrize("padding", [b"", b"\0\0\0"])
def test_detections_of_older_versions_are_read_without_their_definition(covariance, padding):
    reader = MessageReader("vision_msgs/Detection2DArray", "", "cdr")
    for identities in ([3], [], [1, 2], [9, 9, 300], [0]):
        found = reader.read(old_array(identities, covariance=covariance, padding=padding))
        assert [each.results[0].id for each in found.detections] == identities
        assert [each.bbox.size_y for each in found.detections] == [6.0] * len(identities)


def test_a_number_of_dashing_is_not_taken_for_a_text_of_foxy():
    header = [("i", 7), ("I", 8), "camera"]
    source = [*header, ("I", 0), ("I", 0), "", ("B", 0), ("I", 0), ("I", 0)]
    numbers = MessageReader("vision_msgs/Classification2D", "", "cdr")
    texts = MessageReader("vision_msgs/Classification2D", "", "cdr")
    for identity in (3, 4, 2, 70_000, 1, 0):
        found = numbers.read(cdr(*header, ("I", 1), ("q", identity), ("d", 0.5), *source))
        assert found.results[0].id == identity
    for name in ("a", "ab", "a long name"):
        found = texts.read(cdr(*header, ("I", 1), name, ("d", 0.5), *source))
        assert found.results[0].id == name


def test_bytes_that_no_version_uses_up_are_refused():
    reader = MessageReader("vision_msgs/Detection2DArray", "", "cdr")
    with pytest.raises(FrameError, match="no version of it that is known uses up these bytes"):
        reader.read(old_array([3], covariance=True, padding=bytes(4)))
    with pytest.raises(FrameError, match=r"no definition of vision_msgs/Foo is in the bag"):
        MessageReader("vision_msgs/Foo", "", "cdr")


def test_single_detections_of_one_stamp_add_up_and_turned_ones_are_boxed_in(record, bags):
    version = VERSIONS["vision_msgs 4"]
    half_turn = 3.141592653589793 / 2
    labels = [
        (1, version.detection(bags.START_NS, [("a", 1.0)], (10.0, 12.0, 4.0, 6.0))),
        (2, version.detection(bags.START_NS, [("b", 1.0)], (10.0, 12.0, 4.0, 6.0), half_turn)),
        (3, version.detection(bags.START_NS, [], (10.0, 12.0, 4.0, 6.0))),
    ]
    first = read(record(version, labels))[0]
    assert [box.label for box in first.boxes] == ["a", "b"]
    turned = first.boxes[1]
    assert (turned.x0, turned.y0, turned.x1, turned.y1) == pytest.approx((7.0, 10.0, 13.0, 14.0))


def test_a_box_that_is_none_costs_no_other_box_of_its_picture(record, bags):
    version = VERSIONS["vision_msgs 4"]
    detections = [
        version.detection(bags.START_NS, [("a", 1.0)], (10.0, float("nan"), 4.0, 6.0)),
        version.detection(bags.START_NS, [("", 1.0)], (10.0, 12.0, 4.0, 6.0)),
        version.detection(bags.START_NS, [("b", 1.0)], (10.0, 12.0, 4.0, 6.0)),
    ]
    damage = DamageLog()
    first = read(record(version, [(1, version.array(bags.START_NS, detections))]), damage)[0]
    assert [box.label for box in first.boxes] == ["b"]
    assert [(loss.kind, loss.count) for loss in damage.all()] == [("bad box", 2)]


@pytest.mark.parametrize("name", ["Classification", "Classification2D"])
def test_the_best_class_names_the_frame(record, bags, name):
    old = name == "Classification2D"
    definition = foxy(name) if old else default_definitions(f"vision_msgs/msg/{name}")[0]
    version = Messages(definition, name, old=old)
    fields = {"source_img": version.image(0)} if old else {}
    results = [version.hypothesis("cup", 0.25), version.hypothesis("bin", 0.5)]
    message = version.make(
        f"vision_msgs/{name}", header=version.header(bags.START_NS), results=results, **fields
    )
    found = read(record(version, [(0, message)]))
    assert [labelled.label for labelled in found] == ["bin", "", "", ""]
    assert not any(labelled.seen for labelled in found)


def test_without_a_stamp_bag_time_decides(record, bags):
    version = VERSIONS["vision_msgs 4"]
    message = version.array(0, [version.detection(0, [("a", 1.0)], (10.0, 12.0, 4.0, 6.0))])
    found = read(record(version, [(10**9 + 20_000_000, message)]))
    assert [labelled.label for labelled in found] == ["", "a", "", ""]


def test_a_box_outside_the_picture_is_left_out_and_named(record, bags):
    version = VERSIONS["vision_msgs 4"]
    outside = version.detection(0, [("a", 1.0)], (900.0, 12.0, 4.0, 6.0))
    damage = DamageLog()
    found = read(record(version, [(0, version.array(bags.START_NS, [outside]))]), damage)
    assert found[0].boxes == ()
    assert [each.kind for each in damage.all()] == ["box outside the picture"]


def test_damaged_label_messages_are_counted_and_the_others_are_used(record, bags, monkeypatch):
    version = VERSIONS["vision_msgs 4"]
    good = version.array(
        bags.START_NS, [version.detection(0, [("a", 1.0)], (10.0, 12.0, 4.0, 6.0))]
    )
    path = record(version, [(0, good), (1, good)])
    read_one, calls = MessageReader.read, []

    def damaged(self, data):
        calls.append(data)
        return read_one(self, data[:-9] if len(calls) == 1 else data)

    monkeypatch.setattr(MessageReader, "read", damaged)
    damage = DamageLog()
    assert [labelled.label for labelled in read(path, damage)] == ["a", "", "", ""]
    assert [(each.kind, each.count) for each in damage.all()] == [("bad label message", 1)]


def test_a_definition_that_is_something_else_is_an_error_not_a_crash(record, bags):
    definition = "std_msgs/Header header\nfloat64 detections"
    store = store_of(definition, "vision_msgs/msg/Detection2DArray")
    version = Messages.__new__(Messages)
    version.store = store
    message = version.make(
        "vision_msgs/Detection2DArray", header=version.header(bags.START_NS), detections=1.0
    )
    damage = DamageLog()
    found = read(record(SimpleNamespace(store=store), [(0, message)]), damage)
    assert [labelled.label for labelled in found] == [""] * 4
    assert [each.kind for each in damage.all()] == ["bad label message"]


def test_a_definition_that_cannot_be_parsed_is_a_frame_error():
    for text in ("float64", "{}", "x" * 2_000_000, "string\0 a", "Foo a"):
        with pytest.raises(FrameError, match="definition of"):
            MessageReader("vision_msgs/Detection2DArray", text, "cdr")


def test_a_definition_in_idl_is_read_too():
    idl = (
        "IDL: vision_msgs/msg/Thing\n"
        "module vision_msgs { module msg { struct Thing { double score; string class_id; }; }; };"
    )
    store = get_typestore(Stores.ROS2_HUMBLE)
    store.register(get_types_from_msg("float64 score\nstring class_id", "vision_msgs/msg/Thing"))
    message = store.types["vision_msgs/msg/Thing"](score=0.5, class_id="a")
    data = store.serialize_cdr(message, "vision_msgs/msg/Thing")
    found = MessageReader("vision_msgs/Thing", idl, "cdr").read(bytes(data))
    assert (found.score, found.class_id) == (0.5, "a")


def test_messages_of_ros_1_are_read_by_definition():
    definition = "std_msgs/Header header\nuint8 n\nfloat64[] scores\nstring[2] names"
    store = get_typestore(Stores.ROS1_NOETIC)
    store.register(get_types_from_msg(definition, "vision_msgs/msg/Thing"))
    import numpy as np

    stamp = store.types["builtin_interfaces/msg/Time"](sec=7, nanosec=8)
    header = store.types["std_msgs/msg/Header"](seq=1, stamp=stamp, frame_id="abc")
    message = store.types["vision_msgs/msg/Thing"](
        header=header, n=3, scores=np.array([0.5, 2.0]), names=["x", "yz"]
    )
    data = store.serialize_ros1(message, "vision_msgs/msg/Thing")
    found = MessageReader("vision_msgs/Thing", definition, "ros1").read(bytes(data))
    assert (found.header.stamp.sec, found.header.stamp.nanosec) == (7, 8)
    assert (found.n, found.scores, found.names) == (3, (0.5, 2.0), ["x", "yz"])


@pytest.mark.parametrize("order", [b"\0\1\0\0", b"\0\0\0\0"])
def test_lengths_that_lead_out_of_the_message_are_refused_at_once(order):
    reader = MessageReader("vision_msgs/Detection2DArray", "", "cdr")
    for count in (0, 16, 200):
        for fill in (0xFF, 0x7F, 0x01):
            with pytest.raises(FrameError, match="is no vision_msgs"):
                reader.read(order + bytes([fill]) * count)


def test_arrays_of_nothing_do_not_run_forever():
    text = f"Empty[4000000000] a{RULE}MSG: vision_msgs/Empty\n\n"
    reader = MessageReader("vision_msgs/Thing", text, "cdr")
    with pytest.raises(FrameError, match="4000000000 elements in 20 bytes"):
        reader.read(b"\0\1\0\0" + bytes(16))
