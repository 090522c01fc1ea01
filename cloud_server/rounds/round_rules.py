"""Who takes part in a round, and when it closes: the operator's settings, checked together."""

from dataclasses import dataclass

from cloud_server.rounds.choosing import Selection
from cloud_server.state.round_record import Mode
from cloud_server.state.settings import RoundSettings
from fleet_model.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRules:
    """What the round loop needs of RoundSettings."""

    mode: Mode
    quorum: int
    target: int
    deadline_s: float
    wait_s: float
    max_staleness: int
    selection: Selection

    def __post_init__(self) -> None:
        if self.mode == "sync" and 0 < self.target < self.quorum:
            raise SettingsError(
                f"rounds.target is {self.target}, expected 0 or at least rounds.quorum "
                f"({self.quorum}): a round cannot get more good updates than it asks robots"
            )


def rules_of(settings: RoundSettings) -> RoundRules:
    """Return the rules that the operator has set; raises SettingsError where they contradict."""
    return RoundRules(
        mode=settings.mode,
        quorum=settings.quorum,
        target=settings.target,
        deadline_s=settings.deadline_s,
        wait_s=settings.wait_s,
        max_staleness=settings.max_staleness,
        selection=Selection(
            names=settings.robots,
            sites=settings.sites,
            labels=settings.labels,
            query=settings.query,
        ),
    )
