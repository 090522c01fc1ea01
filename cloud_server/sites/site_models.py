"""The models of all sites as a checkpoint keeps them, in server_state under names of sites/."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from cloud_server.sites.robot_clusters import RobotClusters, robot_clusters
from fleet_model.errors import CheckpointError
from fleet_model.types import Checkpoint, Tensor, Weights

PREFIX = "sites/"
_ABOUT, _SIMILARITY = f"{PREFIX}about", f"{PREFIX}similarity"
_WEIGHTS, _RULE = f"{PREFIX}weights/", f"{PREFIX}rule/"


class SiteEntry(BaseModel):
    """What is known of one site."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    cluster: int = 0  # from 0
    examples: float = 1.0  # that counted in its newest round
    version: int = 0  # that its newest round made
    late: bool = False  # its first round was this one, when others were known already


class Found(BaseModel):
    """How the clusters were found, in the round that made the checkpoint."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    choose: str = "elbow"
    on: str = "*"
    inertia: dict[int, float] = {}
    silhouette: dict[int, float] = {}
    similarity_of: tuple[str, ...] = ()  # sites, in the order of the matrix's rows
    left_out: dict[str, str] = {}  # site -> why its replies gave no model
    forgotten: tuple[str, ...] = ()  # silent for so long that they begin anew


class _About(BaseModel):
    model_config = ConfigDict(extra="ignore")

    sites: tuple[SiteEntry, ...] = ()
    found: Found = Found()


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class SiteModels:
    """The sites in the order of their names, and what each has learned."""

    entries: Sequence[SiteEntry] = ()
    weights: Weights = field(default_factory=dict)  # name -> (sites, *shape) float32
    # Site -> tensors that the aggregation rule keeps for it.
    rule_states: Mapping[str, Weights] = field(default_factory=dict)
    found: Found = field(default_factory=Found)
    similarity: Tensor = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    @property
    def names(self) -> list[str]:
        """Return the sites' names, sorted."""
        return [entry.name for entry in self.entries]

    def starts(self) -> Mapping[str, Weights]:
        """Return site -> what its robots start from; views, not copies."""
        return {
            entry.name: {name: tensor[row] for name, tensor in self.weights.items()}
            for row, entry in enumerate(self.entries)
        }

    def clusters_of_robots(self) -> Mapping[str, RobotClusters]:
        """Return site -> the clusters of its robots; raises CheckpointError if one is damaged."""
        return {
            site: robot_clusters(self.rule_states.get(site, {}), weights)
            for site, weights in self.starts().items()
        }

    def as_state(self) -> dict[str, Tensor]:
        """Return what Checkpoint.server_state keeps."""
        about = _About(sites=tuple(self.entries), found=self.found).model_dump_json()
        state: dict[str, Tensor] = {_ABOUT: np.frombuffer(about.encode(), np.uint8)}
        state |= {_WEIGHTS + name: tensor for name, tensor in self.weights.items()}
        for site, tensors in self.rule_states.items():
            state |= {f"{_RULE}{site}/{name}": tensor for name, tensor in tensors.items()}
        if self.similarity.size:
            state[_SIMILARITY] = self.similarity
        return state


def site_models(checkpoint: Checkpoint) -> SiteModels:
    """Return what a checkpoint knows of sites; of none, if its tensors are other ones.

    Of tensors that stay on the robots sites know nothing.

    Raises:
        CheckpointError: it is damaged.
    """
    state = checkpoint.server_state
    if _ABOUT not in state:
        return SiteModels()
    try:
        about = _About.model_validate_json(state[_ABOUT].tobytes())
    except ValidationError as error:
        raise CheckpointError(
            f"checkpoint {checkpoint.version}: what it knows of sites cannot be read "
            f"({error.error_count()} faults); remove its folder to go on from the one before it"
        ) from None
    weights = {
        name.removeprefix(_WEIGHTS): tensor
        for name, tensor in state.items()
        if name.startswith(_WEIGHTS) and name.removeprefix(_WEIGHTS) in checkpoint.weights
    }
    rows = len(about.sites)
    expected = {name: (rows, *checkpoint.weights[name].shape) for name in weights}
    if not weights or {name: tensor.shape for name, tensor in weights.items()} != expected:
        return SiteModels()
    return SiteModels(
        entries=about.sites,
        weights=weights,
        rule_states=_rule_states(state),
        found=about.found,
        similarity=state.get(_SIMILARITY, np.zeros((0, 0), np.float32)),
    )


def without_sites(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return a checkpoint's server_state without what it knows of sites."""
    state = checkpoint.server_state.items()
    return {name: tensor for name, tensor in state if not name.startswith(PREFIX)}


def _rule_states(state: Weights) -> Mapping[str, Weights]:
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name.startswith(_RULE):
            site, _, own = name.removeprefix(_RULE).partition("/")
            found.setdefault(site, {})[own] = tensor
    return found
