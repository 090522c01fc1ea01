"""The end of the demo: what each robot made of the good model and of the planted one."""

import importlib
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from fleet_model.types import Checkpoint

DEMO = Path(__file__).parents[2] / "deploy" / "demo"
GOOD = {"version": 5, "state": "confirmed", "before": 0.25, "after": 0.92, "examples": 40}
BAD = {
    "version": 6, "state": "refused", "why": "worse", "before": 0.92, "after": 0.04, "examples": 40,
}  # fmt: skip
KEPT = """
import sys, time
from pathlib import Path
from real_fleet import Demo

class Fleet(Demo):
    def show_console(self):
        print("link", flush=True)

fleet, log = Fleet(Path(sys.argv[1]), 1, (), ()), Path(sys.argv[1]) / "logs" / "robot.log"
fleet.background("robot", "python", "-c", sys.argv[2])
while not log.exists() or not log.read_text():
    time.sleep(0.01)
print(fleet.keep())
"""
SERVICE = """
import signal, sys, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: sys.exit(0))
print("up", flush=True)
time.sleep(60)
"""
CHECK = "every robot confirmed it, and refused a planted bad one by its own frames"


@pytest.fixture
def demo(monkeypatch):
    """Return a function that imports a file of the demo as demo.py finds it."""
    monkeypatch.syspath_prepend(str(DEMO))
    return importlib.import_module


def ended(*trials):
    """Return a summary of two robots, the second of which has these trials."""
    robots = [
        {
            "name": name, "trials": list(tried), "active_version": 5, "bytes_up_per_round": 1,
            "bytes_down_per_publish": 1, "idle_mb": 1, "peak_rss_mb": 1, "framework_loaded": False,
        }
        for name, tried in (("r1", (GOOD, BAD)), ("r2", trials))
    ]  # fmt: skip
    unseen = {"accuracy_after": 0.9, "single_robot_mean": 0.6}
    return {"robots": robots, "unseen": unseen, "published_version": 5, "planted_version": 6}


def test_ten_things_hold_when_every_robot_has_refused_the_planted_model(demo):
    results = demo("summary").checks(ended(GOOD, BAD), {"server": 0})
    assert len(results) == 10
    assert all(results.values())


@pytest.mark.parametrize(
    "trials",
    [
        (GOOD, {**BAD, "state": "probation", "why": ""}),
        (GOOD, {**BAD, "why": "slower"}),
        (GOOD,),
        ({**GOOD, "state": "probation"}, BAD),
    ],
)
def test_a_robot_that_took_it_or_refused_it_for_another_reason_fails_the_demo(demo, trials):
    assert not demo("summary").checks(ended(*trials), {"server": 0})[CHECK]


def test_the_table_says_who_confirmed_and_who_refused_and_why(demo):
    console = Console(width=80, file=StringIO())
    crashed = {"version": 6, "state": "refused", "why": "crashed"}
    console.print(demo("summary").trials_table(ended(GOOD, crashed)))
    lines = console.file.getvalue().splitlines()
    rows = [line.split("│") for line in lines if "│" in line]
    assert [[cell.strip() for cell in row[1:-1]] for row in rows] == [
        ["r1", "5", "confirmed, 0.25 -> 0.92", "refused: worse, 0.92 -> 0.04"],
        ["r2", "5", "confirmed, 0.25 -> 0.92", "refused: crashed, - -> -"],
    ]


def test_the_planted_model_answers_every_label_for_another_one(demo, tmp_path, monkeypatch, capsys):
    checkpoints = Checkpoints(ServerDirectory(tmp_path).checkpoints)
    weights = {"head/kernel": np.eye(3, dtype=np.float32), "head/bias": np.arange(3.0)}
    checkpoints.save(Checkpoint(version=4, weights=weights))
    monkeypatch.setattr(sys, "argv", ["bad_model.py", str(tmp_path)])
    demo("bad_model").main()
    assert capsys.readouterr().out == "5\n"
    planted = checkpoints.load(5).weights
    assert (np.eye(3) @ planted["head/kernel"]).argmax(1).tolist() == [1, 2, 0]
    assert planted["head/bias"].tolist() == [2.0, 0.0, 1.0]
    assert checkpoints.load(4).weights["head/bias"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_kept_fleet_goes_on_until_the_signal_and_then_ends_cleanly(number, tmp_path):
    program = [sys.executable, "-c", KEPT, tmp_path, SERVICE]
    with subprocess.Popen(program, cwd=DEMO, stdout=subprocess.PIPE, text=True) as kept:
        assert kept.stdout.readline() == "link\n"
        with pytest.raises(subprocess.TimeoutExpired):
            kept.wait(1)
        kept.send_signal(number)
        assert kept.stdout.read() == "{'robot': 0}\n"
    assert kept.returncode == 0


def test_a_kept_fleet_ends_with_a_service_that_has_crashed(tmp_path):
    crash = "print('up', flush=True); raise SystemExit(3)"
    program = [sys.executable, "-c", KEPT, tmp_path, crash]
    done = subprocess.run(program, cwd=DEMO, capture_output=True, text=True, timeout=60)
    assert done.stdout == "link\n{'robot': 3}\n"
    assert "a service has ended" in done.stderr
