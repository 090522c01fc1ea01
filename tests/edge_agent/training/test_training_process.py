"""A real child process; what it trains is a plug-in of the test that costs nothing to import."""

import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from edge_agent.examples.source import SourceSpec
from edge_agent.training.training_process import TrainingJob, TrainingProcess
from fleet_model.bundle import TensorSpec, TrainerSpec, WorkloadSpec
from fleet_model.errors import FrameError, SettingsError, TrainingError, UpdateError
from fleet_model.types import Checkpoint, TrainConfig

pytestmark = pytest.mark.base

PLUGIN = '''
import os, signal, time
from dataclasses import replace
import numpy as np
from fleet_model.errors import FrameError
from fleet_model.types import Example, Update

class Store:
    def __init__(self, count):
        self.count = count

    def examples(self):
        if self.count < 0:
            raise FrameError("bag lab-1: no frames")
        for number in range(self.count):
            yield Example(raw=number, label="cup", key=str(number))

class Trainer:
    """Adds one to every tensor; `config.seed` says what else happens."""

    def __init__(self, spec, directory):
        self.rounds, self.directory = 0, directory

    def fit(self, checkpoint, examples, config):
        self.rounds += 1
        count = len(list(examples))
        print("a library prints this to stdout")
        ACTIONS.get(config.seed, lambda directory: None)(self.directory)
        return Update(
            robot="",
            base_version=checkpoint.version,
            weights={name: np.ones_like(w) for name, w in checkpoint.weights.items()},
            num_examples=count,
            num_steps=config.epochs,
            metrics={
                "rounds": float(self.rounds),
                "pid": float(os.getpid()),
                "nice": float(os.nice(0)),
                "threads": float(os.environ.get("OMP_NUM_THREADS", 0)),
                "total": float(sum(w.sum() for w in checkpoint.weights.values())),
            },
        )

def hang(directory):
    (directory / "hanging").write_text(str(os.getpid()))
    time.sleep(600)

def segfault(directory):
    os.kill(os.getpid(), signal.SIGSEGV)

def leave(directory):
    os._exit(3)

def fail(directory):
    raise ZeroDivisionError(f"secret {directory}")

def scatter(directory):
    """Free 100 MB below a block that stays: they do not go back by themselves."""
    blocks = [bytearray(64_000) for _ in range(1600)]
    KEPT.append(blocks[-1])

class Summing(Trainer):
    """Answers with a group of tensors of its own; knows evaluate()."""

    def fit(self, checkpoint, examples, config):
        update = super().fit(checkpoint, examples, config)
        return replace(update, groups={"sums": {"n": np.full(2, 7, np.float32)}})

    def evaluate(self, checkpoint, examples):
        return Update(
            kind="evaluate", robot="", base_version=checkpoint.version, weights={},
            num_examples=len(list(examples)), num_steps=0, metrics={"loss": 0.5},
        )

ACTIONS, KEPT = {1: hang, 2: segfault, 3: leave, 4: fail, 5: scatter}, []
'''
HANG, SEGFAULT, LEAVE, FAIL, SCATTER = 1, 2, 3, 4, 5
SPEC = TrainerSpec(
    workload=WorkloadSpec(name="image-classifier", config={"labels": ["cup", "fork"]}),
    trainable="head",
    tensors={"head/kernel": TensorSpec(shape=(3, 2)), "head/bias": TensorSpec(shape=(2,))},
    batch_size=4,
    files={},
    parts={},
)
WEIGHTS = {
    "head/kernel": np.arange(6, dtype=np.float32).reshape(3, 2),
    "head/bias": np.float32([0.5, -0.5]),
}


@pytest.fixture
def job(tmp_path, monkeypatch):
    (tmp_path / "some_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)

    def build(seed=0, count=5, spec=SPEC, trainer="some_plugin:Trainer"):
        return TrainingJob(
            trainer=trainer,
            spec=spec,
            directory=tmp_path,
            examples=SourceSpec(name="some_plugin:Store", options={"count": count}),
            checkpoint=Checkpoint(version=7, weights=WEIGHTS),
            config=TrainConfig(epochs=2, seed=seed),
        )

    return build


@pytest.fixture
def process():
    with TrainingProcess(idle_s=30) as started:
        yield started


def eventually(holds):
    deadline = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def alive(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
        return status.rpartition(")")[2].split()[0] != "Z"  # a zombie still has a process id
    except FileNotFoundError:
        return False


def test_an_update_comes_back_whole(process, job):
    update = process.fit(job())
    assert (update.robot, update.base_version) == ("", 7)
    assert (update.num_examples, update.num_steps) == (5, 2)
    assert update.weights.keys() == WEIGHTS.keys()
    for name, tensor in update.weights.items():
        assert np.array_equal(tensor, np.ones_like(WEIGHTS[name]))
        assert tensor.dtype == np.float32
    assert update.metrics["total"] == 15.0


def test_nothing_starts_before_the_first_fit(process):
    assert process.pid is None


def test_it_reports_its_memory_and_that_tensorflow_stayed_out(process, job):
    metrics = process.fit(job()).metrics
    assert 10 < metrics["peak_child_mb"] < 200
    assert metrics["framework_loaded"] == 0


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="of glibc")
def test_what_a_round_has_freed_goes_back_to_the_robot(process, job):
    process.fit(job())
    child = psutil.Process(process.pid)
    before = child.memory_info().rss
    process.fit(job(seed=SCATTER))
    eventually(lambda: child.memory_info().rss < before + 20e6)


def test_it_steps_aside_for_the_robots_own_work(process, job):
    assert process.fit(job()).metrics["nice"] >= os.nice(0) + 10 or os.nice(0) > 9


def test_its_environment_can_be_set(job):
    with TrainingProcess({"OMP_NUM_THREADS": "3"}) as process:
        assert process.fit(job()).metrics["threads"] == 3


def test_the_second_round_meets_a_warm_trainer(process, job):
    first, second = process.fit(job()), process.fit(job())
    assert second.metrics["pid"] == first.metrics["pid"] == process.pid
    assert (first.metrics["rounds"], second.metrics["rounds"]) == (1, 2)


def test_another_trainer_specification_gets_a_new_trainer(process, job):
    process.fit(job())
    other = process.fit(job(spec=SPEC.model_copy(update={"batch_size": 8})))
    assert other.metrics["rounds"] == 1
    assert process.fit(job()).metrics["rounds"] == 1


def test_errors_keep_their_class_and_text(process, job):
    with pytest.raises(FrameError, match=r"^bag lab-1: no frames$"):
        process.fit(job(count=-1))
    with pytest.raises(SettingsError, match="unknown plug-in 'jax'"):
        process.fit(job(trainer="jax"))
    assert process.fit(job()).num_examples == 5


def test_an_unexpected_error_says_its_class_but_no_path(process, job, capfd):
    process.fit(job())
    with pytest.raises(TrainingError) as caught:
        process.fit(job(seed=FAIL))
    assert str(caught.value) == (
        "training failed with ZeroDivisionError; details are in the robot's log"
    )
    assert "ZeroDivisionError: secret" in capfd.readouterr().err
    assert process.fit(job()).metrics["rounds"] == 1  # whatever state it was in is gone


@pytest.mark.parametrize(
    ("seed", "how"),
    [(SEGFAULT, "was killed by SIGSEGV;"), (LEAVE, "ended with exit code 3;")],
)
def test_the_agent_outlives_the_death_of_its_child(process, job, seed, how):
    before = process.fit(job()).metrics["pid"]
    with pytest.raises(TrainingError, match=f"the training process {how} nothing is sent"):
        process.fit(job(seed=seed))
    assert process.pid is None
    after = process.fit(job())
    assert after.metrics["pid"] != before
    assert after.metrics["rounds"] == 1


def test_kill_9_in_the_middle_of_a_round(process, job, tmp_path):
    hanging = tmp_path / "hanging"

    def kill():
        eventually(hanging.exists)
        os.kill(process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(TrainingError, match=r"killed by SIGKILL; out of memory\?"):
        process.fit(job(seed=HANG))
    killer.join()
    assert process.fit(job()).num_examples == 5


def test_kill_9_between_two_rounds_is_an_error_at_most(process, job):
    process.fit(job())
    pid = process.pid
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: process.pid is None)
    assert process.fit(job()).metrics["pid"] != pid


def test_a_round_that_takes_too_long_is_ended(process, job):
    pid = int(process.fit(job()).metrics["pid"])
    with pytest.raises(TrainingError, match=r"was stopped: it took longer than 1\.5 s"):
        process.fit(job(seed=HANG), timeout_s=1.5)
    eventually(lambda: not alive(pid))
    assert process.fit(job(), timeout_s=250).num_examples == 5


@pytest.mark.parametrize("end", [TrainingProcess.cancel, TrainingProcess.close])
def test_cancel_and_close_end_a_round_from_another_thread(process, job, tmp_path, end):
    def stop():
        eventually((tmp_path / "hanging").exists)
        end(process)

    stopper = threading.Thread(target=stop)
    stopper.start()
    with pytest.raises(TrainingError, match="was stopped: it was cancelled"):
        process.fit(job(seed=HANG))
    stopper.join()
    assert process.fit(job()).num_examples == 5


def test_cancel_without_a_round_changes_nothing(process, job):
    process.cancel()
    pid = process.fit(job()).metrics["pid"]
    process.cancel()
    assert process.fit(job()).metrics["pid"] == pid


def test_rest_ends_a_child_that_waits_for_work(process, job):
    pid = int(process.fit(job()).metrics["pid"])
    process.rest()
    assert not alive(pid)
    assert process.fit(job()).metrics["pid"] != pid


def test_rest_lets_a_child_work_on(process, job, tmp_path):
    pids = []

    def rest():
        eventually((tmp_path / "hanging").exists)
        process.rest()
        pids.append(process.pid)
        process.cancel()

    other = threading.Thread(target=rest)
    other.start()
    with pytest.raises(TrainingError, match="was stopped: it was cancelled"):
        process.fit(job(seed=HANG))
    other.join()
    assert pids != [None]


def test_it_ends_when_idle_and_starts_again(job):
    with TrainingProcess(idle_s=0.3) as process:
        first = process.fit(job()).metrics["pid"]
        eventually(lambda: process.pid is None)
        assert process.fit(job()).metrics["pid"] != first


def test_a_job_that_meets_the_idle_end_is_not_lost(job):
    """Jobs arrive around the moment at which the child goes."""
    with TrainingProcess(idle_s=0.05) as process:
        for delay in (0.04, 0.045, 0.05, 0.055, 0.06):
            process.fit(job())
            time.sleep(delay)
            assert process.fit(job()).num_examples == 5


def test_close_ends_the_child(job):
    process = TrainingProcess()
    pid = int(process.fit(job()).metrics["pid"])
    process.close()
    assert not alive(pid)


def test_the_child_ends_in_the_middle_of_a_round_when_its_parent_is_killed(job, tmp_path):
    request = job(seed=HANG)
    program = textwrap.dedent(
        """
        import sys
        sys.path[:0] = [sys.argv[1]]
        from pathlib import Path
        import numpy as np
        from edge_agent.training.training_process import TrainingJob, TrainingProcess
        from edge_agent.examples.source import SourceSpec
        from fleet_model.bundle import TrainerSpec
        from fleet_model.types import Checkpoint, TrainConfig
        TrainingProcess().fit(TrainingJob(
            trainer="some_plugin:Trainer",
            spec=TrainerSpec.model_validate_json(sys.argv[2]),
            directory=Path(sys.argv[1]),
            examples=SourceSpec(name="some_plugin:Store", options={"count": 1}),
            checkpoint=Checkpoint(version=0, weights={"w": np.zeros(2, np.float32)}),
            config=TrainConfig(seed=1),
        ))
        """
    )
    arguments = [str(tmp_path), request.spec.model_dump_json()]
    parent = subprocess.Popen([sys.executable, "-c", program, *arguments])
    hanging = tmp_path / "hanging"
    eventually(lambda: hanging.exists() and hanging.read_text())
    child = int(hanging.read_text())
    assert alive(child)
    parent.kill()
    parent.wait()
    eventually(lambda: not alive(child))


def test_the_parents_side_imports_nothing_heavy():
    program = (
        "import sys, edge_agent.training.training_process\n"
        "heavy = {'cv2', 'ai_edge_litert', 'tensorflow', 'keras', 'safetensors', 'flwr', 'torch'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_request_to_measure_reaches_a_trainer_that_can(process, job):
    asked = replace(job(trainer="some_plugin:Summing"), kind="evaluate")
    told = process.fit(asked)
    assert (told.kind, told.base_version, told.num_examples) == ("evaluate", 7, 5)
    assert dict(told.weights) == {}
    assert told.metrics == {"loss": 0.5, "held_out": 5.0, "labels": 1.0}
    assert sum(told.label_counts) == 5


def test_a_trainer_that_cannot_measure_is_named(process, job):
    with pytest.raises(TrainingError, match="some_plugin:Trainer cannot measure"):
        process.fit(replace(job(), kind="evaluate"))


def test_a_kind_that_is_not_known_is_named(process, job):
    with pytest.raises(UpdateError, match="'calibrate', only train, evaluate, sums, profile: "):
        process.fit(replace(job(), kind="calibrate"))


def test_further_groups_of_tensors_come_back(process, job):
    update = process.fit(job(trainer="some_plugin:Summing"))
    np.testing.assert_array_equal(update.groups["sums"]["n"], np.float32([7, 7]))
    np.testing.assert_array_equal(update.weights["head/bias"], np.float32([1, 1]))


def test_a_child_logs_as_the_agent_does_and_a_warning_once():
    code = (
        "import logging; from edge_agent.training.training_process import log_as_the_agent\n"
        "log_as_the_agent(); log = logging.getLogger('edge_agent.x')\n"
        "for _ in range(3): log.warning('too %s', 'short'); log.error('again')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told = [line.split(" ", 2)[2] for line in done.stderr.splitlines()]
    assert told == ["WARNING too short", "ERROR again", "ERROR again", "ERROR again"]
