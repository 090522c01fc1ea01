"""Power cuts while frame_recorder_node writes bags, and while it recovers one."""

import os
from pathlib import Path

from bag_writer import BagWriter as Messages
from bag_writer import encode
from edge_perception.recorder.bag import BagFiles, BagWriter, TopicType
from edge_perception.recorder.definitions import definition_of
from edge_perception.recorder.message import Message
from edge_perception.recorder.spool import Spool, SpoolSettings
from power_cuts import Scenario
from recorder import mark

from edge_agent.data.frames.bag import BagFrames
from fleet_model.files.damage import DamageLog

_KIND = "sensor_msgs/msg/CompressedImage"
_TOPICS = {Messages.CAMERA: TopicType(_KIND, definition_of(_KIND))}
_FRAMES = 4  # two in the bag that a kill has left, two in the next one


def _frame(number: int) -> Message:
    messages, stamp_ns = Messages(), Messages.START_NS + number
    message = messages.jpeg(stamp_ns, encode(number))
    data = bytes(messages.store.serialize_cdr(message, _KIND))
    return Message(Messages.CAMERA, data, stamp_ns, stamp_ns, is_frame=True)


def _prepare(root: Path) -> None:
    (root / "spool").mkdir()
    bag = BagWriter(BagFiles(root / "spool", "killed"), _TOPICS)
    for number in range(2):
        bag.add(_frame(number))
    bag.abandon()


def _spool(root: Path) -> Spool:
    return Spool(SpoolSettings(folder=root / "spool", name="r1"), _TOPICS)


def _act(root: Path) -> None:
    spool = _spool(root)
    spool.recover()
    mark()
    for number in range(2, _FRAMES):
        spool.add(_frame(number))
    spool.tend(finish=True)
    mark()


def _observe(root: Path) -> list[int]:
    """Return the frames of all bags that readers see; every one of these bags is whole."""
    numbers, damage = [], DamageLog()
    for bag in sorted((root / "spool").glob("[!.]*")):
        assert (bag / "metadata.yaml").stat().st_size
        numbers += [e.load().stamp_ns - Messages.START_NS for e in BagFrames(bag).entries(damage)]
    assert not damage, damage.all()
    return sorted(numbers)


def _resume(root: Path) -> None:
    for empty in (root / "spool").glob(".*.part"):
        os.utime(empty, (0, 0))
    spool = _spool(root)
    spool.recover()
    for number in range(_FRAMES):
        if number not in _observe(root):  # the camera shows it again
            spool.add(_frame(number))
    spool.tend(finish=True)


def _settled(root: Path) -> tuple[list[int], list[Path]]:
    return _observe(root), sorted((root / "spool").glob(".*"))


RECORD = Scenario(prepare=_prepare, act=_act, observe=_observe, resume=_resume, settled=_settled)
FIRST_RECORDING = Scenario(  # on a robot that has no spool yet
    prepare=lambda root: None, act=_act, observe=_observe, resume=_resume, settled=_settled
)
