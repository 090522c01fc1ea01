"""A mean of updates no longer than a bound (Sun et al. 2019, arXiv:1911.07963, section 4.1)."""

from statistics import median_low  # of two: the longer one cannot vouch for itself

from cloud_server.aggregation.aggregator import next_checkpoint
from cloud_server.aggregation.contributions import Contribution, Contributions
from cloud_server.aggregation.mean import average, examples_in
from cloud_server.aggregation.options import require_between
from fleet_model.types import Checkpoint


class NormBounded:
    """w <- w + sum_k (n_k / n) * s_k * d_k / max(1, |d_k| / M).

    d_k is the update of robot k, M the bound; n_k, n and s_k are those of FedAvg. A scaled update
    gains nothing by its length. Whoever lies about directions is not stopped.
    """

    def __init__(self, max_norm: float = 0.0) -> None:
        """Choose the bound.

        Args:
            max_norm: M, Euclidean, of all tensors as one vector; 0: the median of the round.

        Raises:
            SettingsError: it is below 0.
        """
        self._max_norm = require_between("max_norm", max_norm, 0)

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint. Holds one update and one float64 copy of the weights.

        Raises:
            RoundError: there is nothing to average.
        """
        examples = examples_in(contributions)
        bound = self._max_norm or median_low([one.norm for one in contributions])

        def factor(one: Contribution) -> float:
            return one.examples * (bound / one.norm if one.norm > bound else 1.0)

        change = average(contributions, checkpoint.weights, factor, total=examples)
        return next_checkpoint(checkpoint, change)
