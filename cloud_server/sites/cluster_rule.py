"""Clusters of robots inside a site: the rule folds each cluster's replies by themselves.

It stands around the rule of the run, for the replies of one site. Robots of the site are clustered
by where their training has brought the tensors of `on`; a cluster's replies are folded into the
model that most of its robots started from. The site's model is the mean of its clusters', by
examples; what a cluster differs from it is kept, less what mixing takes from it.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np

from cloud_server.aggregation.aggregator import Aggregator, has
from cloud_server.aggregation.contributions import Contribution, Contributions
from cloud_server.sites.clusters import find_clusters, nearest_ways
from cloud_server.sites.robot_clusters import (
    HowFound,
    RobotCluster,
    RobotClusters,
    robot_clusters,
    without_clusters,
)
from cloud_server.state.learning_settings import SiteSettings
from cloud_server.state.words import names as in_words
from fleet_model.errors import RoundError
from fleet_model.types import Checkpoint, Tensor, Update, Weights
from fleet_model.weights import add, difference, l2_norm

FORGET_AFTER = 100  # versions without a reply: then a site, or a robot in it, begins anew
EACH = 2  # robots of a site that reply, for each cluster that is looked for


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class _Row:
    """One robot that has replied, or a cluster whose robots are all silent: one point."""

    start: int  # 0: the site's model; n + 1: that of cluster n before the round
    replies: Sequence[Contribution] = ()  # oldest first; none: a silent cluster


class ClusterRule:
    """Fold one site's replies cluster by cluster; see the module."""

    def __init__(self, rule: Aggregator, settings: SiteSettings) -> None:
        """Take the rule that folds one cluster's replies."""
        self._rule, self._settings = rule, settings
        self.takes_means = has(rule, "takes_means")

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the site's next model, with its clusters in the state.

        Args:
            checkpoint: the site's: its model, and the state that the rule has for the site.
            contributions: of the site's robots.

        Raises:
            RoundError: no cluster's replies give a model.
        """
        bare = replace(checkpoint, server_state=without_clusters(checkpoint.server_state))
        most = self._settings.num_clusters
        if most == 1:
            return self._rule.fold(bare, contributions)
        before = _still_known(robot_clusters(checkpoint.server_state, bare.weights), bare.version)
        if len(before.clusters) > most:  # fewer are wanted than there were: they begin anew
            before = RobotClusters()
        starts = [bare] + [
            replace(bare, weights=weights, server_state=state)
            for weights, state in zip(before.starts(bare.weights), before.rule_states, strict=True)
        ]
        rows = _rows(before, contributions)
        labels, found = self._labels(rows, starts, contributions)
        made = [
            self._folded([row for row, own in zip(rows, labels, strict=True) if own == n],
                         starts, before, contributions)
            for n in range(int(labels.max()) + 1)
        ]  # fmt: skip
        if not any(folded is not None for _, folded, _ in made):
            raise RoundError("; ".join(one.left_out for one, _, _ in made if one.left_out))
        robots = _robots(rows, labels, before, bare.version + 1)
        clusters = [
            one.model_copy(update={"robots": robots[n]}) for n, (one, _, _) in enumerate(made)
        ]
        return self._joined(bare, clusters, [own for _, _, own in made], found)

    def _labels(
        self, rows: Sequence[_Row], starts: Sequence[Checkpoint], contributions: Contributions
    ) -> tuple[Tensor, HowFound]:
        """Return each row's cluster, from 0, and how they were found."""
        replied = sum(bool(row.replies) for row in rows)
        few = HowFound(replied=replied, too_few=True)
        if replied < 2 * EACH and len(starts) == 1:
            return np.zeros(len(rows), np.int64), few
        points = _points(rows, starts, contributions, self._settings.on)
        if replied < 2 * EACH:  # clusters stay as they are, who is new goes along with one
            old = np.array([row.start > 0 for row in rows])
            labels = np.array([row.start - 1 for row in rows])
            site = _point(starts[0].weights, self._settings.on)
            labels[~old] = nearest_ways(points - site, old, labels[old])
            return labels, few
        most = min(self._settings.num_clusters, replied // EACH + len(rows) - replied)
        try:
            found = find_clusters(points, self._settings.choose, most=most)
        except ValueError as error:
            raise RoundError(f"its robots cannot be clustered: {error}") from None
        about = HowFound(
            replied=replied, inertia=dict(found.inertia), silhouette=dict(found.silhouette)
        )
        return found.labels, about

    def _folded(
        self,
        rows: Sequence[_Row],
        starts: Sequence[Checkpoint],
        before: RobotClusters,
        contributions: Contributions,
    ) -> tuple[RobotCluster, Checkpoint | None, Checkpoint]:
        """Return what is known of a cluster, what the rule has made of it, and its next model."""
        answers: dict[int, list[Contribution]] = {row.start: [] for row in rows}
        for row in rows:
            answers[row.start] += row.replies
        examples = float(sum(one.examples for some in answers.values() for one in some))
        if not examples:
            silent = [before.clusters[start - 1].examples for start in answers]
            examples = sum(silent)
            weights = _mean([starts[start].weights for start in answers], silent)
            kept = replace(starts[next(iter(answers))], weights=weights)
            return RobotCluster(robots={}, examples=examples), None, kept
        counts = Counter(row.start for row in rows)
        base = min(counts, key=lambda start: (start == 0, -counts[start], start))
        about = RobotCluster(robots={}, examples=examples)
        try:
            seen = _SeenFrom(contributions, answers, starts, base)
            folded = self._rule.fold(starts[base], seen)
        except RoundError as error:  # such as too few robots for the rule
            return about.model_copy(update={"left_out": str(error)}), None, starts[base]
        return about, folded, folded

    def _joined(
        self,
        bare: Checkpoint,
        clusters: Sequence[RobotCluster],
        own: Sequence[Checkpoint],
        found: HowFound,
    ) -> Checkpoint:
        """Return the site's next checkpoint: its model is the mean of its clusters'."""
        if len(own) == 1:
            made = RobotClusters(found=found)
            weights, state = own[0].weights, own[0].server_state
        else:
            weights = _mean([one.weights for one in own], [one.examples for one in clusters])
            # As sites move: towards their cluster, here the site, and then towards the fleet.
            keep = (1 - self._settings.cluster_mixing) * (1 - self._settings.global_mix)
            differences = {
                name: np.stack(
                    [keep * (one.weights[name].astype(np.float64) - mean) for one in own]
                ).astype(np.float32)
                for name, mean in weights.items()
            }
            made = RobotClusters(
                clusters=clusters,
                differences=differences,
                rule_states=[one.server_state for one in own],
                found=found,
            )
            state = {}
        return replace(
            bare,
            version=bare.version + 1,
            weights=weights,
            server_state={**state, **made.as_state()},
        )


class _SeenFrom:
    """The replies of one cluster: what each changes on the model that the cluster starts from.

    A robot that has started from another model is where its training brought it all the same.
    """

    def __init__(
        self,
        contributions: Contributions,
        answers: Mapping[int, Sequence[Contribution]],
        starts: Sequence[Checkpoint],
        base: int,
    ) -> None:
        self._all = contributions
        self._of: dict[Contribution, tuple[Contribution, Weights]] = {}
        start_of = {one: start for start, some in answers.items() for one in some}
        ways = {start: difference(starts[start].weights, starts[base].weights) for start in answers}
        for one in contributions:  # in their order
            start = start_of.get(one)
            if start == base:
                self._of[one] = (one, {})
            elif start is not None:
                moved = contributions.update(one).weights
                norm = l2_norm(add(moved, ways[start]))
                self._of[replace(one, norm=norm)] = (one, ways[start])

    def __len__(self) -> int:
        return len(self._of)

    def __iter__(self) -> Iterator[Contribution]:
        return iter(self._of)

    def update(self, one: Contribution) -> Update:
        """As Contributions says; so are the others."""
        sent, ways = self._of[one]
        update = self._all.update(sent)
        return replace(update, weights=add(update.weights, ways)) if ways else update

    def tensor(self, one: Contribution, name: str) -> Tensor:
        sent, ways = self._of[one]
        tensor = self._all.tensor(sent, name)
        return tensor + ways[name] if ways else tensor

    def numbers(self, one: Contribution, name: str, start: int, stop: int) -> Tensor:
        sent, ways = self._of[one]
        piece = self._all.numbers(sent, name, start, stop)
        return piece + ways[name].reshape(-1)[start:stop] if ways else piece


def compared(weights: Collection[str], on: str) -> list[str]:
    """Return the tensors that `on` names, in order; raises RoundError if there is none."""
    chosen = [name for name in sorted(weights) if fnmatchcase(name, on)]
    if not chosen:
        raise RoundError(
            f"sites.on is {on!r}, which names none of the trained tensors: {in_words(weights)}"
        )
    return chosen


def _still_known(before: RobotClusters, version: int) -> RobotClusters:
    """Return the clusters without robots that have been silent for long."""
    return before.only(
        [
            one.model_copy(
                update={
                    "robots": {n: v for n, v in one.robots.items() if version - v <= FORGET_AFTER}
                }
            )
            for one in before.clusters
        ]
    )


def _rows(before: RobotClusters, contributions: Contributions) -> list[_Row]:
    """Return the robots that have replied, by name, and then the silent clusters."""
    replies: dict[str, list[Contribution]] = {}
    for one in contributions:
        replies.setdefault(one.robot, []).append(one)
    of_robots = before.of_robots
    rows = [
        _Row(start=of_robots.get(robot, -1) + 1, replies=replies[robot])
        for robot in sorted(replies)
    ]
    heard = {row.start for row in rows}
    silent = [n + 1 for n in range(len(before.clusters)) if n + 1 not in heard]
    return rows + [_Row(start=start) for start in silent]


def _robots(
    rows: Sequence[_Row], labels: Tensor, before: RobotClusters, version: int
) -> list[dict[str, int]]:
    """Return the robots of each cluster; who is silent goes where most of its cluster goes."""
    found: list[dict[str, int]] = [{} for _ in range(int(labels.max()) + 1)]
    went = [Counter[int]() for _ in range(len(before.clusters) + 1)]
    for row, label in zip(rows, labels.tolist(), strict=True):
        went[row.start][label] += 1
        if row.replies:
            found[label][row.replies[0].robot] = version
    heard = {name for robots in found for name in robots}
    for cluster, goes in zip(before.clusters, went[1:], strict=True):
        to = max(sorted(goes), key=goes.__getitem__)  # of equals the first
        found[to] |= {name: v for name, v in cluster.robots.items() if name not in heard}
    return found


def _points(
    rows: Sequence[_Row], starts: Sequence[Checkpoint], contributions: Contributions, on: str
) -> Tensor:
    """Return where each row's training has brought the tensors of `on`: (rows, numbers) float32."""
    names = compared(starts[0].weights, on)
    points = []
    for row in rows:
        point = _point(starts[row.start].weights, on)
        for one in row.replies[-1:]:
            change = [contributions.tensor(one, name).reshape(-1) for name in names]
            point = point + np.concatenate(change)
        points.append(point)
    return np.stack(points)


def _point(weights: Weights, on: str) -> Tensor:
    point: Tensor = np.concatenate([weights[n].reshape(-1) for n in compared(weights, on)])
    return point


def _mean(models: Sequence[Weights], examples: Sequence[float]) -> dict[str, Tensor]:
    """Return the mean by examples, summed in float64: float32."""
    total = sum(examples)
    mean = {}
    for name in models[0]:
        summed = sum(
            part / total * model[name].astype(np.float64)
            for model, part in zip(models, examples, strict=True)
        )
        mean[name] = np.asarray(summed, np.float32)
    return mean
