"""Transformers with a row of numbers for each query; no box overlaps one of its class by rule."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from fleet_model.types import Tensor, Tensors
from fleet_model.workloads.object_detector.imported.candidates import (
    Candidates,
    best_pairs,
    from_middles,
)
from fleet_model.workloads.object_detector.imported.layouts import (
    IMAGENET,
    ONE,
    Usual,
    in_pixels,
)
from fleet_model.workloads.object_detector.imported.reading import Reading

BOXES, LOGITS = "boxes", "logits"


class DFineLogits:
    """Boxes (1, queries, 4) as shares x, y, width, height, logits (1, queries, classes): sigmoid.

    RT-DETR (arXiv:2304.08069), D-FINE (arXiv:2410.13842) and others, as transformers exports them:
    pictures 0..1, stretched.
    """

    words: ClassVar[str] = "D-FINE, RT-DETR (logits and pred_boxes)"
    usual: ClassVar[Usual] = Usual(ONE, "stretch", shares=True)
    names: ClassVar[tuple[str, ...]] = ()  # of the logits, where they tell this layout from others

    def roles(self, outputs: Tensors, size: tuple[int, int]) -> dict[str, str] | None:
        """Return both outputs; see Layout."""
        return boxes_and(LOGITS, outputs)

    def is_sure(self, roles: Mapping[str, str]) -> bool:
        """Return whether the names are this layout's own."""
        return roles[LOGITS] in self.names

    def columns(self, outputs: Tensors) -> int | None:
        """Return the columns of the logits."""
        return int(outputs[LOGITS].shape[-1])

    def read(self, outputs: Tensors, reading: Reading) -> Candidates:
        """Return the surest pairs of a query and a class."""
        logits = outputs[LOGITS].astype(np.float64)
        boxes = in_pixels(from_middles(outputs[BOXES].astype(np.float32)), reading)
        return best_pairs(boxes, self._scores(logits))

    def _scores(self, logits: Tensor) -> Tensor:
        return np.asarray(0.5 * (1 + np.tanh(logits / 2)))  # the sigmoid, for logits of any size


class RfDetr(DFineLogits):
    """The same with pictures as ImageNet's: RF-DETR's own export has `dets` and `labels`.

    arXiv:2511.09554. Its models for COCO have 91 columns, as the numbers of COCO's categories.
    """

    words: ClassVar[str] = "RF-DETR (dets and labels)"
    usual: ClassVar[Usual] = Usual(IMAGENET, "stretch", shares=True)
    names: ClassVar[tuple[str, ...]] = ("labels",)


class Detr(DFineLogits):
    """The same with softmax, whose last column is "nothing": DETR (arXiv:2005.12872)."""

    words: ClassVar[str] = "DETR (softmax; the last class is nothing)"
    usual: ClassVar[Usual] = Usual(IMAGENET, "stretch", shares=True)

    def columns(self, outputs: Tensors) -> int | None:
        """Return the columns but for the last."""
        return int(outputs[LOGITS].shape[-1]) - 1

    def _scores(self, logits: Tensor) -> Tensor:
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray((powers / powers.sum(axis=1, keepdims=True))[:, :-1])


def boxes_and(role: str, outputs: Tensors) -> dict[str, str] | None:
    """Return which of two outputs has boxes, (1, n, 4), and which a column for each class."""
    if len(outputs) != 2 or any(tensor.ndim != 3 for tensor in outputs.values()):
        return None
    shapes = {name: tensor.shape for name, tensor in outputs.items()}
    if len({shape[1] for shape in shapes.values()}) != 1:
        return None
    four = [name for name, shape in shapes.items() if shape[2] == 4]
    if len(four) == 2:  # of four classes: names must tell
        four = [name for name in four if "box" in name.lower() or "det" in name.lower()]
    if len(four) != 1:
        return None
    other = next(name for name in outputs if name != four[0])
    return {BOXES: four[0], role: other}
