"""Install the nodes where ROS finds them."""

from setuptools import find_packages, setup

NAME = "edge_perception"

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
    ],
    zip_safe=True,
    description="ROS nodes that run, feed and follow a model of the fleet",
    license="Apache-2.0",
    # Without this extra, `colcon test` runs no test and says that all is well.
    extras_require={"test": ["pytest"]},
    entry_points={
        "console_scripts": [
            f"perception_node = {NAME}.perception.node:main",
            f"frame_recorder_node = {NAME}.recorder.node:main",
            f"camera_node = {NAME}.camera.node:main",
        ]
    },
)
