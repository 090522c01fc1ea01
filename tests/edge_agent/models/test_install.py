"""Models on trial, with the real child process: what stays, what is refused or given back."""

import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
from functools import partial
from itertools import count
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
import moody_workload
from moody_workload import TINY, bundle, labelled_frames

from cloud_server.state.model_store import DirectoryStore
from edge_agent.models import install, runtime_choice
from edge_agent.models.deploy import Models
from edge_agent.models.install import Installer
from edge_agent.models.runtime_choice import NO_FASTER
from edge_agent.models.trials import KEPT, TrialFile
from edge_agent.models.verdict import Findings
from edge_agent.robot.model_settings import EngineSettings, InstallSettings
from edge_agent.robot.settings import AgentSettings, ExampleSettings, ServerLink
from fleet_model.bundle import entry_of, read_offer
from fleet_model.errors import BundleError, StoppedError
from fleet_model.litert.runtime import read_choice, write_choice

PICTURES = 24  # half of them held out


@pytest.fixture(autouse=True)
def moody(tmp_path, monkeypatch):
    """Install the workload for this process and its children."""
    monkeypatch.syspath_prepend(str(moody_workload.site(tmp_path / "a" / "site")))


@pytest.fixture
def frames(tmp_path):
    return labelled_frames(tmp_path / "frames", PICTURES)


class Robot:
    def __init__(self, folder, paths=(), **limits):
        self.settings = AgentSettings(
            server=ServerLink(address="localhost:1"),
            state=folder / "state",
            examples=ExampleSettings(paths=paths, held_out=0.5),
            install=InstallSettings(**{"probation_s": 1000, **limits}),
        )
        self.folder, self.store = folder, DirectoryStore(folder / "store")
        self.restart()

    def restart(self, **limits):
        install = self.settings.install.model_copy(update=limits)
        self.settings = self.settings.model_copy(update={"install": install})
        self.models = Models(self.settings.state / "models")
        self.events = []
        make_room = partial(self.events.append, "room")
        self.installer = Installer(self.settings, self.models, threading.Event(), make_room)
        self.installer.begin()
        return self

    def offer(self, version, mood="", **about):
        self.store.publish(bundle(self.folder, version, mood, **about), "stable", TINY)
        return self.store.latest("stable")

    def try_(self, version, mood="", **about):
        """Return why a version is refused, "" if it is active."""
        return self.installer.follow(self.store, self.offer(version, mood, **about))

    def begin_with(self, version=1):
        """Have a model without a trial, as an agent of before did."""
        self.models.install(self.store, self.offer(version), "fp32")

    @property
    def active(self):
        return self.models.version_in_use()

    def wait_for(self, state):
        until(lambda: self.installer.last.state == state)
        return self.installer.last


def until(holds):
    end = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_first_model_that_runs_is_confirmed_at_once(tmp_path):
    robot = Robot(tmp_path)
    assert robot.try_(1) == ""
    assert (robot.active, robot.installer.last.words) == (1, "version 1 is confirmed")


def test_what_runs_a_model_is_measured_in_its_trial_and_again_for_other_settings(
    tmp_path, monkeypatch
):
    robot = Robot(tmp_path)
    assert robot.try_(1) == ""
    kept = read_choice(robot.models.current)
    (found,) = kept.measured
    assert found.compiled_ms > 0
    assert found.interpreter_ms > 0
    assert kept.asked == "auto"

    found.why = NO_FASTER
    write_choice(robot.models.current, kept)
    assert robot.try_(2) == ""
    assert read_choice(robot.models.current) == kept  # not measured for other numbers

    monkeypatch.setattr(runtime_choice, "ask", None)
    robot.restart().installer.review_runtime()  # nothing is other than then
    assert read_choice(robot.models.current) == kept
    engine = EngineSettings(runtime="interpreter")
    robot.settings = robot.settings.model_copy(update={"engine": engine})
    robot.restart().installer.review_runtime()
    assert read_choice(robot.models.current).asked == "interpreter"


def test_an_equal_model_is_tried_on_held_out_examples_then_on_probation_then_confirmed(
    tmp_path, frames
):
    robot = Robot(tmp_path, (frames,))
    robot.begin_with(1)
    assert robot.try_(2) == ""
    told = ": accuracy 1.000, 1.000 with 1, on 12 held-out examples"
    assert robot.installer.last.words == f"version 2 is on probation{told}"
    assert robot.active == 2
    robot.restart(probation_s=0.0)
    assert robot.wait_for("confirmed").words == f"version 2 is confirmed{told}"


def test_a_model_that_is_worse_on_the_robots_own_examples_is_refused_and_not_tried_again(
    tmp_path, frames
):
    robot = Robot(tmp_path, (frames,))
    robot.begin_with(1)
    words = "version 2 is refused: accuracy 0.000, 1.000 with version 1, on 12 held-out examples"
    assert robot.try_(2, worse=True) == words
    assert robot.active == 1
    tried = json.loads((tmp_path / "state" / "models" / "trials.json").read_text())["tried"]
    assert robot.restart().installer.follow(robot.store, robot.store.latest("stable")) == words
    again = json.loads((tmp_path / "state" / "models" / "trials.json").read_text())["tried"]
    assert again == tried
    assert robot.try_(3) == ""
    assert robot.active == 3


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        ("crash at load", "it ended the process that tried it"),
        ("crash", "it ended the process that tried it"),
        ("raise", "it ended the process that tried it"),
        ("hang", "it did not answer in time"),
        ("eat", "it took more memory than install.memory_mb allows"),
        ("slow", r"\d+\.\d ms for an answer, \d+\.\d ms with version 1"),
    ],
)
def test_a_model_that_misbehaves_is_not_switched_to(tmp_path, frames, mood, reason):
    robot = Robot(tmp_path, (frames,))
    robot.begin_with(1)
    robot.restart(timeout_s=5.0 if mood == "hang" else 60.0, memory_mb=400.0)
    with pytest.raises(BundleError, match=f"^version 2 is refused: {reason}; it is tried again$"):
        robot.try_(2, mood)
    assert (robot.active, robot.models.active_name[:6]) == (1, "000001")


def test_a_model_that_mostly_waits_for_other_processes_is_not_slow(tmp_path, frames):
    robot = Robot(tmp_path, (frames,))
    robot.begin_with(1)
    assert robot.try_(2, "waits for others") == ""
    assert robot.active == 2


def test_without_labels_a_model_that_contradicts_the_running_one_is_refused(tmp_path, frames):
    for picture in frames.glob("*/*.png"):
        picture.rename(frames / picture.name)
    robot = Robot(tmp_path, (frames,))
    robot.begin_with(1)
    words = "the same answer as version 1 on 0 of 24 frames only"
    assert robot.try_(2, worse=True) == f"version 2 is refused: {words}"
    assert robot.try_(3) == ""
    told = "version 3 is on probation: the same answer as version 1 on 24 of 24 frames"
    assert robot.installer.last.words == told


def test_a_model_that_cannot_be_loaded_is_refused_at_once(tmp_path):
    robot = Robot(tmp_path)
    robot.begin_with(1)
    offer = robot.offer(2)
    head = offer.manifest.files["head.tflite"]
    broken = b"not a model" + bytes(head.size_bytes - 11)
    manifest = json.loads(offer.content)
    manifest["files"]["head.tflite"] = entry_of(broken).model_dump()
    (tmp_path / "store" / "objects" / entry_of(broken).sha256).write_bytes(broken)
    offer = read_offer(json.dumps(manifest).encode())
    refused = robot.installer.follow(robot.store, offer)
    assert refused == "version 2 is refused: it cannot be loaded"


def test_a_trial_that_is_given_up_does_not_count(tmp_path, frames):
    robot = Robot(tmp_path, (frames,))
    robot.begin_with(1)
    offer = robot.offer(2, "hang")
    threading.Timer(1.0, robot.installer._ended.set).start()
    with pytest.raises(StoppedError):
        robot.installer.follow(robot.store, offer)
    assert TrialFile(tmp_path / "state" / "models").read().tried[0].tries == 0


# ------------------------------------------------------------------- what follows from a trial


@pytest.fixture
def finds(monkeypatch):
    """Return what makes trials find something without a child process."""

    def find(**found):
        findings = Findings(compiled=moody_workload.NOT_FASTER, **found)
        monkeypatch.setattr(install, "run_trial", lambda *_: findings)

    find()
    return find


def test_a_start_removes_what_a_killed_agent_wrote_aside_among_the_models(tmp_path):
    robot = Robot(tmp_path)
    robot.begin_with(1)
    models = tmp_path / "state" / "models"
    folders = (models, models / "channels", next((models / "versions").iterdir()))
    left = [folder / f".any.{2**22 + 1}.new" for folder in folders]  # no process has that number
    for file in left:
        file.touch()
    robot.restart()
    assert [file for file in left if file.exists()] == []
    assert robot.active == 1


def test_memory_is_freed_before_each_trial_and_not_for_a_model_that_was_refused_before(
    tmp_path, finds
):
    robot = Robot(tmp_path)
    robot.begin_with(1)
    finds(**WORSE)
    assert robot.try_(2) != ""
    assert robot.events == ["room"]
    assert robot.installer.follow(robot.store, robot.store.latest("stable")) != ""
    assert robot.events == ["room"]  # a warm trainer is not ended at every poll
    finds()
    robot.try_(3)
    robot.restart(probation_s=0.0).wait_for("confirmed")
    assert robot.events == ["room"]  # before the second trial, too


WORSE = {"running": 1, "measure": "accuracy", "before": 0.9, "after": 0.5, "chance": 0.001}


def test_labels_that_are_wrong_from_one_day_on_let_no_model_in_that_learned_them(tmp_path, finds):
    robot = Robot(tmp_path)
    robot.begin_with(1)
    finds(running=1, measure="accuracy", before=0.8, after=0.96, examples=50)
    assert robot.try_(2) == ""
    robot.restart(probation_s=0.0).wait_for("confirmed")
    finds(running=2, measure="accuracy", before=0.3, after=0.6, examples=50)
    for version in range(3, KEPT + 4):  # so many refused ones make it forget nothing of version 2
        assert robot.try_(version) == (
            f"version {version} is refused: accuracy 0.600 on 50 held-out examples, and version 2 "
            "had 0.960 here when it was confirmed: this robot's labels or frames have changed"
        )
    assert robot.active == 2


def test_what_may_be_the_machines_fault_is_tried_three_times_and_a_person_may_ask_for_more(
    tmp_path, finds
):
    robot = Robot(tmp_path)
    robot.begin_with(1)
    finds(failed="hung")
    offer = robot.offer(2)
    for _ in range(2):
        with pytest.raises(BundleError, match="it did not answer in time; it is tried again"):
            robot.installer.follow(robot.store, offer)
        assert len(list(robot.models.folder("").iterdir())) == 2  # it is not fetched again
    refused = "version 2 is refused: it did not answer in time"
    assert robot.installer.follow(robot.store, offer) == refused
    assert len(list(robot.models.folder("").iterdir())) == 1
    finds()
    assert robot.restart().installer.follow(robot.store, offer) == refused
    assert robot.installer.allow(force=False).words == refused
    assert robot.installer.follow(robot.store, offer) == ""
    assert robot.active == 2


def test_a_person_may_force_a_worse_model_but_not_one_that_does_not_run(tmp_path, finds):
    robot = Robot(tmp_path)
    robot.begin_with(1)
    finds(**WORSE)
    offer = robot.offer(2)
    assert robot.installer.follow(robot.store, offer).startswith("version 2 is refused: accuracy")
    robot.installer.allow(force=True)
    finds(failed="unloadable")
    assert "cannot be loaded" in robot.installer.follow(robot.store, offer)
    robot.installer.allow(force=True)
    finds(**WORSE)
    assert robot.installer.follow(robot.store, offer) == ""
    robot.restart(probation_s=0.0)
    assert robot.wait_for("confirmed").after == 0.5  # it stays forced over the probation
    assert robot.active == 2


def test_a_rollback_of_the_operator_stays_whatever_this_robot_measures(tmp_path, finds):
    robot = Robot(tmp_path)
    robot.begin_with(2)
    finds(**WORSE)
    assert robot.try_(3, rolls_back_to=1) == ""
    robot.restart(probation_s=0.0)
    assert robot.wait_for("confirmed").version == 3


def test_a_model_that_fails_during_its_probation_is_given_back_and_not_taken_again(tmp_path, finds):
    robot = Robot(tmp_path)
    robot.begin_with(1)
    assert robot.try_(2) == ""
    finds(**WORSE)
    robot.restart(probation_s=0.0)
    words = "version 2 was given back: accuracy 0.500, 0.900 with version 1, on 0 held-out examples"
    assert robot.wait_for("back").words == words
    until(lambda: robot.active == 1)
    assert robot.installer.follow(robot.store, robot.store.latest("stable")) == words
    assert robot.active == 1


@pytest.mark.parametrize(("command", "state"), [("true", "confirmed"), ("false", "back")])
def test_the_operators_own_check_decides_too(tmp_path, finds, command, state):
    robot = Robot(tmp_path, check=command)
    robot.begin_with(1)
    assert robot.try_(2) == ""
    robot.restart(probation_s=0.0)
    robot.wait_for(state)
    until(lambda: robot.active == (2 if state == "confirmed" else 1))


def test_a_model_under_which_the_agent_ends_three_times_is_given_back(tmp_path, finds):
    robot = Robot(tmp_path)
    robot.begin_with(1)
    assert robot.try_(2) == ""
    for _ in range(2):
        robot.restart()
        assert robot.active == 2
    robot.restart()
    assert robot.active == 1
    ended = "the agent was ended three times while the model was tried"
    assert robot.installer.last.words == f"version 2 was given back: {ended}"


def test_a_model_that_ends_the_agent_while_it_is_tried_is_refused_after_three_tries(
    tmp_path, finds, monkeypatch
):
    robot = Robot(tmp_path)
    robot.begin_with(1)
    offer = robot.offer(2)

    def end(*_):
        raise SystemExit

    for _ in range(3):
        monkeypatch.setattr(install, "run_trial", end)
        with pytest.raises(SystemExit):
            robot.restart().installer.follow(robot.store, offer)
    ended = "the agent was ended three times while the model was tried"
    assert robot.restart().installer.follow(robot.store, offer) == f"version 2 is refused: {ended}"


def test_a_newer_model_during_a_probation_leaves_the_last_good_one_to_go_back_to(tmp_path, finds):
    robot = Robot(tmp_path)
    robot.begin_with(1)
    for version in (2, 3):
        assert robot.try_(version) == ""
    finds(**WORSE)
    robot.restart(probation_s=0.0)
    robot.wait_for("back")
    until(lambda: robot.active == 1)


def test_a_person_goes_back_beside_a_running_agent_and_the_model_is_not_taken_again(
    tmp_path, finds
):
    robot = Robot(tmp_path, probation_s=0.0)
    robot.begin_with(1)
    assert robot.try_(2) == ""
    robot.wait_for("confirmed")
    other = Installer(robot.settings, Models(tmp_path / "state" / "models"), threading.Event())
    assert other.roll_back() == "version 1 is active again, not 2"
    words = "version 2 was given back: by `edge-agent rollback`"
    assert robot.installer.follow(robot.store, robot.store.latest("stable")) == words
    with pytest.raises(BundleError, match="there is no version to go back to"):
        other.roll_back()
    assert robot.active == 1


def test_the_version_before_is_only_gone_back_to_if_it_is_whole(tmp_path, finds):
    robot = Robot(tmp_path)
    robot.begin_with(1)
    assert robot.try_(2) == ""
    (folder,) = (tmp_path / "state" / "models" / "versions").glob("000001*")
    (folder / "head.tflite").write_bytes(b"damaged")
    with pytest.raises(BundleError, match=r"head\.tflite: 7 bytes, expected"):
        robot.installer.roll_back()
    assert (robot.active, robot.installer.last.state) == (2, "probation")


def test_a_damaged_memory_of_trials_does_not_stop_the_models(tmp_path, finds):
    robot = Robot(tmp_path)
    robot.begin_with(1)
    (tmp_path / "state" / "models" / "trials.json").write_text("{")
    assert robot.restart().try_(2) == ""
    assert robot.active == 2


# ------------------------------------------------------------------------------- kill -9

CHANGES = {"os.link", "os.rename", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "open"}


def killed_at(step, act):
    """Act in a forked process that is killed before its change of the disk of that number."""
    child = os.fork()
    if child == 0:
        left = count(step, -1)

        def hook(event, arguments):
            is_change = event in CHANGES and (event != "open" or arguments[2] & os.O_CREAT)
            if is_change and next(left) == 1:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            act()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] != 0


def install_3(robot):
    robot.installer.follow(robot.store, robot.store.latest("stable"))


def end_probation(robot):
    robot.installer._end_probation(robot.installer._file.read().probation)


@pytest.mark.parametrize(
    ("act", "found", "versions", "end"),
    [
        (install_3, {}, {2, 3}, (3, "probation")),
        (install_3, WORSE, {2}, (2, "refused")),
        (end_probation, {}, {2}, (2, "confirmed")),
        (end_probation, WORSE, {1, 2}, (1, "back")),
    ],
)
def test_killed_at_any_step_a_whole_model_is_active_and_the_next_start_goes_on(
    tmp_path, finds, act, found, versions, end
):
    start = Robot(tmp_path / "start")
    start.begin_with(1)
    assert start.try_(2) == ""
    if act is install_3:
        start.offer(3)
    start.installer.close()
    finds(**found)
    for step in count(1):
        folder = shutil.copytree(
            start.folder, tmp_path / "cut", symlinks=True, copy_function=os.link
        )
        robot = Robot(folder)
        robot.installer.close()
        killed = killed_at(step, lambda robot=robot: act(robot))
        robot.restart().installer.close()
        assert robot.models.active("fp32").manifest.version in versions
        begun = robot.installer._file.read()
        if robot.active == 2 and act is install_3:  # as it was before: still on probation
            assert (begun.probation.name[:6], begun.probation.before[:6]) == ("000002", "000001")
        if (robot.active, robot.installer.last.state) != end:
            act(robot)
        robot.installer.close()
        assert (robot.models.active("fp32").manifest.version, robot.installer.last.state) == end
        shutil.rmtree(folder)
        if not killed:
            break
    assert step > 3


def test_the_lock_needs_no_right_to_write_its_file_which_another_user_may_have_made(
    tmp_path, monkeypatch
):
    modes = []

    def flock(file, _):
        modes.append(fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE)

    monkeypatch.setattr(fcntl, "flock", flock)
    with TrialFile(tmp_path).locked():
        assert modes == [os.O_RDONLY]
