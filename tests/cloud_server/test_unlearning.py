"""A robot is taken out of the head, on a real server directory; its server need not run."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.robots.register import Register
from cloud_server.rounds.sums_exchange import head_of, space_of
from cloud_server.runs.first_sums import method_of
from cloud_server.runs.run_store import Run, RunStore
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.learning_settings import StartSettings
from cloud_server.state.settings import ServerSettings, load_settings
from cloud_server.state.sums.sums_store import SumsStore
from cloud_server.unlearning import unlearn
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.errors import SettingsError
from fleet_model.protocol.proof import public_line
from fleet_model.sums.class_sums import class_sums
from fleet_model.sums.packing import pack_sums

ROBOTS = ("r1", "r2", "r3")


def new_key():
    return public_line(ec.generate_private_key(ec.SECP384R1()).public_key())


@pytest.fixture
def fleet(server_dir):
    """Three robots that have told sums, and a checkpoint of gradients."""
    register = Register(server_dir.robots)
    _, space = spec_of(server_dir)
    for number, name in enumerate(ROBOTS):
        register.add(name, "hall", new_key())
        rng = np.random.default_rng(number)
        classes = np.arange(60) % len(space.labels)
        features = rng.normal(classes[:, None], 1.0, (60, space.width))
        tensors = pack_sums(class_sums(features, classes, len(space.labels), 4))
        SumsStore(server_dir.sums).save(name, tensors, space)
    return server_dir, register


def spec_of(server_dir):
    newest = Checkpoints(server_dir.checkpoints).newest()
    return space_of(parse_trainer((server_dir.model_of(newest) / TRAINER).read_bytes()))


def test_the_head_is_that_of_the_other_robots_sums(fleet):
    server_dir, register = fleet
    head, space = spec_of(server_dir)
    checks = load_settings(server_dir.settings).checks
    expected = head_of(SumsStore(server_dir.sums).of(space, without="r2"), "ridge", checks, "")
    before = Checkpoints(server_dir.checkpoints).newest()
    said = "\n".join(unlearn(server_dir, register, "r2"))
    made = Checkpoints(server_dir.checkpoints).latest()
    assert made.version == before + 1
    np.testing.assert_allclose(made.weights[head.kernel], expected.kernel, rtol=1e-9)
    np.testing.assert_allclose(made.weights[head.bias], expected.bias, rtol=1e-9)
    assert register.by_name("r2") is None
    assert SumsStore(server_dir.sums).robots() == ["r1", "r3"]
    assert "2 robots, without r2, which is unlearned" in said
    assert f"version {before} had been trained by gradients" in said


@pytest.mark.parametrize(
    "step", [(Checkpoints, "save"), (SumsStore, "note"), (SumsStore, "forget")]
)
def test_killed_at_any_step_the_same_command_ends_it(fleet, monkeypatch, step):
    class PowerCutError(BaseException):
        pass

    def dies(*_, **__):
        raise PowerCutError

    server_dir, register = fleet
    with monkeypatch.context() as patch:
        patch.setattr(*step, dies)
        with pytest.raises(PowerCutError):
            list(unlearn(server_dir, register, "r2"))
    said = list(unlearn(server_dir, register, "r2"))
    assert said[0] == "r2 is not in the register any more"
    assert SumsStore(server_dir.sums).robots() == ["r1", "r3"]
    assert SumsStore(server_dir.sums).head().robots == ("r1", "r3")


def test_a_robot_without_sums_leaves_the_gradients_too(fleet):
    server_dir, register = fleet
    register.add("r9", "hall", new_key())
    assert any("r9 had told no sums" in line for line in unlearn(server_dir, register, "r9"))
    assert SumsStore(server_dir.sums).robots() == list(ROBOTS)


def test_nothing_is_changed_where_no_other_robot_has_told_sums(fleet):
    server_dir, register = fleet
    for name in ("r1", "r3"):
        SumsStore(server_dir.sums).forget(name)
    before = Checkpoints(server_dir.checkpoints).newest()
    with pytest.raises(SettingsError, match=r"no other robot has told sums.*Nothing is changed"):
        list(unlearn(server_dir, register, "r2"))
    assert register.by_name("r2") is not None
    assert Checkpoints(server_dir.checkpoints).newest() == before


@pytest.mark.parametrize("mode", ["central", "local"])
def test_private_rounds_get_no_head_of_sums_without_noise(fleet, monkeypatch, mode):
    server_dir, register = fleet
    before = Checkpoints(server_dir.checkpoints).newest()
    monkeypatch.setenv("FLEETLEARN_PRIVACY__MODE", mode)
    with pytest.raises(SettingsError, match=rf'no noise, and privacy.mode is "{mode}"\. `cloud-'):
        list(unlearn(server_dir, register, "r2"))
    assert register.by_name("r2") is not None
    assert SumsStore(server_dir.sums).robots() == list(ROBOTS)
    assert Checkpoints(server_dir.checkpoints).newest() == before


def test_a_robot_that_nobody_knows_is_named(fleet):
    server_dir, register = fleet
    with pytest.raises(SettingsError, match="'r7' is not in the register"):
        list(unlearn(server_dir, register, "r7"))


def test_behind_a_relay_its_sums_and_the_answer_that_holds_them_go(fleet):
    server_dir, register = fleet
    (server_dir.upstream).mkdir()
    (server_dir.upstream / "agent.toml").touch()
    server_dir.relayed.mkdir(parents=True)
    for kind in ("sums", "train"):
        (server_dir.relayed / f"{kind}-run-000001-000000.answer").touch()
    before = Checkpoints(server_dir.checkpoints).newest()
    with server_dir.locked("train"):  # the relay runs
        said = list(unlearn(server_dir, register, "r2"))
    assert register.by_name("r2") is None
    assert SumsStore(server_dir.sums).robots() == ["r1", "r3"]
    assert [one.name for one in server_dir.relayed.iterdir()] == ["train-run-000001-000000.answer"]
    assert Checkpoints(server_dir.checkpoints).newest() == before
    assert "until the next exchange" in said[1]
    assert "robots forget DIR RELAY --unlearn" in said[1]


def test_behind_a_relay_a_robot_without_sums_is_forgotten(fleet):
    server_dir, register = fleet
    (server_dir.upstream).mkdir()
    (server_dir.upstream / "agent.toml").touch()
    register.add("r9", "hall", new_key())
    said = list(unlearn(server_dir, register, "r9"))
    assert said[1] == "r9 had told no sums: what it taught was in gradient rounds only"
    with pytest.raises(SettingsError, match="'r9' is not in the register"):
        list(unlearn(server_dir, register, "r9"))


def test_not_while_a_run_goes_on(fleet):
    server_dir, register = fleet
    RunStore(server_dir.runs).save(Run(id="now", rounds=3, started_at=1.0, state="running"))
    with pytest.raises(SettingsError, match="run now goes on"):
        list(unlearn(server_dir, register, "r2"))


def test_the_setting_is_for_fleets_that_no_gradient_has_taught(fleet):
    server_dir, register = fleet
    wanted = ServerSettings(start=StartSettings(closed_form="lda"))
    assert method_of(wanted, server_dir, None) == ""  # version 1 was trained
    assert method_of(wanted, server_dir, "ridge") == "ridge"
    list(unlearn(server_dir, register, "r2"))
    assert method_of(wanted, server_dir, None) == "lda"
    assert method_of(wanted, server_dir, "off") == ""
    assert method_of(ServerSettings(), server_dir, None) == ""


def test_no_run_begins_with_sums_that_a_relay_cannot_add_up(fleet):
    server_dir, register = fleet
    register.relay("r3", 12)
    with pytest.raises(SettingsError, match=r"directions = 16 asks .* r3 sends the sum .*DIR r3 1"):
        method_of(ServerSettings(), server_dir, "ridge")
    exact = ServerSettings(start=StartSettings(directions=0))
    assert method_of(exact, server_dir, "ridge") == "ridge"
