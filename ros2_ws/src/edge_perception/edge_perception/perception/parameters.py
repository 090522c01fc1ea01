"""The parameters of perception_node."""

from edge_perception.input import RELIABILITIES, TRANSPORTS
from edge_perception.parameters import ParameterSpec
from edge_perception.perception.results import OUTPUTS

PERCEPTION = (
    ParameterSpec(
        "model",
        "/var/lib/edge-agent/state/models/current",
        "bundle directory, or the agent's link to it; a link is followed",
    ),
    ParameterSpec("precision", "fp32", "of the model; int8 is faster", choices=("fp32", "int8")),
    ParameterSpec("threads", 1, "threads that run the model", 1, 64),
    ParameterSpec("image_topic", "image", "raw images; relative names are in the namespace"),
    ParameterSpec(
        "transport",
        "raw",
        "raw: image_topic; compressed: image_topic/compressed",
        choices=TRANSPORTS,
    ),
    ParameterSpec(
        "reliability",
        "auto",
        "asked of the camera's publisher; auto: what it offers",
        choices=RELIABILITIES,
    ),
    ParameterSpec(
        "output",
        "auto",
        "messages of the results; auto: vision_msgs where it is installed",
        choices=OUTPUTS,
    ),
    ParameterSpec(
        "threshold",
        0.0,
        "results with a lower score are left out; 0: boxes that the model is not sure of",
        0.0,
        1.0,
        at_run_time=True,
    ),
    ParameterSpec(
        "max_rate_hz",
        0.0,
        "images answered a second at most; 0: all",
        0.0,
        1000.0,
        at_run_time=True,
    ),
    ParameterSpec("autostart", True, "configure and activate itself"),
)
