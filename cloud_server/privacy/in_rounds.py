"""How the rounds of a run are private, where the settings say so."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cloud_server.aggregation.aggregator import Aggregator
from cloud_server.aggregation.contributions import Contributions
from cloud_server.privacy.account import Account, require_accountant
from cloud_server.privacy.private_mean import PrivateMean
from cloud_server.rounds.fleet import Fleet, Participant, Reply
from cloud_server.state.learning_settings import CheckSettings, PrivacySettings
from cloud_server.state.settings import ServerSettings
from fleet_model.errors import SettingsError
from fleet_model.protocol.private import fresh_generator
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import Checkpoint


def with_privacy(
    rule: Aggregator,
    privacy: PrivacySettings,
    random: Callable[[], np.random.Generator] = fresh_generator,
) -> Aggregator:
    """Return the rule of a run, which sees nothing but a private mean in mode central.

    Args:
        rule: one that goes with these settings (aggregation/suited.py).
        privacy: of the server.
        random: returns the generator of a round's noise.

    Raises:
        SettingsError: what is spent cannot be computed here.
    """
    if privacy.mode == "off":
        return rule
    require_accountant()
    if privacy.mode == "local":
        return _OfSingleRobots(rule)
    return PrivateMean(rule, privacy.clip, privacy.noise_multiplier, random)


def require_no_sums(settings: ServerSettings) -> None:
    """Raise SettingsError where a run would begin with sums of features, which get no noise."""
    if settings.privacy.mode != "off":
        raise SettingsError(
            f'privacy.mode = "{settings.privacy.mode}" gives no noise to sums of features: train '
            'without --closed-form, and with start.closed_form = "off"'
        )


def private_request(request: RobotRequest, privacy: PrivacySettings) -> RobotRequest:
    """Return a round's request; in mode local robots clip and add noise themselves."""
    if privacy.mode != "local":
        return request
    clip, noise = privacy.clip, privacy.noise_multiplier
    config = replace(request.config, private_clip=clip, private_noise=noise)
    return replace(request, config=config)


def private_checks(checks: CheckSettings, privacy: PrivacySettings) -> CheckSettings:
    """Return the checks of a run.

    In mode central no update is cut by how long the others are: one robot could change how much of
    all others counts, by more than the noise hides. The clipping bounds them.
    """
    return checks.model_copy(update={"max_norm_ratio": 0.0} if privacy.mode == "central" else {})


class PrivateRun:
    """The account of a run; nothing in mode off."""

    def __init__(self, home: Path, privacy: PrivacySettings, run: str) -> None:
        """Read the account.

        Args:
            home: folder of the lineage.
            privacy: of the server.
            run: its id.

        Raises:
            StorageError: the account is damaged.
        """
        self._mode, self._run = privacy.mode, run
        self._account = None if privacy.mode == "off" else Account(home, privacy)

    def fleet(self, fleet: Fleet) -> Fleet:
        """Return the fleet; in mode local it charges robots when they are asked."""
        local = self._account if self._mode == "local" else None
        return fleet if local is None else ChargedFleet(fleet, local)

    def settle(self, accepted: Iterable[str]) -> Mapping[str, float | str]:
        """Charge a round that has used noise, before its checkpoint is written; tell what is spent.

        Raises:
            StorageError: the account cannot be written, so the checkpoint must not be.
        """
        if self._account is None:
            return {}
        if self._mode == "central":
            self._account.charge(self._run, accepted)
        return self._account.told(self._run)


class ChargedFleet(Fleet):
    """A fleet in mode local: a robot is charged for each question, before it is sent.

    It may answer late, or once more where its round is tried again, and the server sees all of it.
    """

    def __init__(self, fleet: Fleet, account: Account) -> None:
        self._fleet, self._account = fleet, account

    def online(self) -> Sequence[Participant]:
        """As Fleet says; so are the others."""
        return self._fleet.online()

    def shut_out(self) -> Mapping[str, str]:  # noqa: D102
        return self._fleet.shut_out()

    def send(  # noqa: D102
        self, participants: Sequence[Participant], request: RobotRequest, ttl_s: float
    ) -> Mapping[str, Participant]:
        self._account.charge(request.run, [robot.name for robot in participants])
        return self._fleet.send(participants, request, ttl_s)

    def replies(self, tickets: Collection[str]) -> Sequence[Reply]:  # noqa: D102
        return self._fleet.replies(tickets)

    def still_open(self, tickets: Collection[str]) -> set[str]:  # noqa: D102
        return self._fleet.still_open(tickets)


class _OfSingleRobots:
    """A rule that takes no means of a relay: nobody would have clipped what is in them."""

    def __init__(self, rule: Aggregator) -> None:
        self._rule = rule

    def fold(self, checkpoint: Checkpoint, contributions: Contributions) -> Checkpoint:
        return self._rule.fold(checkpoint, contributions)
