"""The parameters of frame_recorder_node."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from edge_perception.input import RELIABILITIES, TRANSPORTS
from edge_perception.parameters import ParameterSpec
from edge_perception.recorder.frame_recorder import RecorderSettings
from edge_perception.recorder.limits import Limits
from edge_perception.recorder.model_questions import Questions
from edge_perception.recorder.spool import SpoolSettings

from fleet_model.types import NS_PER_S

LONGEST_S = 3600.0  # before and after an event
_MOST = 1_000_000  # of what has no natural bound

RECORDER = (
    ParameterSpec("spool", "/data/spool", "folder for bags: the agent's examples.spool"),
    ParameterSpec("image_topic", "image", "raw images; relative names are in the namespace"),
    ParameterSpec(
        "transport",
        "compressed",
        "raw: image_topic, encoded as JPEG; compressed: image_topic/compressed, as it comes",
        choices=TRANSPORTS,
    ),
    ParameterSpec("jpeg_quality", 95, "of raw images", 1, 100),
    ParameterSpec(
        "reliability",
        "auto",
        "asked of the publishers; auto: what they offer",
        choices=RELIABILITIES,
    ),
    ParameterSpec("label_topics", (), "topics with labels, recorded around each kept frame"),
    ParameterSpec("label_window_s", 0.5, "labels so close to a kept frame are kept", 0.0, 60.0),
    ParameterSpec("before_s", 10.0, "seconds kept of before an event", 0.0, LONGEST_S),
    ParameterSpec("after_s", 10.0, "seconds kept of after an event", 0.0, LONGEST_S),
    ParameterSpec(
        "buffer_mb", 256.0, "memory for frames that wait for an event or the disk", 1.0, 65536.0
    ),
    ParameterSpec(
        "event_topics", (), "RecordEvent, std_msgs/Empty or Bool: messages that are events"
    ),
    ParameterSpec(
        "rate_hz", 0.0, "frames a second that are kept in any case; 0: none", 0.0, 1000.0
    ),
    ParameterSpec(
        "model",
        "/var/lib/edge-agent/state/models/current",
        "the running model: the agent's link, or a bundle directory",
    ),
    ParameterSpec("precision", "fp32", "of the model", choices=("fp32", "int8")),
    ParameterSpec(
        "margin_below", 0.0, "keep frames where the best class leads by less; 0: off", 0.0, 1.0
    ),
    ParameterSpec(
        "entropy_above", 1.0, "keep frames of more entropy (1: any class); 1: off", 0.0, 1.0
    ),
    ParameterSpec("next_model", "", "keep frames where this model names another class; empty: off"),
    ParameterSpec("model_rate_hz", 1.0, "frames a second that the model looks at", 0.01, 1000.0),
    *(
        ParameterSpec(
            f"{what}_per_{period}",
            0,
            f"{meaning} in any {period}, at most; 0: no limit",
            0,
            _MOST,
        )
        for what, meaning in (
            ("frames", "frames kept by rate or by the model"),
            ("events", "events that are followed"),
        )
        for period in ("minute", "hour", "day")
    ),
    ParameterSpec("budget_mb", 2000.0, "disk for all bags of this recorder", 1.0, 1e9),
    ParameterSpec(
        "remove_oldest", False, "remove the oldest bags when the budget is used up; else stop"
    ),
    ParameterSpec("bag_s", 30.0, "a bag ends after so many seconds", 1.0, 3600.0),
    ParameterSpec("bag_mb", 64.0, "and with this size", 1.0, 65536.0),
    ParameterSpec("autostart", True, "configure and activate itself"),
)


class Chosen(NamedTuple):
    """What the parameters say, for the parts of the recorder."""

    recorder: RecorderSettings
    spool: SpoolSettings
    questions: Questions
    values: Mapping[str, Any]  # of all parameters, by name


def chosen(values: Mapping[str, Any], node: str) -> Chosen:
    """Return what the values mean; `node` is the whole name, after which the bags are named."""
    label_ns = _ns(values["label_window_s"])
    recorder = RecorderSettings(
        before_ns=_ns(values["before_s"]),
        after_ns=_ns(values["after_s"]),
        label_ns=label_ns,
        rate_hz=values["rate_hz"],
        max_bytes=_bytes(values["buffer_mb"]),
        frame_limits=_limits(values, "frames"),
        trigger_limits=_limits(values, "events"),
    )
    spool = SpoolSettings(
        folder=Path(values["spool"]),
        name=node.strip("/").replace("/", "-"),
        bag_s=values["bag_s"],
        bag_bytes=_bytes(values["bag_mb"]),
        budget_bytes=_bytes(values["budget_mb"]),
        remove_oldest=values["remove_oldest"],
        label_ns=label_ns,
    )
    questions = Questions(
        current=Path(values["model"]),
        next=Path(values["next_model"]) if values["next_model"] else None,
        margin_below=values["margin_below"],
        entropy_above=values["entropy_above"],
        rate_hz=values["model_rate_hz"],
        precision=values["precision"],
    )
    return Chosen(recorder, spool, questions, values)


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


def _bytes(megabytes: float) -> int:
    return round(megabytes * 1e6)


def _limits(values: Mapping[str, Any], what: str) -> Limits:
    periods = ("per_minute", "per_hour", "per_day")
    return Limits(**{period: values[f"{what}_{period}"] for period in periods})
