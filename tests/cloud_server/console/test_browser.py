"""An operator in headless Chromium: follows the link, approves a robot, starts a run, logs out."""

from headless_browser import IN_BROWSER, VISIT, told_by

from cloud_server.cli.admin_client import AdminClient
from cloud_server.robots.register import Register
from fleet_model.protocol.proof import make_key

MARKUP = "<img src=x onerror=alert(1)>"

pytestmark = IN_BROWSER


def test_an_operator_approves_a_robot_and_starts_a_run(running_server, tmp_path):
    server_dir = running_server.server_dir
    register = Register(server_dir.robots)
    for name in ("r1", "r2", "r3"):
        register.add(name, "hall", make_key(tmp_path / f"{name}.key"), pending=name == "r3")
    register.suspend("r2", MARKUP)
    link = AdminClient(server_dir).console_link()
    told = told_by(VISIT, link, tmp_path, "failed")
    assert told["robots"] == ["r1", "r2", "r3"]
    assert told["pending"] == ["r3"]
    assert "Robot r3 of site hall is pending" in told["will"]
    assert told["done"] == "robot r3 is approved"
    assert register.by_name("r3").state == "approved"
    assert any("r3 waits for approval" in line for line in told["before"])
    assert any("r2 is suspended" in line for line in told["after approval"])
    assert not any("r3 waits" in line for line in told["after approval"])
    (run,) = AdminClient(server_dir).runs()
    assert told["begun"] == f"run {run['id']} has begun"
    assert run["rounds"] == 2
    assert "expected at least 2" in told["why"]
    assert "You are not logged in here" in told["after"]
    # The page that says so has status 401, which the browser writes down.
    assert [one for one in told["complaints"] if "401" not in one] == []
    assert all(url.startswith(f"https://{running_server.address}/") for url in told["asked"])
    assert not any(told["axe"].values()), told["axe"]
    assert all(wide <= 0 for wide in told["too wide"].values()), told["too wide"]
    for name in ("run", "fleet", "start"):
        assert (tmp_path / f"{name}-phone.png").stat().st_size > 1000
