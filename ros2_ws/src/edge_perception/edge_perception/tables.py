"""The table of parameters of each node: what README, YAML and launch files are held against."""

from importlib import import_module

from edge_perception.parameters import ParameterSpec

# Program of the package -> "module:attribute", a tuple of ParameterSpec.
TABLES = {
    "camera_node": "edge_perception.camera.parameters:CAMERA",
    "frame_recorder_node": "edge_perception.recorder.parameters:RECORDER",
    "perception_node": "edge_perception.perception.parameters:PERCEPTION",
}


def table_of(program: str) -> tuple[ParameterSpec, ...]:
    """Return the parameters of a program; KeyError: there is no such program."""
    module, _, name = TABLES[program].partition(":")
    table: tuple[ParameterSpec, ...] = getattr(import_module(module), name)
    return table
