"""What an update must hold to be folded in: pure functions over one update, or over a round's."""

from collections.abc import Sequence

import numpy as np

from cloud_server.state.settings import CheckSettings
from fleet_model.errors import UpdateError
from fleet_model.types import Checkpoint, Tensor, Update, Weights
from fleet_model.weights import require_same_tensors, size_bytes

NORMS = "checks/norms"  # in Checkpoint.server_state: so that a resumed run judges the same
KEPT_NORMS = 100
_CHUNK = 1 << 18  # elements squared at once: a float64 copy of a whole tensor would be twice it


def check_update(
    update: Update, checkpoint: Checkpoint, asked_version: int, checks: CheckSettings
) -> None:
    """Raise UpdateError that says why, not of whom, unless the update fits the checkpoint.

    `asked_version` is the version that the robot was sent; that it is old is no fault of the
    robot's, and not looked at here. Nor is the length: that depends on the others, and is judged
    when the round closes, so that arrival order cannot matter.
    """
    check_reply(update, asked_version, checks)
    if update.groups:  # no rule reads them: they would only fill the disk
        raise UpdateError(
            f"the update has further tensors, the group {next(iter(update.groups))!r}, which "
            "nobody asked for"
        )
    require_same_tensors(checkpoint.weights, update.weights, sender="the update")


def check_reply(update: Update, asked_version: int, checks: CheckSettings) -> None:
    """Raise UpdateError unless a reply of any kind is about what was asked, and small enough."""
    if update.base_version != asked_version:
        raise UpdateError(f"it is based on version {update.base_version}, expected {asked_version}")
    if update.num_examples <= 0:
        raise UpdateError(f"it is of {update.num_examples} examples, expected > 0")
    if (size_mb := reply_bytes(update) / 1e6) > checks.max_update_mb:
        raise UpdateError(
            f"it has {size_mb:.1f} MB, expected at most {checks.max_update_mb:g} "
            "(checks.max_update_mb)"
        )


def reply_bytes(update: Update) -> int:
    """Return the bytes of all tensors of a reply."""
    return sum(map(size_bytes, (update.weights, *update.groups.values())))


def weight_of(num_examples: int, checks: CheckSettings) -> int:
    """Return the examples that count: a larger claim is capped, never refused."""
    return min(num_examples, checks.max_examples_per_robot)


def norm_of(weights: Weights) -> float:
    """Return the Euclidean length of all tensors taken as one vector, summed in float64."""
    return float(np.sqrt(sum(_sum_of_squares(weights[name]) for name in sorted(weights))))


def accepted_norms(checkpoint: Checkpoint) -> Tensor:
    """Return the lengths of the last accepted updates, oldest first: float64, at most 100."""
    return checkpoint.server_state.get(NORMS, np.zeros(0))


def remember_norms(before: Tensor, norms: Sequence[float]) -> Tensor:
    """Return the lengths that the next checkpoint keeps."""
    return np.concatenate([before, np.asarray(norms, np.float64)])[-KEPT_NORMS:]


def largest_norm(norms: Sequence[float], before: Tensor, checks: CheckSettings) -> float:
    """Return the length above which an update of this round is refused.

    It is max_norm_ratio times the lower median of the round's lengths and of those accepted
    lately. Infinity if the check is off, if fewer than two lengths are known, or if the median is
    zero: then there is nothing to measure by.
    """
    known = np.sort(np.concatenate([before, np.asarray(norms, np.float64)]))
    if checks.max_norm_ratio == 0 or len(known) < 2:
        return float("inf")
    median = float(known[(len(known) - 1) // 2])
    return checks.max_norm_ratio * median if median > 0 else float("inf")


def _sum_of_squares(tensor: Tensor) -> float:
    flat = tensor.reshape(-1)
    total = 0.0
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK].astype(np.float64)
        total += float(np.add.reduce(np.multiply(chunk, chunk, out=chunk)))
    return total
