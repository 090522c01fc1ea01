"""How much a robot may announce and send: derived from the model that it was asked for.

Flower writes every object that a reply announces into its database before one byte of it has come,
in one transaction during which no other robot can be served. A small message can name a hundred
thousand of them.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cloud_server.state.directory import ServerDirectory
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.errors import FleetError, RefusedError

CHUNK_BYTES = 5 << 20  # Flower cuts tensors into pieces of so many bytes
SLACK = 2  # what is a little too long is taken, and then refused with words for its robot
FEW_OBJECTS, SMALL_BYTES = 64, 1 << 20  # message, records, measures
DEPTH = 8  # message, records, record, tensor, piece: 5
ANNOUNCED_BYTES = 200  # of one object: its id is 64
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyBound:
    """Of one reply."""

    objects: int  # in its tree, each as often as it is named
    content_bytes: int  # of all its objects together

    def require(self, request: Any) -> None:
        """Raise RefusedError if a push-messages request announces more; looks no further then."""
        most = self.objects * ANNOUNCED_BYTES + SMALL_BYTES
        if request.ByteSize() > most:
            raise RefusedError(f"the announcement of a reply is longer than {most} bytes")
        found, level = 0, list(request.message_object_trees)
        for _ in range(DEPTH):
            found += len(level)
            if found > self.objects:
                raise RefusedError(f"a reply of more than {self.objects} objects")
            level = [child for tree in level for child in tree.children]
        if level:
            raise RefusedError(f"a reply whose objects are nested more than {DEPTH} deep")


def bound_of(tensor_bytes: list[int], max_reply_bytes: int, sums_bytes: int = 0) -> ReplyBound:
    """Return the bound for a model whose trained tensors have these bytes.

    Args:
        tensor_bytes: of each trained tensor.
        max_reply_bytes: of any reply.
        sums_bytes: of the largest tensor of sums of features, if they are asked for exactly.
    """
    objects = sum(2 + size // CHUNK_BYTES for size in tensor_bytes) + 2 * sums_bytes // CHUNK_BYTES
    content_bytes = max(2 * SLACK * sum(tensor_bytes), 3 * sums_bytes) + SMALL_BYTES
    return ReplyBound(
        objects=SLACK * objects + FEW_OBJECTS, content_bytes=min(max_reply_bytes, content_bytes)
    )


def model_bound(
    server_dir: ServerDirectory, max_reply_bytes: int, *, exact_sums: bool = False
) -> Callable[[], ReplyBound]:
    """Return what tells the bound for the model that is trained now: it may gain labels.

    Args:
        server_dir: of the model.
        max_reply_bytes: of any reply.
        exact_sums: whether robots may be asked for the whole scatter of their features.
    """
    file, known = server_dir.model / TRAINER, dict[tuple[int, int], ReplyBound]()

    def bound() -> ReplyBound:
        status = file.stat()
        key = status.st_mtime_ns, status.st_size
        if key not in known:
            spec = parse_trainer(file.read_bytes())
            sizes = [4 * math.prod(tensor.shape) for tensor in spec.tensors.values()]
            known.clear()
            widths = [tensor.shape[0] for tensor in spec.tensors.values() if tensor.shape[1:]]
            widest = max(widths, default=0) if exact_sums else 0
            known[key] = bound_of(sizes, max_reply_bytes, 2 * widest * (widest + 1))
        return known[key]

    def last() -> ReplyBound:
        try:
            return bound()
        except (OSError, FleetError) as error:  # a damaged model fails rounds, and is told there
            log.debug("%s: %s", file, error)
            return next(iter(known.values()), bound_of([max_reply_bytes // 8], max_reply_bytes))

    return last
