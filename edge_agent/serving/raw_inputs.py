"""What else than the model's own tensors a workload can read: the bytes of a file, pixels.

A workload says of which kind its raw inputs are (`raw_kind`), or reads bytes itself
(`from_bytes`): see fleet_model/workload.py.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from edge_agent.serving.datatypes import BYTES
from fleet_model.pictures.image_file import image_frame
from fleet_model.types import Frame
from fleet_model.workload import Workload


class RawInput(NamedTuple):
    """One way to give a raw input; served as a model of its own, NAME-<name>."""

    name: str  # of the tensor, too
    datatype: str
    shape: tuple[int, ...]  # of one row; -1 is free
    read: Callable[[Any], Any]  # one row -> what Workload.encode takes; raises FrameError


def _picture(content: bytes) -> Frame:
    return image_frame(content, "", "", 0, "the picture", upright=True)  # as `predict` shows photos


def _rgb(pixels: Any) -> Frame:
    height, width = pixels.shape[:2]
    return Frame(
        source="", topic="", stamp_ns=0, data=b"", format="rgb8",
        decode=lambda: pixels, width=width, height=height,
    )  # fmt: skip


_KINDS = {
    "frame": (
        RawInput("encoded", BYTES, (), _picture),
        RawInput("pixels", "UINT8", (-1, -1, 3), _rgb),
    )
}


def raw_inputs(workload: Workload) -> tuple[RawInput, ...]:
    """Return what a workload can be given beside its tensors; there may be nothing."""
    own = getattr(workload, "from_bytes", None)
    if own is not None:
        return (RawInput("encoded", BYTES, (), own),)
    return _KINDS.get(getattr(workload, "raw_kind", ""), ())
