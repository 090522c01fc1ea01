"""The one interface every aggregation rule has, and how one is built from the settings."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from cloud_server.aggregation.contributions import Contributions
from cloud_server.aggregation.options import checked_options
from fleet_model.errors import SettingsError
from fleet_model.loading import load_plugin
from fleet_model.types import Checkpoint, Weights
from fleet_model.weights import add

_RULES = "cloud_server.aggregation.rules"
AGGREGATORS = {
    "fedavg": f"{_RULES}.fedavg:FedAvg",
    "fedavgm": f"{_RULES}.fedavgm:FedAvgM",
    "fedadagrad": f"{_RULES}.fedopt:FedAdagrad",
    "fedadam": f"{_RULES}.fedopt:FedAdam",
    "fedyogi": f"{_RULES}.fedopt:FedYogi",
    "fednova": f"{_RULES}.fednova:FedNova",
    "fedexp": f"{_RULES}.fedexp:FedExP",
    "scaffold": f"{_RULES}.scaffold:Scaffold",
    "median": f"{_RULES}.median:Median",
    "trimmed_mean": f"{_RULES}.trimmed_mean:TrimmedMean",
    "krum": f"{_RULES}.krum:Krum",
    "multi_krum": f"{_RULES}.krum:MultiKrum",
    "norm_bounded": f"{_RULES}.norm_bounded:NormBounded",
    "fedex_lora": f"{_RULES}.fedex_lora:FedExLora",
    "lora_fair": f"{_RULES}.lora_fair:LoraFair",
    "flora_stacking": f"{_RULES}.flora_stacking:FloraStacking",
    "flora_residual": f"{_RULES}.flora_residual:FloraResidual",
}
Trait = Literal[
    "asks", "fresh_only", "gradient_steps", "keeps_residual", "needs_adapter", "takes_means"
]
_OF_EARLIER_RELEASES = ("begin", "add", "finish")


class Aggregator(Protocol):
    """Turn a checkpoint and the updates of one round into the next checkpoint.

    Built as Rule(**options) when the server starts, to check the options, and again for every run.
    Nothing of it survives a restart: what a rule must remember from round to round belongs into
    Checkpoint.server_state, under names that begin with the rule's own and a slash.

    What else its class may have, each of which goes with some settings only (suited.py):

        asks(checkpoint) -> Asked   further tensors travel beside the weights; see asked.py
        takes_means = True          weighted means, with the sums of their weights, give the same as
                                    each robot's update: a site relay sends such ones
        needs_adapter = True        it is for models with adapters
        keeps_residual = True       what it makes is partly the whole fleet's, never one site's
        fresh_only = True           it uses no update of an earlier version
        gradient_steps = True       it takes an update for a sum of gradients, which Adam's is not
    """

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        """Return the next checkpoint: version + 1, and finite weights of the same shapes.

        Args:
            checkpoint: what the round started from. It must not be changed.
            contributions: the accepted updates; see Contributions for what may be read how often.

        Raises:
            RoundError: these updates give no checkpoint; the round fails, and is tried again.
        """
        ...


def has(rule: Aggregator, trait: Trait) -> bool:
    """Return whether a rule has what not every rule has."""
    return bool(getattr(rule, trait, False))


def next_checkpoint(
    checkpoint: Checkpoint, change: Weights, state: Weights | None = None
) -> Checkpoint:
    """Return the checkpoint after a step; `state` is put over the tensors that the server keeps."""
    return Checkpoint(
        version=checkpoint.version + 1,
        weights=add(checkpoint.weights, change),
        server_state={**checkpoint.server_state, **state} if state else checkpoint.server_state,
        seed=checkpoint.seed,
    )


def build_aggregator(rule: str, options: Mapping[str, Any]) -> Aggregator:
    """Return the rule of [aggregation] in server.toml.

    Args:
        rule: a name from AGGREGATORS, or "module:Class".
        options: arguments of its constructor. Values are converted to the types that it declares.

    Raises:
        SettingsError: no such rule, a class without `fold`, an unknown, missing or wrong option.
    """
    try:
        made = load_plugin(AGGREGATORS, rule)
    except SettingsError as error:
        raise SettingsError(f"aggregation.rule: {error}") from None
    _require_interface(rule, made)
    arguments = checked_options(rule, made, options)
    try:
        aggregator: Aggregator = made(**arguments)
    except SettingsError as error:
        raise SettingsError(f"aggregation.options of rule {rule}: {error}") from None
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"aggregation.options of rule {rule}: {error} (got {dict(options)})"
        ) from error
    return aggregator


def _require_interface(rule: str, made: Any) -> None:
    if callable(getattr(made, "fold", None)):
        return
    if all(hasattr(made, method) for method in _OF_EARLIER_RELEASES):
        raise SettingsError(
            f"aggregation.rule {rule} has the methods begin, add and finish, which this release no "
            "longer calls; replace them by one method fold(checkpoint, contributions): "
            "docs/decisions/0011-aggregation-seam.md shows how"
        )
    raise SettingsError(
        f"aggregation.rule {rule} is no aggregation rule, expected a class with a method "
        "fold(checkpoint, contributions)"
    )
