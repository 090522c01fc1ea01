"""The definitions of vision_msgs 4 (Humble and later): bags of old recorders hold none."""

_RULE = "=" * 80
_TYPES = {
    "Classification": "std_msgs/Header header\nObjectHypothesis[] results",
    "ObjectHypothesis": "string class_id\nfloat64 score",
    "ObjectHypothesisWithPose": (
        "ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose"
    ),
    "Detection2DArray": "std_msgs/Header header\nDetection2D[] detections",
    "Detection2D": (
        "std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox2D bbox\nstring id"
    ),
    "BoundingBox2D": "Pose2D center\nfloat64 size_x\nfloat64 size_y",
    "Pose2D": "Point2D position\nfloat64 theta",
    "Point2D": "float64 x\nfloat64 y",
}


def default_definition(msgtype: str) -> str:
    """Return the definition of "vision_msgs/msg/..." with what it depends on; else KeyError."""
    package, _, name = msgtype.partition("/msg/")
    if package != "vision_msgs":
        raise KeyError(msgtype)
    others = [f"{_RULE}\nMSG: vision_msgs/{key}\n{text}" for key, text in _TYPES.items()]
    return "\n".join([_TYPES[name], *others])
