"""The console of a real server, over TLS: who gets in, what pages say, what buttons do."""

import json
import re
import subprocess
import sys

import pytest
from console_client import Browser

from cloud_server.cli.admin_client import AdminClient
from cloud_server.robots.register import Register
from fleet_model.errors import RoundError
from fleet_model.protocol.proof import make_key, read_key, sign, utc_now
from fleet_model.protocol.routes import ADMIN, CONSOLE_LINK, HELLO, ROBOT, RUNS, STATUS

MARKUP = "<script>alert(\"x\")</script><b title='y'>"
PAGES = ("/console", "/console/runs", "/console/models", "/console/sites", "/console/do/run")


@pytest.fixture(scope="module")
def make_browser(running_server):
    made = []

    def make():
        made.append(Browser(running_server))
        return made[-1]

    yield make
    for one in made:
        one.client.close()


@pytest.fixture(scope="module")
def closed(make_browser):
    """Look at pages before anybody has asked for a link."""
    stranger = make_browser()
    return {path: stranger.get(path) for path in (*PAGES, "/console/login", "/console/static/x")}


@pytest.fixture(scope="module")
def browser(make_browser, closed):
    one = make_browser()
    answer = one.log_in()
    assert (answer.status_code, answer.headers["location"]) == (303, "/console")
    return one


def test_before_a_link_was_made_there_is_nothing_to_see(closed):
    assert {answer.status_code for answer in closed.values()} == {401}
    assert all(answer.headers["content-type"] == "application/json" for answer in closed.values())


@pytest.mark.parametrize("path", [*PAGES, "/console/robots/r1", "/console/runs/x"])
def test_without_a_session_pages_show_the_login(browser, make_browser, path):
    answer = make_browser().get(path)
    assert answer.status_code == 401
    assert "cloud-server web DIR" in answer.text
    assert "<nav" not in answer.text
    assert make_browser().post("/console/do/run", {"rounds": "1"}).status_code == 401


def test_a_link_works_once_and_only_looking_at_it_does_not_use_it_up(browser, make_browser):
    link = AdminClient(browser.server_dir).console_link()
    one, other = make_browser(), make_browser()
    assert one.get(link).status_code == other.get(link).status_code == 200
    answer = one.log_in(link)
    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 303
    assert "; Secure; HttpOnly; SameSite=Strict" in cookie
    again = other.log_in(link)
    assert again.status_code == 403
    assert "was used" in again.text
    assert "set-cookie" not in again.headers
    assert other.get("/console").status_code == 401


def test_a_session_opens_neither_the_operators_routes_nor_flower(browser):
    for path in (ADMIN + STATUS, ADMIN + RUNS, "/metrics", "/docs", "/openapi.json"):
        assert browser.get(path).status_code == 401, path
    assert browser.post(ADMIN + CONSOLE_LINK, {}).status_code == 401
    assert browser.post("/v1/control/list-runs", {}).status_code == 401


def test_a_robots_key_opens_no_page(browser, make_browser, running_server, tmp_path):
    line = make_key(tmp_path / "robot.key")
    Register(running_server.server_dir.robots).add("keyholder", "hall", line)
    key = read_key(tmp_path / "robot.key")
    robot = make_browser()
    hello = ROBOT + HELLO
    assert robot.client.post(hello, headers=sign(key, "POST", hello, utc_now())).status_code == 200
    for path in PAGES:
        assert robot.get(path, headers=sign(key, "GET", path, utc_now())).status_code == 401


def test_every_answer_forbids_scripts_in_markup_and_frames(browser, make_browser):
    answers = [browser.get(path) for path in PAGES]
    answers += [make_browser().get("/console"), browser.get("/console/static/console.js")]
    answers += [browser.get("/console/runs/none"), browser.post("/console/do/run", {})]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        if answer.headers["content-type"].startswith("text/html"):
            assert not re.search(r"<script(?! defer src=)|<style|\sstyle=|\son\w+=", answer.text)


def test_no_page_holds_a_secret(browser):
    server_dir = browser.server_dir
    admin = server_dir.admin_token.read_text().strip()
    session = browser.client.cookies.jar
    secrets = [admin, *(one.value for one in session)]
    for path in PAGES:
        text = browser.get(path).text
        assert not any(secret in text for secret in secrets)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"content-type": "text/plain"},
    ],
)
def test_a_form_of_another_site_does_nothing(browser, headers):
    values = {"token": browser.token(), "rounds": "1"}
    assert browser.post("/console/do/run", values, **headers).status_code in (403, 415)
    assert AdminClient(browser.server_dir).runs() == []


def test_a_form_without_its_token_or_origin_does_nothing(browser, make_browser):
    other = make_browser()
    other.log_in()
    for values in ({}, {"token": ""}, {"token": "x"}, {"token": other.token()}):
        answer = browser.post("/console/do/run", values | {"rounds": "1"})
        assert answer.status_code == 403, values
    values = {"rounds": "1", "token": browser.token()}
    assert browser.client.post("/console/do/run", data=values).status_code == 403
    assert AdminClient(browser.server_dir).runs() == []


def test_what_others_have_said_is_text(browser, running_server, tmp_path):
    register = Register(running_server.server_dir.robots)
    register.add("marked", "hall", make_key(tmp_path / "robot.key"))
    register.suspend("marked", MARKUP)
    for path in ("/console", "/console/robots/marked", "/console/do/approve?robot=marked"):
        text = wait_for(browser, path, "&lt;script&gt;")
        assert MARKUP not in text
        assert "<script>alert" not in text
    for path in ("/console?q=<script>", "/console?state=<b>", f"/console/runs/{'<b>'}"):
        assert "<b>" not in browser.get(path).text.replace("<b>fleetlearn</b>", "")


def wait_for(browser, path, words):
    """Return a page once it says so: the server's state is looked at once a second."""
    for _ in range(2000):
        text = browser.get(path).text
        if words in text:
            return text
    raise AssertionError(text)


def test_approving_names_the_robot_and_then_lets_it_in(browser, running_server, tmp_path):
    register = Register(running_server.server_dir.robots)
    register.add("newcomer", "dock", make_key(tmp_path / "robot.key"), pending=True)
    asked = browser.get("/console/do/approve?robot=newcomer")
    assert "Robot newcomer of site dock is pending" in asked.text
    answer = browser.press("approve", robot="newcomer")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/robots/newcomer")
    assert register.by_name("newcomer").state == "approved"
    shown = browser.get("/console/robots/newcomer").text
    assert "robot newcomer is approved" in shown
    assert "robot newcomer is approved" not in browser.get("/console/robots/newcomer").text
    again = browser.get("/console/do/approve?robot=newcomer")
    assert again.status_code == 409
    assert "approved already" in again.text


def test_a_button_that_does_not_fit_says_why_and_does_nothing(browser):
    assert browser.get("/console/do/approve?robot=nobody").status_code == 409
    assert browser.get("/console/do/nothing").status_code == 404
    for button, values, why in (
        ("run", {"rounds": "-1"}, "expected rounds, 1 to 10000"),
        ("run", {"rounds": "٣"}, "expected rounds"),
        ("publish", {"version": "1"}, "published already"),
        ("promote", {"version": "77", "channel": "stable"}, "77"),
        (
            "promote",
            {"version": "0", "channel": "stable", "groups": "5%,5%"},
            "the last group is not",
        ),
        ("rollback", {"version": "0", "lineage": "../.."}, "no channel"),
        ("rollout-abort", {"channel": "stable"}, "rollout"),
        ("stop", {"run": "none"}, "there is no run none"),
    ):
        answer = browser.press(button, **values)
        assert answer.status_code == 409, (button, answer.text)
        assert why.casefold() in answer.text.casefold(), (button, answer.text)
    assert AdminClient(browser.server_dir).runs() == []


def test_models_say_which_channel_offers_them(browser):
    (row,) = re.findall(
        r'<tr role="row"><th scope="row".*?</tr>', browser.get("/console/models").text, re.S
    )
    assert re.findall(r">([^<>]+)</", row)[:3] == ["1", "published", "stable"]
    shown = browser.get("/console/models/1?lineage=").text
    assert "/console/do/rollback?version=1&amp;lineage=" in shown
    asked = browser.get("/console/do/rollback?version=1&lineage=").text
    assert "All robots on channel stable get the weights of version 1 again" in asked


def test_a_path_in_another_spelling_and_a_long_form_are_refused(browser):
    assert browser.get("/console/%72uns").status_code == 401
    assert browser.get("/console/robots/../runs/..%2f..%2ffleetlearn").status_code in (401, 404)
    long = {"token": browser.token(), "rounds": "1" * 20_000}
    assert browser.post("/console/do/run", long).status_code == 413


def test_pages_that_are_not_there(browser):
    for path in ("robots/nobody", "runs/nobody", "models/77", "models/x", "do/x", "static/x"):
        assert browser.get(f"/console/{path}").status_code == 404, path


def test_a_run_is_started_and_its_page_says_why_it_failed(browser):
    answer = browser.press("run", rounds="2")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/runs")
    (run,) = AdminClient(browser.server_dir).runs()
    assert run["rounds"] == 2
    shown = wait_for(browser, f"/console/runs/{run['id']}", "expected at least 2")
    assert re.search(f"cloud-server robots (list|approve) {browser.server_dir.root}", shown)
    assert run["id"] in browser.get("/console/runs").text


def test_logging_out_and_ending_all_sessions(browser, make_browser):
    one = make_browser()
    one.log_in()
    token = one.token()
    kept = one.client.cookies.jar
    cookie = "; ".join(f"{c.name}={c.value}" for c in kept)
    assert one.post("/console/logout", {"token": "x"}).status_code == 403
    assert one.post("/console/logout", {"token": token}).status_code == 303
    assert one.get("/console", headers={"cookie": cookie}).status_code == 401


def test_the_operator_ends_all_sessions_and_closes_the_console(running_server, make_browser):
    one = make_browser()
    one.log_in()
    assert AdminClient(running_server.server_dir).end_console_sessions() >= 1
    answer = one.get("/console")
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/json"


def test_the_command_prints_a_link_and_ends_sessions(running_server, make_browser):
    def typed(*words):
        program = [sys.executable, "-m", "cloud_server.cli", "web", running_server.server_dir.root]
        done = subprocess.run([*program, *words], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    one = make_browser()
    assert one.log_in(typed("--json")["url"]).status_code == 303
    assert typed("--json", "--end-sessions")["ended"] >= 1
    assert one.get("/console").status_code == 401


def test_a_server_without_a_console_is_told_in_words(running_server, monkeypatch):
    client = AdminClient(running_server.server_dir)
    monkeypatch.setattr("cloud_server.cli.admin_client.CONSOLE_LINK", "/no-such-route")
    with pytest.raises(RoundError, match="has no console"):
        client.console_link()
