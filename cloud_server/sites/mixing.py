"""Each site's model moves towards its cluster's, and then towards the whole fleet's."""

import numpy as np

from fleet_model.types import Tensor

_PIECE = 1 << 16  # numbers of every site that are worked on at once


def mixed(
    own: Tensor, examples: Tensor, clusters: Tensor, cluster_mixing: float, global_mix: float
) -> tuple[Tensor, Tensor]:
    """Return one tensor of every site after mixing, and of the fleet.

        near = (1 - cluster_mixing) own + cluster_mixing mean(own of its cluster)
        next = (1 - global_mix) near + global_mix mean(own of all)

    Means are weighted by examples, sums are in float64. The fleet's mean is that before mixing and
    after it: what is taken from one site is given to others.

    Args:
        own: (sites, ...) float32.
        examples: (sites,) > 0.
        clusters: (sites,) from 0.
        cluster_mixing: 0 to 1.
        global_mix: 0 to 1.

    Returns:
        next (sites, ...) and the fleet's mean (...), float32.
    """
    shares = examples / examples.sum()  # (sites,)
    member = np.eye(int(clusters.max()) + 1)[clusters] * examples[:, None]  # (sites, clusters)
    weights = (member / member.sum(axis=0)).T  # (clusters, sites)
    flat = own.reshape(len(own), -1)
    after, mean = np.empty_like(flat), np.empty(flat.shape[1], np.float32)
    for begin in range(0, flat.shape[1], _PIECE):
        piece = slice(begin, begin + _PIECE)
        wide = flat[:, piece].astype(np.float64)
        fleet, means = shares @ wide, weights @ wide
        near = (1 - cluster_mixing) * wide + cluster_mixing * means[clusters]
        after[:, piece] = (1 - global_mix) * near + global_mix * fleet
        mean[piece] = fleet
    return after.reshape(own.shape), mean.reshape(own.shape[1:])
