"""One robot's perception and recorder; as edge_perception.launch.xml."""

from collections.abc import Mapping, Sequence
from typing import Any

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare


def shipped(*path: str) -> PathJoinSubstitution:
    """Return a file of this package."""
    return PathJoinSubstitution([FindPackageShare("edge_bringup"), *path])


def node(
    program: str,
    name: str,
    switch: str = "",
    parameters: Sequence[Mapping[str, Any]] = (),
    remappings: Sequence[tuple[str, Any]] = (),
) -> Node:
    """Return a node of edge_perception; `switch` names the argument that says whether it runs."""
    return Node(
        package="edge_perception",
        executable=program,
        name=name,
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[ParameterFile(LaunchConfiguration("params_file")), *parameters],
        remappings=[("image", LaunchConfiguration("image")), *remappings],
        condition=IfCondition(LaunchConfiguration(switch)) if switch else None,
    )


def generate_launch_description() -> LaunchDescription:
    """Return what `ros2 launch` runs."""
    arguments = [
        ("namespace", "", "of every topic and node of this robot"),
        ("image", "image", "raw image topic; its JPEG is IMAGE/compressed"),
        ("params_file", shipped("config", "edge_perception.yaml"), "parameters of all nodes"),
        (
            "dds_profile",
            shipped("config", "fast_dds.xml"),
            "of Fast DDS; every process of the robot should use it",
        ),
        ("record", "true", "whether frames are kept for training"),
        ("camera", "false", "whether camera_node publishes the images"),
        ("source", "", "camera, video, bag or folder that camera_node plays"),
        ("rviz", "false", "whether RViz shows image and results"),
    ]
    profile = LaunchConfiguration("dds_profile")
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=description)
                for name, default, description in arguments
            ),
            SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", profile),
            SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", profile),
            node("perception_node", "perception"),
            node("frame_recorder_node", "frame_recorder", "record"),
            node(
                "camera_node",
                "camera",
                "camera",
                [{"source": ParameterValue(LaunchConfiguration("source"), value_type=str)}],
                [("image/compressed", [LaunchConfiguration("image"), "/compressed"])],
            ),
            Node(
                package="rviz2",
                executable="rviz2",
                name="rviz",
                namespace=LaunchConfiguration("namespace"),
                output="screen",
                arguments=["-d", shipped("rviz", "edge_perception.rviz")],
                remappings=[("image", LaunchConfiguration("image"))],
                condition=IfCondition(LaunchConfiguration("rviz")),
            ),
        ]
    )
