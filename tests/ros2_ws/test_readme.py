"""ros2_ws/README.md says what the nodes have: parameters by their tables, the rest by the graph."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "ros2_ws/README.md"
PROGRAMS = {"camera_node": "camera", "perception_node": "perception",
            "frame_recorder_node": "frame_recorder"}  # fmt: skip
# What every node has, by ROS itself.
OF_ROS = re.compile(
    r"/rosout|/parameter_events|.*/transition_event|.*/(change|get)_(available_)?states?"
    r"|.*/get_(available_transitions|transition_graph|type_description)"
    r"|.*/(describe|get|list|set)_parameter(s|_types|s_atomically)"
)
ROW = re.compile(r"^\| (`[^|]*`) \| ([^|]*) \|(?: (in|out) \|)?([^|]*)\|$", re.MULTILINE)


def described(program, node):
    """Return {(name, type): (in, out or "" of a service, whether it is always there)}."""
    section = README.read_text().partition(f"### {program}\n")[2].partition("\n### ")[0]
    found = {}
    for names, types, way, words in ROW.findall(section.partition("<!--")[0]):
        several = "," in names or "," in types or "where" in words
        for name in names.replace("`", "").split(", "):
            whole = name.replace("~", f"/{node}") if name[0] in "~/" else f"/{name}"
            for kind in types.split(", "):
                found[whole, kind] = way, not several
    return found


def test_the_tables_of_parameters_are_those_of_the_code():
    spec = importlib.util.spec_from_file_location("make_readme", ROOT / "ros2_ws/make_readme.py")
    make_readme = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_readme)
    text = README.read_text(encoding="utf-8")
    assert make_readme.page(text) == text, "run: python ros2_ws/make_readme.py"


@pytest.mark.ros
def test_the_topics_and_services_are_those_of_the_running_nodes(
    processes, listener, tiny_bundle, tmp_path
):
    from ros_robot import until
    from std_msgs.msg import Empty

    listener.node.create_publisher(Empty, "/frame_recorder/event", 1)
    frames = ROOT / "tests/data/robot_frames"
    source = [("source", frames), ("loop", "true")]
    processes.node("camera_node", parameters=source)
    for transport in ("raw", "compressed"):
        node = ["-r", f"__node:=perception_{transport}"]
        given = [("model", tiny_bundle), ("transport", transport)]
        processes.node("perception_node", *node, parameters=given)
    processes.node("frame_recorder_node", parameters=[("spool", tmp_path)])
    for program, node in PROGRAMS.items():
        names = [node] if node != "perception" else ["perception_raw", "perception_compressed"]
        for name in names:
            expected = described(program, name)
            always = {key: way for key, (way, is_always) in expected.items() if is_always}
            until(
                lambda name=name, always=always: always.items() <= graph(listener, name).items(),
                lambda name=name, always=always: (always, graph(listener, name)),
            )
            ways = {key: way for key, (way, _) in expected.items()}
            assert graph(listener, name).items() <= ways.items()


def graph(listener, name):
    """Return {(name, type): in, out, or "" of a service} of a running node."""
    from rclpy.node import NodeNameNonExistentError

    node, found = listener.node, {}
    try:
        for way, listed in (
            ("out", node.get_publisher_names_and_types_by_node(name, "/")),
            ("in", node.get_subscriber_names_and_types_by_node(name, "/")),
            ("", node.get_service_names_and_types_by_node(name, "/")),
        ):
            for topic, types in listed:
                if not OF_ROS.fullmatch(topic):
                    found |= {(topic, kind): way for kind in types}
    except NodeNameNonExistentError:
        return {}
    return found
