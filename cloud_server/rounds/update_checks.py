"""What an update must hold to be folded in: pure functions over one update."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cloud_server.state.learning_settings import CheckSettings
from cloud_server.state.round_record import RESERVED
from fleet_model.adapters.spec import sent_back
from fleet_model.errors import UpdateError
from fleet_model.measures import range_of
from fleet_model.protocol.relayed import LOW, require_low
from fleet_model.types import Checkpoint, Update, Weights
from fleet_model.weights import require_same_tensors, size_bytes


def check_update(
    update: Update, checkpoint: Checkpoint, asked_version: int, checks: CheckSettings
) -> None:
    """Raise UpdateError that says why, not of whom, unless the update fits the checkpoint.

    `asked_version` is the version that the robot was sent; that it is old is no fault of the
    robot's, and not looked at here. Nor is the length: how much of it counts depends on the others
    (shares.py), and is decided when the round closes, so that arrival order cannot matter.
    """
    check_reply(update, asked_version, checks)
    if strange := [name for name in update.groups if name != LOW]:  # they would only fill the disk
        raise UpdateError(
            f"the update has further tensors, the group {strange[0]!r}, which nobody asked for"
        )
    require_same_tensors(sent_back(checkpoint.weights), update.weights, sender="the update")
    if LOW in update.groups:
        require_low(update)


def without_asked_groups(update: Update, asked: Mapping[str, Weights]) -> Update:
    """Return an update without the groups that the rule has asked for.

    Args:
        update: of a robot.
        asked: by name, tensors of the names and shapes that each has.

    Raises:
        UpdateError: one is missing, or it has other tensors, or they are not finite.
    """
    for name, like in asked.items():
        if name not in update.groups:
            raise UpdateError(
                f"it lacks the group of tensors {name!r}, which the server's rule asks for"
            )
        require_same_tensors(like, update.groups[name], sender=f"the group {name}")
    return replace(update, groups={n: g for n, g in update.groups.items() if n not in asked})


def check_reply(update: Update, asked_version: int, checks: CheckSettings) -> None:
    """Raise UpdateError unless a reply of any kind is about what was asked, and small enough."""
    if update.base_version != asked_version:
        raise UpdateError(f"it is based on version {update.base_version}, expected {asked_version}")
    if taken := RESERVED & update.metrics.keys():
        raise UpdateError(
            f"its metric {min(taken)!r} has the name of something that the server says of a robot; "
            "choose another"
        )
    for name, value in update.metrics.items():
        low, high = range_of(name)
        if not low <= value <= high:
            raise UpdateError(f"its metric {name!r} is {value:g}, expected {low:g} to {high:g}")
    if update.num_examples <= 0:
        raise UpdateError(f"it is of {update.num_examples} examples, expected > 0")
    if (size_mb := reply_bytes(update) / 1e6) > checks.max_update_mb:
        raise UpdateError(
            f"it has {size_mb:.1f} MB, expected at most {checks.max_update_mb:g} "
            "(checks.max_update_mb)"
        )


def label_counts(update: Update, labels: Sequence[str]) -> Mapping[str, int]:
    """Return label -> examples of it, over 0 each; none if the robot told nothing.

    Raises:
        UpdateError: the reply counts other labels than those of the trainer that was sent.
    """
    counts = update.label_counts
    if counts and len(counts) != len(labels):
        raise UpdateError(f"it counts examples of {len(counts)} labels, expected {len(labels)}")
    return {label: count for label, count in zip(labels, counts, strict=False) if count}


def reply_bytes(update: Update) -> int:
    """Return the bytes of all tensors of a reply."""
    return sum(map(size_bytes, (update.weights, *update.groups.values())))
