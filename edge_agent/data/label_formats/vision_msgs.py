"""The definitions of vision_msgs by version: bags of recorders before Iron hold none."""

_RULE = "=" * 80
_ARRAY = "std_msgs/Header header\nDetection2D[] detections"
_DETECTION = "std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox2D bbox\n"
_BOX = "geometry_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y"
_CLASSIFICATION = "std_msgs/Header header\nObjectHypothesis[] results"
_SOURCE = "sensor_msgs/Image source_img"
_NUMBERED = {  # before 2, and in ROS 1
    "Detection2DArray": _ARRAY,
    "Detection2D": _DETECTION + _SOURCE,
    "ObjectHypothesisWithPose": ("int64 id\nfloat64 score\ngeometry_msgs/PoseWithCovariance pose"),
    "BoundingBox2D": _BOX,
    "Classification2D": f"{_CLASSIFICATION}\n{_SOURCE}",
    "ObjectHypothesis": "int64 id\nfloat64 score",
}
# The newest first. Each name has one layout a version; 3 has the bytes of 4.
_VERSIONS = (
    {  # 4: Humble and later
        "Detection2DArray": _ARRAY,
        "Detection2D": f"{_DETECTION}string id",
        "ObjectHypothesisWithPose": (
            "ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose"
        ),
        "BoundingBox2D": _BOX.replace("geometry_msgs/", ""),
        "Pose2D": "Point2D position\nfloat64 theta",
        "Point2D": "float64 x\nfloat64 y",
        "Classification": _CLASSIFICATION,
        "ObjectHypothesis": "string class_id\nfloat64 score",
    },
    {  # 2: Foxy
        **_NUMBERED,
        "Detection2D": f"{_DETECTION}{_SOURCE}\nbool is_tracking\nstring tracking_id",
        "ObjectHypothesisWithPose": (
            "string id\nfloat64 score\ngeometry_msgs/PoseWithCovariance pose"
        ),
        "ObjectHypothesis": "string id\nfloat64 score",
    },
    {  # 1: Dashing
        **_NUMBERED,
        "ObjectHypothesisWithPose": "int64 id\nfloat64 score\ngeometry_msgs/Pose pose",
    },
    _NUMBERED,  # 0: ROS 1, also where its bags were converted
)


def default_definitions(msgtype: str) -> list[str]:
    """Return what "vision_msgs/msg/..." may be, with what it depends on, the newest first."""
    package, _, name = msgtype.partition("/msg/")
    versions = [types for types in _VERSIONS if package == "vision_msgs" and name in types]
    return [_text(types, name) for types in versions]


def _text(types: dict[str, str], name: str) -> str:
    others = [f"{_RULE}\nMSG: vision_msgs/{key}\n{text}" for key, text in types.items()]
    return "\n".join([types[name], *others])
