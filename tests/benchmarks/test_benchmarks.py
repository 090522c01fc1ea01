"""The parts of the benchmarks that can be wrong without anyone noticing."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks import (
    environments,
    fleets,
    lean_robots,
    measure,
    recovery,
    robot_cost,
    round_time,
    server_memory,
    services,
    startup,
)
from benchmarks.measure import Comparison, Limit, Result
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import load_settings
from fleet_model.bundle import parse_trainer
from fleet_model.protocol.wire import RobotRequest, pack_request, unpack_update
from fleet_model.types import Checkpoint, TrainConfig

ROOT = Path(__file__).resolve().parents[2]


def example() -> Result:
    return Result(
        benchmark="example",
        comparisons=[
            Comparison("round_time", "s", 1.0, 6.0, 5),
            Comparison("idle", "MB", 4.0, 2.0),
        ],
        figures={"ours_s": 1.23456, "update_bytes": 20496.0},
        limits=[Limit("update_bytes", 20_000)],
    )


def test_a_ratio_above_one_means_that_ours_is_better():
    answer = json.loads(measure.json_line(example()))
    assert answer["benchmark"] == "example"
    assert answer["ratios"] == {"round_time": 6.0, "idle": 0.5}


def test_figures_keep_four_significant_digits():
    answer = json.loads(measure.json_line(example()))
    assert answer["figures"] == {"ours_s": 1.235, "update_bytes": 20500.0}


def test_the_table_says_what_holds_and_what_does_not():
    text = measure.lines(example())
    (kept,) = [line for line in text if line.startswith("round_time")]
    assert kept.split() == ["round_time", "s", "1", "6", "6.0", "5", "ok"]
    (plain,) = [line for line in text if line.startswith("idle")]
    assert plain.split() == ["idle", "MB", "4", "2", "0.5"]
    assert text[-1] == "  update_bytes <= 20000: MISSED"


def test_a_median_of_nothing_is_an_error():
    assert measure.median([3.0, 1.0, 2.0]) == 2.0
    with pytest.raises(ValueError, match="nothing was measured"):
        measure.median([])


def test_memory_is_that_of_the_whole_process_tree():
    child = "import time; held = bytearray(50_000_000); print('up', flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        with measure.memory_samples(process.pid) as samples:
            time.sleep(0.05)
        assert 50 < max(samples) < 90
        assert measure.tree_pss_mb(process.pid) > 50
    finally:
        for one in [*psutil.Process(process.pid).children(recursive=True), process]:
            one.kill()
        process.wait()
        process.stdout.close()
    assert measure.tree_pss_mb(process.pid) == 0


def test_anonymous_memory_does_not_change_when_another_process_ends(tmp_path):
    """Both map a file of 50 MB: half of it counts for each, and all of it for who is left."""
    file = tmp_path / "library"
    file.write_bytes(bytes(50_000_000))
    code = (
        "import mmap, sys; held = bytearray(20_000_000);"
        "file = open(sys.argv[1]); m = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ);"
        "sum(m[::4096]); print('up', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    stays, ends = both = [
        subprocess.Popen([sys.executable, "-c", code, file], **pipes) for _ in range(2)
    ]
    for process in both:
        assert process.stdout.readline() == b"up\n"
    shared, before = measure.tree_pss_mb(stays.pid), measure.tree_anonymous_mb(stays.pid)
    ends.communicate()
    alone, after = measure.tree_pss_mb(stays.pid), measure.tree_anonymous_mb(stays.pid)
    stays.communicate()
    assert alone - shared > 20
    assert 20 < before < 40
    assert after == pytest.approx(before, abs=1)


def test_waiting_ends_with_an_error_that_names_what_did_not_happen():
    with pytest.raises(TimeoutError, match="the moon"):
        measure.wait_until("the moon", lambda: False, patience_s=0.05, step_s=0.01)


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_services_end_with_the_children_they_have_started(tmp_path):
    orphan = (
        "import subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(child.pid, flush=True); time.sleep(60)"
    )
    with services.Services(tmp_path) as running:
        running.start("parent", [sys.executable, "-c", orphan])
        log = tmp_path / "parent.log"
        running.wait("the child's start", lambda: log.read_text().endswith("\n"))
        child = psutil.Process(int(log.read_text()))
    measure.wait_until("its end", lambda: has_ended(child), patience_s=10, step_s=0.01)


def test_a_service_that_ended_is_named_with_its_last_words(tmp_path):
    with services.Services(tmp_path) as running:
        running.start("server", [sys.executable, "-c", "raise SystemExit('no port')"])
        with pytest.raises(RuntimeError, match=r"server ended with exit code 1:\nno port"):
            running.wait("anything", lambda: False)


def test_a_fresh_message_is_timed_from_its_process_start(tmp_path):
    stamps = tmp_path / "steps.txt"
    stamps.write_text(
        "7 100.0 109.0\n7 100.0 109.5\n"  # the message whose memory was sampled
        "8 200.0 202.0\n8 200.0 202.002\n8 200.0 202.004\n8 200.0 202.5\n"
    )
    assert robot_cost.step_times(stamps) == {
        "new_frames_s": pytest.approx(9.0),
        "start_to_first_step_s": pytest.approx(2.0),
        "step_ms": pytest.approx(2.0),  # the pause of 0.5 s is no step
    }


def test_our_optimizer_steps_are_stamped_from_outside(tmp_path):
    stamps = tmp_path / "steps.txt"
    code = (
        "from fleet_model.optimizer import step, still; from fleet_model.types import TrainConfig; "
        "import numpy as np; w = {'w': np.ones(2, np.float32)}; "
        "[step(w, still(w), w, w, TrainConfig()) for _ in range(3)]"
    )
    path = f"{ROOT / 'benchmarks' / 'step_stamps'}:{ROOT}"
    begin = measure.boot_time_s()
    subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": path, "STEP_STAMPS": str(stamps)},
        check=True,
    )
    ((start, ends),) = robot_cost.read_stamps(stamps)
    assert begin - 0.02 <= start < ends[0] < ends[1] < ends[2] < measure.boot_time_s()


def test_rounds_last_from_closing_to_closing_and_the_first_is_start_up():
    times = round_time.times_of([10.0, 14.0, 15.0, 17.0])
    assert times.startup_s == 4.0
    assert list(times.rounds_s) == [1.0, 2.0]


def test_an_arm_that_quick_leaves_out_is_in_no_ratio():
    one = [round_time.Times(4.0, [1.0, 2.0, 3.0])]
    peer = [round_time.Times(20.0, [11.0, 13.0])]
    answer = round_time.result({"ours": one, "stock": peer, "stock_evaluate": []})
    assert {c.key: c.ratio for c in answer.comparisons} == {"round_time": 6.0, "startup": 5.0}
    assert answer.figures["ours_round_s"] == 2.0


def test_the_server_without_tensorflow_is_a_whole_server_directory(tmp_path):
    server_dir = ServerDirectory(tmp_path / "server")
    round_time.make_server(server_dir, 4711)
    server_dir.require()
    spec = parse_trainer((server_dir.model / "trainer.json").read_bytes())
    weights = Checkpoints(server_dir.checkpoints).latest().weights
    assert {name: tensor.shape for name, tensor in weights.items()} == {
        name: tensor.shape for name, tensor in spec.tensors.items()
    }
    assert sum(tensor.nbytes for tensor in weights.values()) == 1_000_000


def test_a_copied_server_directory_moves_to_another_port(tmp_path):
    server_dir = ServerDirectory(tmp_path / "server")
    round_time.make_server(server_dir, 4711)
    fleets.move(server_dir.root, 4712)
    assert load_settings(server_dir.settings, {}).network.port == 4712
    assert 'address = "127.0.0.1:4712"' in (server_dir.kit / "kit.toml").read_text()


def test_the_size_of_an_environment_counts_files_once_and_no_bytecode(tmp_path):
    packages = tmp_path / "lib" / "python3.11" / "site-packages" / "thing"
    (packages / "__pycache__").mkdir(parents=True)
    (packages / "thing.py").write_bytes(b"x" * 1_500_000)
    (packages / "__pycache__" / "thing.cpython-311.pyc").write_bytes(b"x" * 900_000)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").write_bytes(b"x" * 500_000)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    made = environments.Environment(tmp_path)
    assert made.size_mb() == 2.0
    assert made.uv_mb() == 0.5


def test_environments_are_made_anew_when_a_requirement_changes(tmp_path):
    file = tmp_path / "constraints.txt"
    file.write_text("numpy==2.0\n")
    first = environments.digest([file], ".[agent]")
    assert first == environments.digest([file], ".[agent]")
    assert first != environments.digest([file], ".[keras]")
    file.write_text("numpy==2.1\n")
    assert first != environments.digest([file], ".[agent]")


def test_startup_compares_the_two_sides():
    answer = startup.result(
        {"edge-agent": [1.0], "flower-supernode": [5.0], "cloud-server": [2.0], "flwr": [6.0]}
    )
    assert {c.key: c.ratio for c in answer.comparisons} == {"robot_help": 5.0, "server_help": 3.0}


def test_memory_that_grows_with_robots_is_a_missed_limit():
    figures = {
        "ours_2_mb": 100.0, "flower_2_mb": 200.0,
        "ours_8_mb": 104.0, "flower_8_mb": 300.0,
    }  # fmt: skip
    answer = server_memory.result(figures, (2, 8))
    assert answer.figures["growth"] == pytest.approx(0.04)
    assert answer.figures["growth_flower"] == pytest.approx(0.5)
    assert [c.ratio for c in answer.comparisons] == [2.0, pytest.approx(300 / 104)]
    assert measure.lines(answer)[-1].endswith("ok")
    answer = server_memory.result({**figures, "ours_8_mb": 120.0}, (2, 8))
    assert measure.lines(answer)[-1].endswith("MISSED")


def test_no_two_updates_of_lean_robots_share_an_object():
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

    checkpoint = Checkpoint(version=1, weights={"tensor": np.zeros(3_000_000, np.float32)})
    request = RobotRequest(
        run="run", round=1, checkpoint=checkpoint, config=TrainConfig(), trainer="0" * 64,
        trainer_bytes=1, deadline_s=60.0,
    )  # fmt: skip
    chunks: list[str] = []
    for number in (0, 1):
        for answered in (1, 2):
            content = lean_robots.update_of(number, answered, pack_request(request))
            update = unpack_update(content, "r")
            assert (update.num_examples, update.base_version) == (1, 1)
            objects = get_all_nested_objects(content)
            chunks += [name for name, one in objects.items() if len(one.deflate()) > 1_000_000]
    assert len(chunks) == 4 * 3  # 12 MB in pieces of 5 MB
    assert len(set(chunks)) == len(chunks)


def test_a_stock_server_that_never_came_back_is_in_no_ratio():
    mine = recovery.Ending([3.0, 4.0, 5.0], [9.0, 2.0], lost=0)
    answer = recovery.result({"ours": mine, "stock": recovery.Ending([], [9.0, 8.0], lost=7)})
    assert answer.comparisons == []
    assert answer.figures == {
        "recovery_s": 4.0, "round_s": 2.0, "rounds_lost": 0.0, "flower_rounds_lost": 7.0,
    }  # fmt: skip
    stock = recovery.Ending([40.0, 60.0, 20.0], [9.0, 8.0], lost=0)
    answer = recovery.result({"ours": mine, "stock": stock})
    assert [c.ratio for c in answer.comparisons] == [10.0]


def quick(name):
    """Run a benchmark shortly; return its line of JSON."""
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["benchmark"] == name
    return answer


@pytest.mark.slow
@pytest.mark.soak  # test_simulate.py runs one benchmark in `make test`
def test_startup_ends_with_one_line_of_json():
    answer = quick("startup")
    assert set(answer["ratios"]) == {"robot_help", "server_help"}
    assert all(value > 1 for value in answer["ratios"].values())
    assert set(answer["figures"]) == {
        "edge_agent_help_s", "flower_supernode_help_s", "cloud_server_help_s", "flwr_help_s",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.soak
def test_server_memory_ends_with_one_line_of_json():
    answer = quick("server_memory")
    assert set(answer["ratios"]) == {"server_memory_2", "server_memory_8"}
    assert all(value > 1 for value in answer["ratios"].values())
    assert set(answer["figures"]) == {
        "ours_2_mb", "flower_2_mb", "ours_8_mb", "flower_8_mb", "growth", "growth_flower",
    }  # fmt: skip
    assert answer["figures"]["growth"] < answer["figures"]["growth_flower"]


@pytest.mark.slow
@pytest.mark.soak
def test_recovery_ends_with_one_line_of_json():
    answer = quick("recovery")
    assert set(answer["ratios"]) <= {"recovery"}  # unless stock Flower has not come back
    figures = answer["figures"]
    assert {"recovery_s", "round_s", "rounds_lost", "flower_rounds_lost"} <= set(figures)
    assert figures["rounds_lost"] == 0
    assert 0 < figures["recovery_s"] < 60


@pytest.mark.slow
@pytest.mark.soak
def test_deploy_ends_with_one_line_of_json():
    answer = quick("deploy")
    assert set(answer["ratios"]) == {
        "publish_to_answer", "swap_pause", "publish_bytes", "poll_bytes", "poll_time",
    }  # fmt: skip
    figures = answer["figures"]
    assert 0 < figures["publish_to_active_s"] < figures["publish_to_answer_s"] < 60
    assert figures["publish_bytes"] < 200_000 < 10e6 < figures["plain_publish_bytes"]
    assert 300 < figures["poll_bytes"] < figures["training_poll_bytes"]
