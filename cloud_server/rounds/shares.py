"""What of each accepted update counts: no robot weighs more than its share, no update is too long.

Both bounds are told, and refuse nobody: a robot with new labels sends a long update, one that has
driven further than the others has more examples, and neither is hostile. What the others have just
sent decides how much counts, never who is honest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low  # of two: the larger one cannot vouch for itself

import numpy as np

from cloud_server.rounds.reply_spool import Kept
from cloud_server.state.learning_settings import CheckSettings
from fleet_model.adapters.spec import sent_back
from fleet_model.types import Checkpoint, Tensor, Weights

NORMS = "checks/norms"  # in Checkpoint.server_state: so that a resumed run judges the same
KEPT_NORMS = 100
# A model that begins with zeros has no length of its own: numbers of this size are small ones.
SMALL_WEIGHT = 0.01
_CHUNK = 1 << 18  # elements squared at once: a float64 copy of a whole tensor would be twice it


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """An accepted reply, and what of it counts."""

    kept: Kept
    weight: int  # examples that count, at least 1
    norm: float  # length (L2) that counts, at most that of the update
    most: str = ""  # what bounds the examples, in words
    longest: str = ""  # what bounds the length

    @property
    def is_cut(self) -> bool:
        """Return whether the update is longer than what counts."""
        return self.norm < self.kept.norm

    def cut(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the update as it counts: the same one unless the update is cut."""
        if not self.is_cut:
            return tensor
        cut, factor = np.empty_like(tensor), self.norm / self.kept.norm
        # In float64, piece by piece: of a very long update the factor is no number of float32.
        np.multiply(tensor, factor, out=cut, dtype=np.float64, casting="same_kind")
        return cut


def shares(kept: Sequence[Kept], checkpoint: Checkpoint, checks: CheckSettings) -> list[Share]:
    """Return what of a round's accepted replies counts; their order does not matter."""
    most, of_examples = _most(
        [n for k in kept for n in claims(k.num_examples, k.speaks_for)], checks
    )
    longest, of_lengths = _longest([one.norm for one in kept], checkpoint, checks)
    return [
        Share(
            kept=one,
            weight=min(one.num_examples, most * one.speaks_for),
            norm=min(one.norm, longest),
            most=of_examples,
            longest=of_lengths,
        )
        for one in kept
    ]


def claims(examples: int, robots: int) -> list[int]:
    """Return the examples of each robot that a reply stands for: a relay tells their sum."""
    return [max(1, examples // robots)] * robots


def counted(
    examples: Sequence[int], checks: CheckSettings, robots: Sequence[int] = ()
) -> list[int]:
    """Return the examples of each robot that count: a larger claim is capped, never refused.

    The bound is max_examples_ratio times the lower median of the round, so that a claim gives no
    robot more than its share, and max_examples_per_robot.

    Args:
        examples: that each reply tells.
        checks: with the two bounds.
        robots: for how many robots each reply stands; empty: each for one.
    """
    behind = robots or [1] * len(examples)
    told = list(zip(examples, behind, strict=True))
    most, _ = _most([n for many, of in told for n in claims(many, of)], checks)
    return [min(many, most * of) for many, of in told]


def _most(examples: Sequence[int], checks: CheckSettings) -> tuple[int, str]:
    """Return how many examples of one robot count, and what says so."""
    most, ratio = checks.max_examples_per_robot, checks.max_examples_ratio
    words = f"at most {most} of a robot (checks.max_examples_per_robot)"
    if ratio and examples and (share := max(1, int(ratio * median_low(examples)))) < most:
        many = "as many" if ratio == 1 else f"{ratio:g} times as many"
        most, words = (
            share,
            (
                f"at most {many} as the median robot of the round, so that no robot decides alone "
                "(checks.max_examples_ratio)"
            ),
        )
    return most, words


def longest_norm(norms: Sequence[float], checkpoint: Checkpoint, checks: CheckSettings) -> float:
    """Return the length that counts of an update that is longer.

    It is max_norm_ratio times the lower median of the round's lengths and of those that counted
    lately, but never less than max_norm_of_model times the length of the model: a fleet that has
    learned what it knows sends hardly anything, and whoever has something new sends a lot. Infinity
    if the bound is off.
    """
    return _longest(norms, checkpoint, checks)[0]


def _longest(
    norms: Sequence[float], checkpoint: Checkpoint, checks: CheckSettings
) -> tuple[float, str]:
    """Return what `longest_norm` says, and what says so."""
    if checks.max_norm_ratio == 0:
        return float("inf"), ""
    known = [*recent_norms(checkpoint).tolist(), *norms]
    usual = checks.max_norm_ratio * median_low(known) if known else 0.0
    least = checks.max_norm_of_model * model_norm(sent_back(checkpoint.weights))
    if usual > least:
        times = f"{checks.max_norm_ratio:g} times"
        return usual, f"at most {times} the median of recent updates (checks.max_norm_ratio)"
    times = f"{checks.max_norm_of_model:g} times"
    return least, f"at most {times} the length of the model (checks.max_norm_of_model)"


def model_norm(weights: Weights) -> float:
    """Return the length of a model, at least that of one with small numbers everywhere."""
    numbers = sum(tensor.size for tensor in weights.values())
    return max(norm_of(weights), float(SMALL_WEIGHT * np.sqrt(numbers)))


def norm_of(weights: Weights) -> float:
    """Return the Euclidean length of all tensors taken as one vector, summed in float64."""
    return float(np.sqrt(sum(_sum_of_squares(weights[name]) for name in sorted(weights))))


def recent_norms(checkpoint: Checkpoint) -> Tensor:
    """Return the lengths that counted lately, oldest first: float64, at most KEPT_NORMS."""
    return checkpoint.server_state.get(NORMS, np.zeros(0))


def remember_norms(before: Tensor, norms: Sequence[float]) -> Tensor:
    """Return the lengths that the next checkpoint keeps."""
    return np.concatenate([before, np.asarray(norms, np.float64)])[-KEPT_NORMS:]


def _sum_of_squares(tensor: Tensor) -> float:
    flat = tensor.reshape(-1)
    total = 0.0
    for start in range(0, flat.size, _CHUNK):
        chunk = flat[start : start + _CHUNK].astype(np.float64)
        total += float(np.add.reduce(np.multiply(chunk, chunk, out=chunk)))
    return total
