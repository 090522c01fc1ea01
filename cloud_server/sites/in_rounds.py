"""How the rounds of a run hold a model for each site, where the settings say so."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from cloud_server.aggregation.aggregator import Aggregator
from cloud_server.sites.cluster_rule import EACH
from cloud_server.sites.site_models import SiteModels, site_models, without_sites
from cloud_server.sites.site_rule import SiteRule
from cloud_server.state.learning_settings import SiteSettings
from cloud_server.state.words import NAMED, clusters_in_words, few, names
from fleet_model.errors import SettingsError, one_line
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import Checkpoint, Weights


def with_sites(rule: Aggregator, settings: SiteSettings) -> Aggregator:
    """Return the rule of a run, which folds site by site where sites have models."""
    return SiteRule(rule, settings) if settings.enabled else rule


def require_tensors(settings: SiteSettings, trained: Collection[str]) -> None:
    """Raise SettingsError unless `on` names a trained tensor."""
    if settings.enabled and not any(fnmatchcase(name, settings.on) for name in trained):
        raise SettingsError(
            f"sites.on is {settings.on!r}, which names none of the trained tensors "
            f'({names(trained)}); "*" names all'
        )


def with_starts(request: RobotRequest, settings: SiteSettings) -> RobotRequest:
    """Return a round's request with the models that robots of each site start from.

    Where sites are switched off, what is known of them is dropped: by the time that they are
    switched on again it would be long outdated.

    Raises:
        CheckpointError: what is known of sites is damaged.
    """
    checkpoint = request.checkpoint
    if settings.enabled:
        models = site_models(checkpoint)
        starts: dict[str, Weights] = dict(models.starts())
        of_robots: dict[tuple[str, str], str] = {}
        parted = models.clusters_of_robots() if settings.num_clusters > 1 else {}
        for site, clusters in parted.items():
            for n, weights in enumerate(clusters.starts(starts[site])):
                starts[_cluster(site, n)] = weights
            of_robots |= {
                (site, robot): _cluster(site, n) for robot, n in clusters.of_robots.items()
            }
        # Of what stays on the robots a site has no state: they start from the checkpoint's.
        whole = {name: {**checkpoint.weights, **own} for name, own in starts.items()}
        return replace(request, starts=whole, cluster_starts=of_robots)
    return replace(request, checkpoint=replace(checkpoint, server_state=without_sites(checkpoint)))


def clusters_of(checkpoint: Checkpoint) -> Mapping[str, int]:
    """Return site -> its cluster, from 1; none where sites have no models."""
    return {entry.name: entry.cluster + 1 for entry in site_models(checkpoint).entries}


def notes_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return a sentence for each thing that people should know of a round's sites."""
    models = site_models(checkpoint)
    late = [f"{one.name} (cluster {one.cluster + 1})" for one in models.entries if one.late]
    notes = [
        f"site {site} keeps its model: {why}"
        for site, why in list(models.found.left_out.items())[:NAMED]
    ]
    if (more := len(models.found.left_out) - NAMED) > 0:
        notes.append(f"{more} more sites keep their models")
    notes += _of_robots(models)
    if late:
        notes.append(f"sites that join late begin with the model of a cluster: {names(late)}")
    if models.found.forgotten:
        notes.append(f"sites forgotten for want of replies: {names(models.found.forgotten)}")
    return tuple(one_line(note) for note in notes)


def _of_robots(models: SiteModels) -> list[str]:
    """Return a sentence for each site whose robots are clustered, or could not be."""
    told, kept = [], []
    for site, one in models.clusters_of_robots().items():
        if one.clusters:
            told.append(f"robots of site {site}, in {clusters_in_words(_from_1(one.of_robots))}")
        elif one.found.too_few:
            told.append(
                f"robots of site {site}, in one cluster: {one.found.replied} in this round are too "
                f"few to part them, expected at least {2 * EACH}"
            )
        kept += [
            f"cluster {n} of site {site} keeps its model: {cluster.left_out}"
            for n, cluster in enumerate(one.clusters, 1)
            if cluster.left_out
        ]
    return [part for lines in (told, kept) for part in few(lines)]


def _from_1(clusters: Mapping[str, int]) -> Mapping[str, int]:
    return {name: n + 1 for name, n in clusters.items()}


def _cluster(site: str, number: int) -> str:
    return f"{site}/{number + 1}"  # no name of a site has a slash
