"""Clusters of the robots of one site, as the site's part of a checkpoint keeps them.

They are tensors of the state that a rule has for the site, under names of robots/. A cluster's
model is kept as what it differs from its site's, so it moves with the site, whatever moves that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from fleet_model.errors import CheckpointError
from fleet_model.types import Tensor, Weights

PREFIX = "robots/"
_ABOUT = f"{PREFIX}about"
_DIFFERENCE, _RULE = f"{PREFIX}difference/", f"{PREFIX}rule/"


class RobotCluster(BaseModel):
    """One cluster."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    robots: dict[str, int]  # name -> version that its newest reply became part of
    examples: float = 1.0  # that counted in its newest round
    left_out: str = ""  # why its replies gave no model in this round


class HowFound(BaseModel):
    """How they were found, in the round that made the checkpoint."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    replied: int = 0  # robots of the site
    too_few: bool = False  # to look for clusters
    inertia: dict[int, float] = {}
    silhouette: dict[int, float] = {}


class _About(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    clusters: tuple[RobotCluster, ...]
    found: HowFound


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class RobotClusters:
    """The clusters of one site, two or more; none where its robots are not told apart."""

    clusters: Sequence[RobotCluster] = ()
    differences: Weights = field(default_factory=dict)  # name -> (clusters, *shape) float32
    rule_states: Sequence[Weights] = ()  # of each cluster: what the aggregation rule keeps for it
    found: HowFound = field(default_factory=HowFound)

    @property
    def of_robots(self) -> Mapping[str, int]:
        """Return robot -> its cluster, from 0."""
        return {name: n for n, one in enumerate(self.clusters) for name in one.robots}

    def starts(self, site: Weights) -> list[Weights]:
        """Return what robots of each cluster start from.

        Args:
            site: the site's model. Tensors that clusters know nothing of are the site's.
        """
        return [
            {
                name: own + self.differences[name][n] if name in self.differences else own
                for name, own in site.items()
            }
            for n in range(len(self.clusters))
        ]

    def only(self, clusters: Sequence[RobotCluster]) -> "RobotClusters":
        """Return them with other words on each, and without those that have no robots left."""
        stay = [n for n, one in enumerate(clusters) if one.robots]
        if len(stay) < 2:
            return RobotClusters()
        return replace(
            self,
            clusters=[clusters[n] for n in stay],
            differences={name: tensor[stay] for name, tensor in self.differences.items()},
            rule_states=[self.rule_states[n] for n in stay],
        )

    def as_state(self) -> dict[str, Tensor]:
        """Return what the site's state keeps."""
        about = _About(clusters=tuple(self.clusters), found=self.found).model_dump_json()
        state: dict[str, Tensor] = {_ABOUT: np.frombuffer(about.encode(), np.uint8)}
        state |= {_DIFFERENCE + name: tensor for name, tensor in self.differences.items()}
        for n, tensors in enumerate(self.rule_states):
            state |= {f"{_RULE}{n}/{name}": tensor for name, tensor in tensors.items()}
        return state


def robot_clusters(state: Weights, weights: Weights) -> RobotClusters:
    """Return what a site's state knows of clusters; of none, if its tensors are other ones.

    Args:
        state: that the rule has for the site.
        weights: the site's model.

    Raises:
        CheckpointError: it is damaged.
    """
    if _ABOUT not in state:
        return RobotClusters()
    try:
        about = _About.model_validate_json(state[_ABOUT].tobytes())
    except ValidationError as error:
        raise CheckpointError(
            "what a checkpoint knows of clusters of robots cannot be read "
            f"({error.error_count()} faults); remove the newest checkpoint's folder to go on from "
            "the one before it"
        ) from None
    differences = {
        name.removeprefix(_DIFFERENCE): tensor
        for name, tensor in state.items()
        if name.startswith(_DIFFERENCE) and name.removeprefix(_DIFFERENCE) in weights
    }
    rows = len(about.clusters)
    if any(d.shape != (rows, *weights[name].shape) for name, d in differences.items()):
        return RobotClusters()
    return RobotClusters(
        clusters=about.clusters if differences else (),
        differences=differences,
        rule_states=[_named(state, f"{_RULE}{n}/") for n in range(rows)],
        found=about.found,
    )


def without_clusters(state: Weights) -> dict[str, Tensor]:
    """Return a site's state without what it knows of clusters."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(PREFIX)}


def _named(state: Weights, prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): tensor for n, tensor in state.items() if n.startswith(prefix)}
