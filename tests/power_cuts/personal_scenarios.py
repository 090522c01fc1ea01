"""Power cuts while a robot puts tensors of its own beside its model, and chooses what runs."""

from pathlib import Path
from threading import Event

import numpy as np
from power_cuts import Scenario
from recorder import mark
from robot_scenarios import meet_servers, offer_of, server_of, without_links
from server_scenarios import TINY

from edge_agent.models.deploy import Models
from edge_agent.models.personal.chooser import PersonalChooser
from edge_agent.models.personal.tensors import FOLDER, drop_own, keep_own, put_beside
from edge_agent.robot.settings import AgentSettings, ServerLink
from fleet_model.bundle import TrainerSpec, entry_of, require_file
from fleet_model.personal.choice import OWN_TENSORS, read_personal
from fleet_model.personal.tensors import trainer_files, trainer_of
from fleet_model.signatures import WEIGHTS
from fleet_model.types import Checkpoint, Update
from fleet_model.weights import read_weights

SPEC = TrainerSpec.model_validate_json((TINY / "trainer.json").read_bytes())
SHARED = read_weights(TINY / WEIGHTS)
OWN = "head/bias"
START = Checkpoint(version=1, weights=SHARED)
_files = {**offer_of(1).manifest.files, WEIGHTS: entry_of((TINY / WEIGHTS).read_bytes())}
MANIFEST = offer_of(1).manifest.model_copy(update={"files": _files})


def _install(root: Path) -> None:
    meet_servers()
    Models(root / "models").install(server_of(1).store, offer_of(1), "fp32")


def _have_own_and_give_up(root: Path) -> None:
    """Train, run with what is the robot's own, then share everything again."""
    models = Models(root / "models")
    settings = AgentSettings(server=ServerLink(address="localhost:1"), state=root)
    chooser = PersonalChooser(settings, models, Event(), make_room=lambda: None)
    trained = {name: np.ones_like(tensor) for name, tensor in SHARED.items()}
    update = Update(robot="", base_version=1, weights=trained, num_examples=1, num_steps=1)
    keep_own(root / FOLDER, SPEC, (OWN,), START, update)
    mark()
    name = models.active_name
    beside, why = put_beside(models, server_of(1).store, name, MANIFEST, root / FOLDER)
    assert not why
    choice = {"precision": "fp32", "asked": (OWN_TENSORS,), "uses": (OWN_TENSORS,)}
    chooser.keep(name, {**choice, "tensors": beside})
    mark()
    drop_own(root / FOLDER, "the server shares all tensors now")
    mark()
    chooser.keep(name, None)
    mark()


def _own(root: Path) -> tuple[bool, str]:
    """Return whether the robot has own tensors, and what runs; all that it needs is whole."""
    kept = list((root / FOLDER).glob("[!.]*"))
    for file in kept:
        assert list(read_weights(file)) == [OWN]
    models = Models(root / "models")
    bundle = models.folder(models.active_name)
    choice = read_personal(bundle)
    if choice is None:
        return bool(kept), "the shared model"
    spec = trainer_of(bundle, MANIFEST)
    for name, entry in {**trainer_files(spec), WEIGHTS: MANIFEST.files[WEIGHTS]}.items():
        require_file(bundle / name, entry)
    assert list(read_weights(bundle / choice.tensors)) == [OWN]
    return bool(kept), choice.runs


def _act_on_fat(root: Path) -> None:
    with without_links():
        _have_own_and_give_up(root)


OWN_TENSORS_BESIDE = Scenario(
    prepare=_install, act=_have_own_and_give_up, observe=_own, resume=_have_own_and_give_up
)
OWN_TENSORS_ON_FAT = Scenario(prepare=_install, act=_act_on_fat, observe=_own, resume=_act_on_fat)
