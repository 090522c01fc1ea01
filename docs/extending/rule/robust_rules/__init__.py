"""Aggregation rules that a few wrong robots cannot pull away.

In server.toml:

    [aggregation]
    rule = "robust_rules:MiddleOfSites"
    options = {least_sites = 2}
"""

import numpy as np

from cloud_server.aggregation.contributions import Contributions
from fleet_model.errors import RoundError, SettingsError
from fleet_model.types import Checkpoint


class MiddleOfSites:
    """Average the robots of each site, then take the median over sites, number by number.

    Every site has one vote, however many robots or examples it has. The memory is one average per
    site; no update is kept.
    """

    def __init__(self, least_sites: int = 2) -> None:
        """Choose how many sites a round must have.

        Raises:
            SettingsError: it is below 1.
        """
        if least_sites < 1:
            raise SettingsError(f"least_sites is {least_sites}, expected at least 1")
        self._least_sites = least_sites

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint."""
        sums: dict[str, dict[str, np.ndarray]] = {}  # site -> tensor name -> weighted sum
        totals: dict[str, float] = {}  # site -> sum of the weights of its robots
        for one in contributions:  # one update is in memory at a time
            site = sums.setdefault(
                one.site, {name: np.zeros(w.shape) for name, w in checkpoint.weights.items()}
            )
            for name, total in site.items():
                total += one.weight * contributions.tensor(one, name)
            totals[one.site] = totals.get(one.site, 0.0) + one.weight
        if len(sums) < self._least_sites:
            raise RoundError(
                f"updates came from {len(sums)} sites, expected at least {self._least_sites}"
            )
        means = {
            site: {name: total / totals[site] for name, total in tensors.items()}
            for site, tensors in sums.items()
        }
        weights = {
            name: (w + np.median([m[name] for m in means.values()], axis=0)).astype(np.float32)
            for name, w in checkpoint.weights.items()
        }
        return Checkpoint(
            version=checkpoint.version + 1,
            weights=weights,
            server_state=checkpoint.server_state,
            seed=checkpoint.seed,
        )
