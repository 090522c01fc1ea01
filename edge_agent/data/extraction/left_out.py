"""Which bag may be left out of an extraction of several."""

from pathlib import Path

from edge_agent.data.frames.bag import BagFrames
from edge_agent.data.frames.damage import WRONG_CAMERA_TOPIC, WRONG_LABEL_TOPIC
from edge_agent.data.frames.source import is_bag
from fleet_model.errors import FrameError


def may_be_left_out(path: Path, error: FrameError) -> bool:
    """Return whether the others can go on without this one.

    So can they without a bag that is damaged all over, or that a recorder left without one of the
    topics. They cannot where the operator must say more, which camera is meant for one.
    """
    if not is_bag(path):
        return False
    if error.reason in (WRONG_CAMERA_TOPIC, WRONG_LABEL_TOPIC):
        return True
    try:
        BagFrames(path).topics()
    except FrameError:
        return True
    return False
