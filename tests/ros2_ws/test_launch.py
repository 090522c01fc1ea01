"""The launch file: two forms that say the same, whose nodes start and read the parameters given."""

import signal
from pathlib import Path

import pytest
import yaml
from launch_forms import command_of, read_python, read_xml

SOURCES = Path(__file__).parents[2] / "ros2_ws/src"
BRINGUP = SOURCES / "edge_bringup"
XML = BRINGUP / "launch/edge_perception.launch.xml"
PYTHON = BRINGUP / "launch/edge_perception.launch.py"
PARAMETERS = yaml.safe_load((BRINGUP / "config/edge_perception.yaml").read_text())
ROBOT_FRAMES = Path(__file__).parents[1] / "data/robot_frames"
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource

arguments = [tuple(word.split(":=", 1)) for word in sys.argv[2:]]
source = AnyLaunchDescriptionSource(sys.argv[1])
included = IncludeLaunchDescription(source, launch_arguments=arguments)
service = LaunchService()
service.include_launch_description(LaunchDescription([included]))
sys.exit(service.run())
"""
SHARES = {"edge_bringup": BRINGUP}


def given(node):
    """Return the parameters that the YAML file gives a node of that name."""
    return PARAMETERS[f"/**/{node}"]["ros__parameters"]


def ours():
    return [node for node in read_xml(XML).nodes if node["package"] == "edge_perception"]


def test_both_forms_say_the_same():
    assert read_xml(XML) == read_python(PYTHON)
    assert len(read_xml(XML).nodes) == 4


@pytest.mark.parametrize(
    "changed",
    [
        ("<set_env ", "<unset_env "),
        (' type="str"', ""),
        ('output="screen"', 'respawn="true"'),
        ("<remap ", "<env "),
    ],
)
def test_what_the_reader_does_not_know_is_refused(tmp_path, changed):
    (tmp_path / "x.launch.xml").write_text(XML.read_text().replace(*changed))
    assert changed[0] in XML.read_text()
    with pytest.raises((KeyError, AssertionError)):
        read_xml(tmp_path / "x.launch.xml")


@pytest.mark.parametrize(
    "changed",
    [
        ("SetEnvironmentVariable(", "UnsetEnvironmentVariable("),
        ("import SetEnvironmentVariable", "import TimerAction"),
        ('output="screen"', "respawn=True"),
        ("value_type=str", "value_type=int"),
        ("IfCondition(", "UnlessCondition("),
    ],
)
def test_python_that_the_reader_does_not_know_is_refused(tmp_path, changed):
    text = PYTHON.read_text().replace(
        "DeclareLaunchArgument, Set", "DeclareLaunchArgument\nfrom launch.actions import Set"
    )
    assert changed[0] in text
    (tmp_path / "x.launch.py").write_text(text.replace(*changed))
    with pytest.raises((NameError, ImportError, AssertionError)):
        read_python(tmp_path / "x.launch.py")


def test_every_parameter_in_yaml_is_declared_at_its_default_and_none_is_missing():
    from edge_perception.tables import TABLES, table_of

    nodes = {node["executable"]: node["name"] for node in ours()}
    assert set(nodes) == set(TABLES)
    assert set(PARAMETERS) == {f"/**/{name}" for name in nodes.values()}
    for program, name in nodes.items():
        defaults = {
            spec.name: list(spec.default) if isinstance(spec.default, tuple) else spec.default
            for spec in table_of(program)
        }
        assert given(name) == defaults
        assert [type(value) for value in given(name).values()] == [
            type(defaults[key]) for key in given(name)
        ]


def test_every_argument_is_used_and_every_file_is_there():
    description = read_xml(XML)
    used = repr((description.environment, description.nodes))
    assert all(f"$(var {name})" in used for name in description.arguments)
    files = {
        text
        for text in (*(d for d, _ in description.arguments.values()), used)
        if "$(find-pkg-share edge_bringup)" in text
    }
    assert files
    for name in ("config/edge_perception.yaml", "config/fast_dds.xml", "rviz/edge_perception.rviz"):
        assert any(f"$(find-pkg-share edge_bringup)/{name}" in text for text in files)
        assert (BRINGUP / name).is_file()


@pytest.mark.ros
@pytest.mark.parametrize("namespace", ["", "robot_7"])
def test_the_nodes_that_it_names_start_and_know_every_parameter(
    workspace, processes, listener, tmp_path, namespace
):
    """All of them, as `ros2 launch` would run them; with a namespace and without."""
    from diagnostic_msgs.msg import DiagnosticArray
    from rcl_interfaces.srv import GetParameters
    from ros_robot import until

    diagnostics = listener.collect(DiagnosticArray, "/diagnostics")
    description = read_xml(XML)
    values = {
        name: default.replace("$(find-pkg-share edge_bringup)", str(BRINGUP))
        for name, (default, _) in description.arguments.items()
    }
    values |= {"namespace": namespace, "camera": "true", "image": "/camera/image"}
    values |= {"params_file": str(tmp_path / "params.yaml"), "source": str(ROBOT_FRAMES)}
    changed = (BRINGUP / "config/edge_perception.yaml").read_text()
    changed = changed.replace("threshold: 0.0", "threshold: 0.25").replace(
        "/data/spool", str(tmp_path)
    )
    (tmp_path / "params.yaml").write_text(changed)
    installed = workspace / "install"
    commands = [command_of(node, values, SHARES, installed) for node in description.nodes]
    assert commands.pop() is None  # RViz
    started = [processes.command(command) for command in commands]
    names = {f"{namespace}/{node['name']}".strip("/") for node in ours()}
    until(
        lambda: names <= {array.status[0].name for array in diagnostics},
        lambda: [process.log for process in started],
    )
    request = GetParameters.Request(names=["threshold"])
    service = f"/{namespace}/perception/get_parameters".replace("//", "/")
    assert listener.call(GetParameters, service, request).values[0].double_value == 0.25
    for process in started:
        process.terminate()
        assert process.wait(240) == 0, process.log
        assert not [line for line in process.log if "but this node has none" in line]


@pytest.mark.ros
@pytest.mark.parametrize("form", [XML, PYTHON])
def test_ros_itself_starts_the_nodes_of_both_forms(workspace, processes, listener, tmp_path, form):
    pytest.importorskip("launch_ros", reason="needs launch_ros, which has no wheels")
    from diagnostic_msgs.msg import DiagnosticArray
    from ros_robot import until

    diagnostics = listener.collect(DiagnosticArray, "/diagnostics")
    (tmp_path / "start.py").write_text(LAUNCH)
    arguments = ("namespace:=robot_7", "camera:=true", f"source:={ROBOT_FRAMES}", "record:=false")
    process = processes.command([tmp_path / "start.py", form, *arguments])
    wanted = {"robot_7/perception", "robot_7/camera"}
    until(lambda: wanted <= {array.status[0].name for array in diagnostics}, lambda: process.log)
    process.send_signal(signal.SIGINT)
    assert process.wait(240) == 0, process.log
    assert sum("process has finished cleanly" in line for line in process.log) == 2, process.log
