"""What was spent of each robot's privacy: a ledger on disk, and (epsilon, delta) from it.

Robots take part when they are switched on and idle, and the draw of rounds.target has a seed that
is no secret. So nothing is taken off for sampling: a robot is charged in full for each round that
it was in, and what is told is the loss of the robot that was in most. The ledger is written before
what has used the noise is seen, and only grows: a round that is tried again is charged again.

Two fleets are compared that differ in one robot. central: its updates are there or not; a round
changes the sum by at most `clip`. local: its update is any or any other; by at most 2 * `clip`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cloud_server.state.learning_settings import PrivacySettings
from fleet_model.durable import write_durably
from fleet_model.errors import SettingsError, StorageError

FILE = "privacy.json"  # beside the history
_LONGEST = {"central": 1.0, "local": 2.0}  # change of a round by one robot, in units of `clip`


class Spent(BaseModel):
    """Rounds of a run with the same noise."""

    model_config = ConfigDict(extra="forbid")

    run: str
    mode: str
    noise_multiplier: float
    rounds: dict[str, int] = {}  # robot -> that it is charged for


class _Ledger(BaseModel):
    model_config = ConfigDict(extra="forbid")
    spent: list[Spent] = []


class Account:
    """One lineage's ledger."""

    def __init__(self, home: Path, settings: PrivacySettings) -> None:
        """Read what was spent.

        Args:
            home: folder of the lineage.
            settings: what is spent from now on.

        Raises:
            StorageError: the ledger is damaged.
        """
        self._file, self._settings = home / FILE, settings
        self._spent = read_ledger(self._file)

    def charge(self, run: str, robots: Iterable[str]) -> None:
        """Charge robots for one round, durably; raises StorageError."""
        mode, noise = self._settings.mode, self._settings.noise_multiplier
        for one in self._spent:
            if (one.run, one.mode, one.noise_multiplier) == (run, mode, noise):
                entry = one
                break
        else:
            entry = Spent(run=run, mode=mode, noise_multiplier=noise)
            self._spent.append(entry)
        for robot in robots:
            entry.rounds[robot] = entry.rounds.get(robot, 0) + 1
        try:
            write_durably(self._file, _Ledger(spent=self._spent).model_dump_json(indent=1))
        except OSError as error:
            raise StorageError(
                f"{self._file}: what is spent of the robots' privacy cannot be written "
                f"({error.strerror}); give the disk room, then `cloud-server runs resume DIR`"
            ) from error

    def told(self, run: str) -> Mapping[str, float | str]:
        """Return what a round's record says: of the run so far, and of all runs."""
        delta = self._settings.delta
        return {
            "mode": self._settings.mode,
            "epsilon": epsilon([one for one in self._spent if one.run == run], delta),
            "epsilon_of_all_runs": epsilon(self._spent, delta),
            "delta": delta,
        }


def read_ledger(file: Path) -> list[Spent]:
    """Return what was spent; raises StorageError rather than forget it."""
    try:
        return _Ledger.model_validate_json(file.read_bytes()).spent
    except FileNotFoundError:
        return []
    except (OSError, ValidationError):
        raise StorageError(
            f"{file}: the account of what was spent of the robots' privacy is damaged; restore it "
            "from a backup, or remove it and count what it held yourself"
        ) from None


def epsilon(spent: Sequence[Spent], delta: float) -> float:
    """Return epsilon of the robot that lost most, 0 if nothing was spent.

    Gaussian mechanisms compose to one: with sensitivities d_j and deviations s_j, to one of
    sensitivity 1 and deviation 1 / sqrt(sum_j (d_j / s_j)^2).
    """
    most: dict[str, float] = {}
    for one in spent:
        each = (_LONGEST[one.mode] / one.noise_multiplier) ** 2
        for robot, rounds in one.rounds.items():
            most[robot] = most.get(robot, 0.0) + rounds * each
    worst = max(most.values(), default=0.0)
    if not worst:
        return 0.0
    from dp_accounting import get_epsilon_gaussian

    return float(get_epsilon_gaussian(1 / math.sqrt(worst), delta))


def require_accountant() -> None:
    """Raise SettingsError unless epsilon can be computed here."""
    try:
        import dp_accounting  # noqa: F401
    except ModuleNotFoundError:
        raise SettingsError(
            "privacy.mode needs dp-accounting: pip install 'fleetlearn[privacy]', or set "
            'privacy.mode = "off"'
        ) from None
