"""A model for each site: the rule folds each site's robots by themselves, then sites are mixed.

One round: a site's replies are differences from that site's model; the run's rule folds them into
it. Sites are clustered by where their training has brought the tensors of `on`; each moves towards
its cluster and towards the fleet (mixing.py). The checkpoint's own weights are the fleet's mean: a
robot of a site that is not known yet starts from it.

A site that joins late has trained from the fleet's mean. It gets the model of the cluster whose way
from that mean its first update points along, and is clustered like the others from then on.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from cloud_server.aggregation.aggregator import Aggregator, has
from cloud_server.aggregation.contributions import Contribution, Contributions
from cloud_server.sites.cluster_rule import FORGET_AFTER, ClusterRule, compared
from cloud_server.sites.clusters import Clusters, find_clusters, nearest_ways, similarity
from cloud_server.sites.mixing import mixed
from cloud_server.sites.site_models import (
    Found,
    SiteEntry,
    SiteModels,
    site_models,
    without_sites,
)
from cloud_server.state.learning_settings import SiteSettings
from cloud_server.state.words import names as in_words
from fleet_model.errors import RoundError
from fleet_model.types import Checkpoint, Tensor, Update, Weights

SHOWN = 200  # sites whose similarity is kept: the picture has a row for each
log = logging.getLogger(__name__)


class SiteRule:
    """Fold a round site by site; see the module."""

    def __init__(self, rule: Aggregator, settings: SiteSettings) -> None:
        """Take the rule that folds one site's replies."""
        self._rule, self._settings = ClusterRule(rule, settings), settings
        self.takes_means = has(rule, "takes_means")  # of the relay of a building: one site's

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint: the fleet's mean, with every site's model in its state.

        Raises:
            RoundError: no site's replies give a model, or `on` names no tensor.
        """
        before = site_models(checkpoint)
        folded, left_out = self._fold_sites(checkpoint, before, contributions)
        joined = _joined(checkpoint, before, folded, contributions)
        joined = replace(joined, found=Found(left_out=dict(left_out)))
        points = _points(joined.weights, self._settings.on)
        known = set(before.names) or set(joined.names)
        old = np.array([name in known for name in joined.names])
        clusters = _find(points[old], self._settings)
        labels = np.zeros(len(old), np.int64)
        labels[old] = clusters.labels
        if not old.all():
            start = _points({n: w[None] for n, w in checkpoint.weights.items()}, self._settings.on)
            labels[~old] = nearest_ways(points - start, old, clusters.labels)
            joined = _moved(joined, old, labels)
        return self._mixed(checkpoint, joined, labels, clusters, points, late=~old)

    def _fold_sites(
        self, checkpoint: Checkpoint, before: SiteModels, contributions: Contributions
    ) -> tuple[Mapping[str, Checkpoint], Mapping[str, str]]:
        """Return site -> its next model and the rule's state of it, and why others have none."""
        starts = _starts(before, checkpoint)
        members: dict[str, list[Contribution]] = {}
        for one in contributions:
            members.setdefault(one.site, []).append(one)
        folded, left_out = {}, {}
        for site in sorted(members):
            own = replace(
                checkpoint,
                weights=starts.get(site, checkpoint.weights),
                server_state=before.rule_states.get(site, {}),
            )
            try:
                folded[site] = self._rule.fold(own, _OfSite(contributions, members[site]))
            except RoundError as error:  # such as too few robots for the rule
                left_out[site] = str(error)
        told = "; ".join(f"site {site}: {why}" for site, why in left_out.items())
        if not folded:
            raise RoundError(f"no site's replies give a model ({told or 'there are none'})")
        if left_out:
            log.warning("their models stay as they are: %s", told)
        return folded, left_out

    def _mixed(
        self,
        checkpoint: Checkpoint,
        joined: SiteModels,
        labels: Tensor,
        clusters: Clusters,
        points: Tensor,
        late: Tensor,
    ) -> Checkpoint:
        settings = self._settings
        examples = np.array([entry.examples for entry in joined.entries])
        after, fleet = {}, {}
        for name, own in joined.weights.items():
            after[name], fleet[name] = mixed(
                own, examples, labels, settings.cluster_mixing, settings.global_mix
            )
        shown = np.argsort(labels, kind="stable")[:SHOWN]
        entries = [
            entry.model_copy(update={"cluster": int(label), "late": bool(new)})
            for entry, label, new in zip(joined.entries, labels, late, strict=True)
        ]
        forgotten = _forgotten(entries, checkpoint.version + 1)
        found = joined.found.model_copy(
            update={
                "choose": settings.choose,
                "on": settings.on,
                "inertia": dict(clusters.inertia),
                "silhouette": dict(clusters.silhouette),
                "similarity_of": tuple(joined.names[row] for row in shown),
                "forgotten": tuple(joined.names[row] for row in forgotten),
            }
        )
        made = SiteModels(
            entries=entries,
            weights=after,
            rule_states=joined.rule_states,
            found=found,
            similarity=similarity(points)[np.ix_(shown, shown)].astype(np.float32)
            if len(points) <= SHOWN
            else similarity(points[shown]).astype(np.float32),
        )
        return replace(
            checkpoint,
            version=checkpoint.version + 1,
            weights=fleet,
            server_state={**without_sites(checkpoint), **_without(made, forgotten).as_state()},
        )


class _OfSite:
    """The contributions of one site's robots."""

    def __init__(self, contributions: Contributions, members: Sequence[Contribution]) -> None:
        self._all, self._members = contributions, members

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Contribution]:
        return iter(self._members)

    def update(self, one: Contribution) -> Update:
        """As Contributions says; so are the others."""
        return self._all.update(one)

    def tensor(self, one: Contribution, name: str) -> Tensor:
        return self._all.tensor(one, name)

    def numbers(self, one: Contribution, name: str, start: int, stop: int) -> Tensor:
        return self._all.numbers(one, name, start, stop)


def _starts(before: SiteModels, checkpoint: Checkpoint) -> Mapping[str, Weights]:
    """Return site -> its model, of the tensors that are shared in this round.

    Those that stayed on the robots until now begin as the checkpoint has them.
    """
    return {
        site: {name: own.get(name, tensor) for name, tensor in checkpoint.weights.items()}
        for site, own in before.starts().items()
    }


def _joined(
    checkpoint: Checkpoint,
    before: SiteModels,
    folded: Mapping[str, Checkpoint],
    contributions: Contributions,
) -> SiteModels:
    """Return all sites that are known now, each as its own training has left it."""
    examples: dict[str, float] = {}
    for one in contributions:
        examples[one.site] = examples.get(one.site, 0.0) + one.examples
    entries = {entry.name: entry for entry in before.entries}
    for site in folded:
        entries[site] = SiteEntry(
            name=site, examples=examples[site], version=checkpoint.version + 1
        )
    starts, names = _starts(before, checkpoint), sorted(entries)
    states = {site: without_sites(one) for site, one in folded.items()}
    return SiteModels(
        entries=[entries[name] for name in names],
        weights={
            name: np.stack(
                [folded[s].weights[name] if s in folded else starts[s][name] for s in names]
            )
            for name in checkpoint.weights
        },
        rule_states={**before.rule_states, **states},
    )


def _points(weights: Weights, on: str) -> Tensor:
    """Return the tensors that `on` names as one row a site: (sites, numbers) float32.

    They are whole models, not updates: what all have in common, such as a start, changes no
    distance between them.
    """
    chosen = compared(weights, on)
    rows: Tensor = np.concatenate([weights[n].reshape(len(weights[n]), -1) for n in chosen], axis=1)
    return rows


def _find(points: Tensor, settings: SiteSettings) -> Clusters:
    try:
        return find_clusters(points, settings.choose)
    except ValueError as error:
        raise RoundError(f"sites cannot be clustered: {error}") from None


def _moved(joined: SiteModels, old: Tensor, labels: Tensor) -> SiteModels:
    """Give late sites the mean of their cluster's other sites, weighted by examples."""
    examples = np.array([entry.examples for entry in joined.entries])
    weights = {}
    for name, own in joined.weights.items():
        moved = own.copy()
        for row in np.flatnonzero(~old):
            others = old & (labels == labels[row])
            shares = examples[others] / examples[others].sum()
            moved[row] = np.tensordot(shares, own[others].astype(np.float64), axes=1)
        weights[name] = moved
    return replace(joined, weights=weights)


def _forgotten(entries: Sequence[SiteEntry], version: int) -> list[int]:
    gone = [row for row, one in enumerate(entries) if version - one.version > FORGET_AFTER]
    if gone:
        told = in_words(entries[row].name for row in gone)
        log.info("forgotten after %d versions without a reply: %s", FORGET_AFTER, told)
    return gone


def _without(made: SiteModels, rows: Sequence[int]) -> SiteModels:
    if not rows:
        return made
    stay = [row for row in range(len(made.entries)) if row not in set(rows)]
    names = {made.entries[row].name for row in stay}
    return replace(
        made,
        entries=[made.entries[row] for row in stay],
        weights={name: tensor[stay] for name, tensor in made.weights.items()},
        rule_states={site: s for site, s in made.rule_states.items() if site in names},
    )
