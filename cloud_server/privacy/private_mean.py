"""A mean that says little of any one robot (DP-FedAvg, McMahan et al. 2018, arXiv:1710.06963)."""

from collections.abc import Callable, Iterator

import numpy as np

from cloud_server.aggregation.aggregator import Aggregator
from cloud_server.aggregation.contributions import Contribution, Contributions
from cloud_server.aggregation.votes import votes_of
from fleet_model.adapters.spec import sent_back
from fleet_model.errors import RoundError
from fleet_model.protocol.private import clip_factor, fresh_generator, with_noise
from fleet_model.types import Checkpoint, Tensor, Update, Weights
from fleet_model.weights import l2_norm


class PrivateMean:
    """d = (sum_k s_k * d_k * min(1, clip / |d_k|) + N(0, (noise_multiplier * clip)^2)) / n.

    d_k is the update of robot k, one of each, s_k <= 1 the discount for its age, n how many there
    are. Every robot counts the same: by the examples that it claims one robot could count for more
    than the noise hides. The rule of the run then folds d, as if one robot had sent it, and sees
    nothing else; what it does after that reveals no more.
    """

    def __init__(
        self,
        rule: Aggregator,
        clip: float,
        noise_multiplier: float,
        random: Callable[[], np.random.Generator] = fresh_generator,
    ) -> None:
        """Take the rule that folds the mean.

        Args:
            rule: one that takes means.
            clip: the longest update that counts whole.
            noise_multiplier: deviation of the noise, in units of `clip`.
            random: returns the generator of a round.
        """
        self._rule, self._random = rule, random
        self._clip, self._noise = clip, noise_multiplier

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint. Holds one update and two float64 copies of the weights.

        Raises:
            RoundError: there is nothing to average.
        """
        votes = votes_of(contributions)
        if not votes:
            raise RoundError("no update to average")
        sums = {name: np.zeros(w.shape) for name, w in sent_back(checkpoint.weights).items()}
        for one in votes:
            sent = contributions.update(one).weights
            weights = {name: sent[name] for name in sums}
            factor = one.discount * clip_factor(weights, self._clip)
            for name, total in sums.items():
                total += np.multiply(weights[name], factor, dtype=np.float64)
        noisy = with_noise(sums, self._noise * self._clip, self._random())
        mean = {name: (total / len(votes)).astype(np.float32) for name, total in noisy.items()}
        # What robots are sent and do not train (residuals of adapters) stays as it is.
        for name in checkpoint.weights.keys() - mean.keys():
            mean[name] = np.zeros_like(checkpoint.weights[name])
        return self._rule.fold(checkpoint, _One(mean, checkpoint.version))


class _One:
    """Contributions that are one update, of nobody."""

    def __init__(self, weights: Weights, version: int) -> None:
        self._who = Contribution(robot="", site="", examples=1, norm=l2_norm(weights))
        self._update = Update(
            robot="", base_version=version, weights=weights, num_examples=1, num_steps=1
        )

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Contribution]:
        return iter((self._who,))

    def update(self, one: Contribution) -> Update:
        """As Contributions says; so are the others."""
        return self._update

    def tensor(self, one: Contribution, name: str) -> Tensor:
        return self._update.weights[name]

    def numbers(self, one: Contribution, name: str, start: int, stop: int) -> Tensor:
        return self._update.weights[name].reshape(-1)[start:stop]
