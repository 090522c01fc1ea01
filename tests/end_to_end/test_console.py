"""Two robots learn in a run that an operator has started by clicking in headless Chromium."""

import json

import pytest
from headless_browser import IN_BROWSER, VISIT, told_by

PATIENCE_S = 1500.0

pytestmark = [*IN_BROWSER, pytest.mark.soak, pytest.mark.tensorflow]


def test_a_run_of_two_robots_is_started_and_followed_in_the_browser(fleet, tmp_path):
    fleet.init()
    fleet.start_server()
    for robot in ("hall-1/r1", "hall-2/r1"):
        fleet.add_robot(robot.replace("/", "-"), "--examples", fleet.bag(robot), site="hall")
    fleet.add_robot("newcomer", "--no-train", site="dock", run=False)
    fleet.type("cloud-server", "robots", "forget", fleet.server, "newcomer")
    key = fleet.root / "robots" / "newcomer" / "robot.pub"
    words = ("cloud-server", "robots", "add", fleet.server, "newcomer", "--key", key)
    fleet.type(*words, "--site", "dock", "--pending")
    fleet.wait("both robots", lambda: fleet.online() == {"hall-1-r1", "hall-2-r1"})
    link = json.loads(fleet.type("cloud-server", "web", fleet.server, "--json").stdout)["url"]
    told = told_by(VISIT, link, tmp_path, "finished", patience_s=PATIENCE_S)
    assert told["done"] == "robot newcomer is approved"
    assert told["outcomes"] == ["accepted", "accepted"]
    assert told["rounds"] == ["Round 2", "Round 1"]
    assert told["charts"] == 2
    assert [one for one in told["complaints"] if "401" not in one] == []
    assert not any(told["axe"].values()), told["axe"]
    (run,) = fleet.admin().runs()
    assert (run["state"], run["rounds_closed"]) == ("finished", 2)
