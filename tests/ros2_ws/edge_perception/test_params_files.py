"""Which parameter files say nothing to a node; whether ROS reads them so is test_process.py's."""

import pytest
from edge_perception.params_files import silent_files

pytestmark = pytest.mark.base


@pytest.fixture
def words(tmp_path):
    """Return what is said of one file of these sections, to a node of this name."""

    def told(content, node="/robot_7/perception"):
        file = tmp_path / "robot.yaml"
        file.write_text(content)
        args = ["node", "--ros-args", "-p", "a:=1", "--params-file", str(file), "--", "more"]
        return [(one.words.partition(": ")[2], one.is_meant) for one in silent_files(args, node)]

    return told


def section(name, indent=""):
    return f"{indent}{name}:\n{indent}  ros__parameters:\n{indent}    threshold: 0.5\n"


@pytest.mark.parametrize(
    "name",
    [
        "/**",
        "/**/perception",
        "/*/perception",
        "/robot_7/perception",
        "robot_7/perception",
        "/robot_7/*",
        "/**/*",
    ],
)
def test_a_section_for_the_node_is_no_news(words, name):
    assert words(section(name)) == []
    assert words(section("/other") + section(name)) == []


def test_a_namespace_may_be_a_level_of_its_own(words):
    assert words("robot_7:\n" + section("perception", "  ")) == []
    assert words("/robot_8:\n" + section("perception", "  "))


def test_any_number_of_namespaces_may_be_none(words):
    assert words(section("/**/perception"), "/perception") == []
    assert words(section("/*/perception"), "/perception")


@pytest.mark.parametrize("name", ["perception_node", "perception", "/robot_8/perception"])
def test_a_section_that_is_nearly_the_nodes_is_a_mistake(words, name):
    ((said, is_meant),) = words(section(name))
    assert said == (
        f"no section is for this node, so nothing in it is used: it has /{name.lstrip('/')}; "
        "name the section /robot_7/perception or /**"
    )
    assert is_meant


def test_a_file_for_other_nodes_may_be_meant_so(words):
    (said,) = words("".join(section(f"driver_{n}") for n in range(7)))
    assert "it has /driver_0, /driver_1, /driver_2, /driver_3, /driver_4, ...;" in said[0]
    assert not said[1]


def test_what_is_no_file_of_parameters_is_left_to_ros(words, tmp_path):
    for content in ("", "[1, 2]", "a: [", "a: 1", "\tx: 1"):
        assert words(content) == []
    gone = str(tmp_path / "gone.yaml")
    assert silent_files(["node", "--ros-args", "--params-file", gone], "/perception") == []
    assert silent_files(["node", "--ros-args", "--params-file"], "/perception") == []


def test_words_that_are_not_for_ros_are_passed_over(tmp_path):
    file = tmp_path / "other.yaml"
    file.write_text(section("/other"))
    own = ["--params-file", str(file)]
    assert silent_files(["node", *own, "--ros-args", "--", *own], "/perception") == []
    assert silent_files(["node", "--ros-args", "--", "--ros-args", *own], "/perception")
