"""Bags carry the definitions of what is in them."""

import pytest
from edge_perception.recorder.definitions import definition_of
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

pytestmark = pytest.mark.base


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return installed(package, name, text): writes a .msg where ROS packages have theirs."""
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")

    def install(package, name, text):
        folder = tmp_path / "share" / package / "msg"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.msg").write_text(text)

    return install


def test_an_installed_type_comes_with_all_that_it_uses(installed):
    installed(
        "robot_msgs",
        "Scene",
        "Thing[<=9] things  # best first\nother_msgs/Pose at\nstring<=5 name\n",
    )
    installed("robot_msgs", "Thing", "int8 KIND=3\nfloat32[4] box\nother_msgs/Pose[] seen\n")
    installed("other_msgs", "Pose", "float64 x\nbool flat true\n")
    text = definition_of("robot_msgs/msg/Scene")
    types = get_types_from_msg(text, "robot_msgs/msg/Scene")
    assert set(types) == {"robot_msgs/msg/Scene", "robot_msgs/msg/Thing", "other_msgs/msg/Pose"}
    assert text.count("MSG: other_msgs/Pose") == 1


def test_what_is_not_installed_is_taken_from_what_everybody_knows(installed):
    installed("robot_msgs", "Event", "std_msgs/Header header\n")
    text = definition_of("robot_msgs/msg/Event")
    types = get_types_from_msg(text, "robot_msgs/msg/Event")
    assert set(types) > {"robot_msgs/msg/Event", "std_msgs/msg/Header"}
    assert "builtin_interfaces/msg/Time" in types


def test_a_type_with_a_missing_part_is_not_described_by_half(installed):
    installed("robot_msgs", "Scene", "lost_msgs/Pose at\n")
    assert definition_of("robot_msgs/msg/Scene") == ""


def test_common_types_are_known_where_nothing_is_installed(monkeypatch):
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    name = "sensor_msgs/msg/CompressedImage"
    parsed = get_types_from_msg(definition_of(name), name)
    known = get_typestore(Stores.ROS2_HUMBLE).fielddefs
    assert {"std_msgs/msg/Header", "builtin_interfaces/msg/Time"} < set(parsed)
    assert [field for field, _ in parsed[name][1]] == [field for field, _ in known[name][1]]


def test_a_type_that_nobody_knows_has_no_definition():
    assert definition_of("nobodys_msgs/msg/Thing") == ""
