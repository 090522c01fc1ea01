"""Two robots learn in a run that an operator has started by clicking in headless Chromium."""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BROWSER = ROOT / ".venv-browser"
VISIT = ROOT / "tests" / "cloud_server" / "console" / "visit.py"
PATIENCE_S = 1500.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.soak,
    pytest.mark.browser,
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        not list(BROWSER.glob("chromium/usr/lib/chromium*/chromium-headless-shell")),
        reason="make .venv-browser/.installed fetches Chromium; it is not there",
    ),
]


def test_a_run_of_two_robots_is_started_and_followed_in_the_browser(fleet, tmp_path):
    fleet.init()
    fleet.start_server()
    for robot in ("hall-1/r1", "hall-2/r1"):
        fleet.add_robot(robot.replace("/", "-"), "--examples", fleet.bag(robot), site="hall")
    fleet.add_robot("newcomer", "--no-train", site="dock", run=False)
    fleet.type("cloud-server", "robots", "forget", fleet.server, "newcomer")
    key = fleet.root / "robots" / "newcomer" / "robot.pub"
    words = ("cloud-server", "robots", "add", fleet.server, "newcomer", "--key", key, "--pending")
    fleet.type(*words)
    fleet.wait("both robots", lambda: fleet.online() == {"hall-1-r1", "hall-2-r1"})
    link = json.loads(fleet.type("cloud-server", "web", fleet.server, "--json").stdout)["url"]
    program = [BROWSER / "bin" / "python", VISIT, link, tmp_path, "finished"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told["done"] == "robot newcomer is approved"
    assert told["outcomes"] == ["accepted", "accepted"]
    assert told["rounds"] == ["Round 2", "Round 1"]
    assert told["charts"] == 2
    assert [one for one in told["complaints"] if "401" not in one] == []
    assert not any(told["axe"].values()), told["axe"]
    (run,) = fleet.admin().runs()
    assert (run["state"], run["rounds_closed"]) == ("finished", 2)
