"""The rule of a run, refused at the start where it cannot work with what is trained."""

from cloud_server.aggregation.aggregator import Aggregator, has
from cloud_server.aggregation.personal import personal_tensors
from cloud_server.aggregation.suited import suited_rule
from cloud_server.privacy.in_rounds import with_privacy
from cloud_server.sites.in_rounds import require_tensors, with_sites
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import ServerSettings
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.errors import SettingsError


def rule_of(server_dir: ServerDirectory, settings: ServerSettings) -> Aggregator:
    """Return the rule of a run: for each site, or with noise, where the settings say so.

    Raises:
        SettingsError: it does not go with other settings, or with the newest checkpoint.
        CheckpointError, BundleError: what is trained cannot be found out.
    """
    rule = suited_rule(settings)
    _require_tensors(server_dir, settings, rule)
    return with_privacy(with_sites(rule, settings.sites), settings.privacy)


def _require_tensors(
    server_dir: ServerDirectory, settings: ServerSettings, rule: Aggregator
) -> None:
    newest = Checkpoints(server_dir.checkpoints).newest()
    needs_adapter, personal = has(rule, "needs_adapter"), settings.aggregation.personal
    if newest is None or not (needs_adapter or personal or settings.sites.enabled):
        return
    spec = parse_trainer((server_dir.model_of(newest) / TRAINER).read_bytes())
    personal_tensors(personal, spec.tensors)
    require_tensors(settings.sites, spec.tensors)
    if needs_adapter and spec.adapter is None:
        raise SettingsError(
            f"aggregation.rule {settings.aggregation.rule} is for adapters, and what is trained in "
            f"{server_dir.home} has none: choose another rule, or make a fleet with `cloud-server "
            "init --adapter lora`"
        )
