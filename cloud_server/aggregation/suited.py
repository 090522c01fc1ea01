"""Which rules go with which settings: found at the start, not in the first round.

One table. What needs the trained tensors is asked in cloud_server/runs/suited.py.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloud_server.aggregation.aggregator import Aggregator, Trait, build_aggregator, has
from cloud_server.state.settings import ServerSettings
from cloud_server.state.words import names
from fleet_model.errors import SettingsError


@dataclass(frozen=True, slots=True)
class _Start:
    """What a server, or a simulation, starts with."""

    rule: Aggregator
    settings: ServerSettings
    relays: Sequence[str]

    def has(self, trait: Trait) -> bool:
        return has(self.rule, trait)

    @property
    def private(self) -> bool:
        return self.settings.privacy.mode != "off"


# Refused where this is true of a start, with these words.
_REFUSED: tuple[tuple[Callable[[_Start], bool], str], ...] = (
    (
        lambda s: (
            bool(s.settings.aggregation.personal) and (s.has("asks") or s.has("needs_adapter"))
        ),
        "aggregation.rule {rule} needs every trained tensor of a robot: choose another rule, or "
        "set aggregation.personal = []",
    ),
    (  # what travels beside the weights is of one model, not of a site's
        lambda s: s.settings.sites.enabled and s.has("asks"),
        "aggregation.rule {rule} works without sites only: choose another rule, or set "
        "sites.enabled = false",
    ),
    (
        lambda s: s.settings.sites.enabled and s.has("keeps_residual"),
        "aggregation.rule {rule} keeps what it adds to the model of the whole fleet, and with "
        "sites.enabled each site has its own: choose another rule, such as lora_fair",
    ),
    (
        lambda s: s.settings.sites.num_clusters > 1 and not s.settings.sites.enabled,
        "sites.num_clusters parts the robots of a site, and no site has a model of its own: set "
        "sites.enabled = true, or sites.num_clusters = 1",
    ),
    (
        lambda s: s.settings.rounds.mode == "buffered" and s.has("fresh_only"),
        "aggregation.rule {rule} uses no update of an earlier version, as there are with "
        'rounds.mode = "buffered": make the mode "sync", or choose another rule',
    ),
    (
        lambda s: s.settings.training.adaptive > 0 and s.has("gradient_steps"),
        "aggregation.rule {rule} takes an update for a sum of gradients, which it is not with "
        "training.adaptive: set training.adaptive = 0, or choose another rule",
    ),
    (
        lambda s: s.private and s.settings.sites.enabled,
        'privacy.mode = "{mode}" works without sites only: set sites.enabled = false',
    ),
    (
        lambda s: s.private and s.has("asks"),
        "aggregation.rule {rule} lets tensors travel that get no noise: with privacy.mode = "
        '"{mode}" choose fedavg, fedavgm or fedadam',
    ),
    (
        lambda s: s.settings.privacy.mode == "central" and not s.has("takes_means"),
        "aggregation.rule {rule} looks at single updates, and the noise is in their mean: with "
        'privacy.mode = "central" choose fedavg, fedavgm, fedadam, fedyogi or fedadagrad',
    ),
    (
        lambda s: bool(s.relays) and s.private,
        "privacy.mode accounts for single robots, and {relays} sends the mean of its building: set "
        'privacy.mode = "off", or let its robots enroll here and run '
        "`cloud-server robots relay DIR {relay} 1`",
    ),
    (
        lambda s: bool(s.relays) and not s.has("takes_means"),
        "aggregation.rule {rule} must see each robot's update, and {relays} sends the mean of its "
        "building: choose fedavg, fedavgm or fedadam, or let its robots enroll here and run "
        "`cloud-server robots relay DIR {relay} 1`",
    ),
)


def suited_rule(settings: ServerSettings, relays: Sequence[str] = ()) -> Aggregator:
    """Return the rule of [aggregation], which goes with the other settings.

    Args:
        settings: of the server.
        relays: names of robots that answer for several.

    Raises:
        SettingsError: as `build_aggregator`, or it does not.
    """
    name = settings.aggregation.rule
    start = _Start(build_aggregator(name, settings.aggregation.options), settings, relays)
    for refused, words in _REFUSED:
        if refused(start):
            relay = relays[0] if relays else ""
            mode, told = settings.privacy.mode, names(relays)
            raise SettingsError(words.format(rule=name, mode=mode, relays=told, relay=relay))
    if settings.start.closed_form != "off":
        require_sums_add_up(settings, relays)
    return start.rule


def require_sums_add_up(settings: ServerSettings, relays: Sequence[str]) -> None:
    """Raise SettingsError where sums would be asked for that no site relay can add up.

    Args:
        settings: of the server.
        relays: names of robots that answer for several.
    """
    if relays and settings.start.directions:
        raise SettingsError(
            f"start.directions = {settings.start.directions} asks each robot for the leading "
            f"directions of its scatter, which do not add up, and {names(relays)} sends the sum of "
            "its building: set start.directions = 0, which is exact, train with gradients "
            '(start.closed_form = "off"), or let its robots enroll here and run '
            f"`cloud-server robots relay DIR {relays[0]} 1`"
        )
