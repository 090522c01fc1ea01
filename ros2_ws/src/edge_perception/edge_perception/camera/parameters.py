"""What can be set of camera_node."""

from edge_perception.camera.source import EXPECTED
from edge_perception.parameters import ParameterSpec

CAMERA = (
    ParameterSpec("autostart", True, "configure and activate without a lifecycle manager"),
    ParameterSpec("source", "", EXPECTED),
    ParameterSpec("topic", "", "camera topic of a bag; empty takes the only one"),
    ParameterSpec("speed", 1.0, "of a recording; 2 plays it twice as fast", 0.01, 100.0),
    ParameterSpec(
        "rate_hz", 0.0, "pictures a second: of a recording exactly, of a camera at most; 0 takes "
        "them as they come", 0.0, 1000.0,
    ),
    ParameterSpec("loop", False, "a recording begins again at its end"),
    ParameterSpec(
        "stamps", "now", "header stamps: of the moment that a picture is sent, or as recorded",
        choices=("now", "recorded"),
    ),
    ParameterSpec(
        "transports", "both", "what is published: image, image/compressed or both",
        choices=("both", "raw", "compressed"),
    ),
    ParameterSpec(
        "jpeg_quality", 90, "of pictures that are no JPEG; a JPEG passes through unchanged", 1, 100,
        at_run_time=True,
    ),
    ParameterSpec("frame_id", "camera", "of the headers"),
    ParameterSpec("calibration", "", "YAML file of camera_calibration; empty: not calibrated"),
    ParameterSpec(
        "reliability", "reliable", "what is offered; every subscriber can take reliable",
        choices=("reliable", "best_effort"),
    ),
    ParameterSpec(
        "wait_for_subscribers", 0, "a recording begins when its topics have so many", 0, 100
    ),
    ParameterSpec("retry_s", 5.0, "until a camera that cannot be had is asked again", 0.1, 3600.0),
)  # fmt: skip
