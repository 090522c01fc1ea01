"""Choose what of this robot's own runs with an installed version, as examples come and go.

A new version is measured in its trial (trial.py), before it takes over. The child of this module
does it again for the active one, where the examples are others than those that were counted then.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edge_agent.models.deploy import Models
from edge_agent.models.personal.measuring import Asked
from edge_agent.models.personal.tensors import FOLDER, forget_beside, put_beside
from edge_agent.models.trial_process import source_fields
from edge_agent.models.watched_child import Say, answer, ask
from edge_agent.robot.settings import AgentSettings
from fleet_model.bundle import Manifest
from fleet_model.durable import remove_durably
from fleet_model.errors import FleetError, StoppedError
from fleet_model.personal.choice import (
    FILE,
    PersonalChoice,
    read_personal,
    write_personal,
)
from fleet_model.protocol.trial import WHY
from fleet_model.store import ModelStore

PAUSE_S = 10.0  # without a training: then a run pauses, or has ended
log = logging.getLogger(__name__)


class PersonalChooser:
    """Chooses for the versions of one robot."""

    def __init__(
        self,
        settings: AgentSettings,
        models: Models,
        ended: threading.Event,
        make_room: Callable[[], None],
    ) -> None:
        """Start nothing.

        Args:
            settings: of this robot.
            models: where versions are installed.
            ended: set to give up what is under way.
            make_room: frees memory before something is measured.
        """
        self._settings, self._models = settings, models
        self._ended, self._make_room = ended, make_room
        self._reviewed_at: float | None = None  # monotonic

    def asked(self, name: str, manifest: Manifest, store: ModelStore) -> Asked | None:
        """Return what of this robot's own is measured with a version; None: it has nothing.

        What the own tensors need to run is put beside the version.

        Raises:
            ConnectionFailed, StorageError: as Models.stage.
        """
        folder = self._settings.state / FOLDER
        own, why = put_beside(self._models, store, name, manifest, folder)
        asked = Asked(self._settings.personal.own_shares, own, why)
        return asked if asked.parts else None

    def keep(self, name: str, in_trial: Mapping[str, Any] | None) -> None:
        """Keep beside a version what its trial has chosen.

        Args:
            name: of the version.
            in_trial: fields of PersonalChoice; None: nothing is known, so the shared model runs.
        """
        self._reviewed_at = time.monotonic()
        choice = PersonalChoice.model_validate(in_trial) if in_trial else None
        self._write(self._models.folder(name), choice)

    def is_due(self, trained_at: float | None) -> bool:
        """Return whether to choose again: once after the start, and when a run pauses or ends.

        Not between two rounds: that needs the processor and the memory of the training.

        Args:
            trained_at: end of this robot's last training, monotonic; None: there was none.
        """
        if self._reviewed_at is None:
            return True
        if trained_at is None or trained_at <= self._reviewed_at:
            return False
        return time.monotonic() >= trained_at + PAUSE_S

    def review(self, name: str, manifest: Manifest, store: ModelStore) -> None:
        """Choose again for an installed version, if what this robot has is other than then.

        Whatever goes wrong, what was chosen before goes on.
        """
        self._reviewed_at = time.monotonic()
        folder = self._models.folder(name)
        try:
            asked = self.asked(name, manifest, store)
            found = self._measured(folder, asked) if asked else None
        except StoppedError:
            return
        except FleetError as error:
            log.warning("what of this robot's own runs is not known: %s", error)
            return
        if asked is None or found is not None:
            self._write(folder, found)

    def _measured(self, folder: Path, asked: Asked) -> PersonalChoice | None:
        """Return what is to run; None if that stays or could not be found out."""
        before, engine = read_personal(folder), self._settings.engine
        same = before is not None and (before.precision, before.asked, before.tensors) == (
            engine.precision,
            asked.parts,
            asked.tensors,
        )
        job = {
            "bundle": str(folder),
            "precision": engine.precision,
            "source": source_fields(self._settings),
            "examples": self._settings.install.examples,
            "asked": list(asked),
            "digest": before.digest if same and before else "",
        }
        self._make_room()
        said, failed = ask(__name__, job, self._settings.install, self._ended)
        line = next((one for one in said if "found" in one), None)
        if line is None:
            why = WHY[failed or "crashed"]
            log.warning("what of this robot's own runs could not be measured: %s", why)
            return None
        return PersonalChoice.model_validate(line["found"]) if line["found"] else None

    def _write(self, folder: Path, choice: PersonalChoice | None) -> None:
        """Keep a choice if it is another one; None: this robot has nothing of its own."""
        if choice == read_personal(folder):
            return
        try:
            if choice is not None:
                write_personal(folder, choice)
                log.info("what runs: %s", choice.words)
            else:
                remove_durably(folder / FILE)
                log.info("what runs: the shared model, this robot has nothing of its own")
            forget_beside(folder, choice.tensors if choice else "")
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("what of this robot's own runs cannot be kept: %s", error.strerror)


def _work(asked: Mapping[str, Any], say: Say) -> None:
    from edge_agent.models.personal.candidates import chosen_personal

    choice = chosen_personal(asked)
    say(found=choice and choice.model_dump())


if __name__ == "__main__":
    answer(_work)
