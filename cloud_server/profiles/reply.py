"""How the round loop treats profiles: they are checked and kept, and change no weights."""

from cloud_server.profiles.store import ProfileStore
from cloud_server.rounds.reply_kinds import ReplyKind, RoundEnd
from cloud_server.rounds.update_checks import check_reply
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.learning_settings import CheckSettings
from cloud_server.state.settings import ServerSettings
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.errors import SettingsError, UpdateError
from fleet_model.profiles.profile import GROUP, unpack_profile
from fleet_model.types import Checkpoint, Update
from fleet_model.workload import rebuild, takes_instructions


def require_profiles(settings: ServerSettings, server_dir: ServerDirectory) -> None:
    """Raise SettingsError where robots cannot be asked for profiles.

    They get no noise; and a model must make embeddings of instructions.
    """
    if settings.privacy.mode != "off":
        raise SettingsError(f'privacy.mode = "{settings.privacy.mode}" gives no noise to profiles')
    newest = Checkpoints(server_dir.checkpoints).newest() or 0
    spec = parse_trainer((server_dir.model_of(newest) / TRAINER).read_bytes())
    if not takes_instructions(rebuild(spec.workload)):
        raise SettingsError(
            "profiles are made by language models and models that see, not by the workload "
            f"{spec.workload.name!r}"
        )


def check_profile(
    update: Update, checkpoint: Checkpoint, asked_version: int, checks: CheckSettings
) -> None:
    """Raise UpdateError unless a reply is a profile, and nothing else."""
    del checkpoint
    check_reply(update, asked_version, checks)
    if update.weights or set(update.groups) != {GROUP}:
        raise UpdateError(f"a profile is the group {GROUP!r} of tensors alone")
    profile = unpack_profile(update.groups[GROUP])
    records = sum(one.whole.records for one in profile.values())
    if records != update.num_examples:
        raise UpdateError(
            f"its profile is of {records} records, and it counts {update.num_examples}"
        )


def profile_kind(store: ProfileStore) -> ReplyKind:
    """Return how the round loop treats replies that `store` keeps."""

    def keep(end: RoundEnd) -> Checkpoint:
        for share in end.accepted:
            tensors = end.journal.read(share.kept).groups[GROUP]
            store.save(share.kept.robot, end.checkpoint.version, tensors)
        store.prune()
        return end.checkpoint

    return ReplyKind(check=check_profile, length=lambda _: 0.0, use=keep, means=lambda *_: {})
