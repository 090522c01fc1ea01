"""The SDK's own client talks to `cloud-server mcp`, a real process, about a running server."""

import json


def test_over_stdio_a_client_reads_all_of_a_fleet_and_can_change_nothing(
    fleet, session, over_stdio, said
):
    async def use(client):
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} == {
            "fleet_status", "list_robots", "get_robot", "list_runs", "get_run", "get_round",
            "compare_runs", "list_models", "get_model", "compare_models",
        }  # fmt: skip
        assert all(tool.annotations.read_only_hint for tool in tools)
        assert not any(tool.annotations.destructive_hint for tool in tools)
        asked = {
            "fleet_status": {},
            "list_robots": {},
            "get_robot": {"name": "r1"},
            "list_runs": {},
            "get_run": {"run": "20260101-120000"},
            "get_round": {"run": "20260101-120000", "round": 2, "limit": 1},
            "list_models": {},
            "get_model": {"version": 1},
            "compare_models": {"first": 1, "second": 2},
        }
        told = {}
        for name, arguments in asked.items():
            failed, told[name] = said(await client.call_tool(name, arguments))
            assert not failed, (name, told[name])
        wrong = {
            "misspelt": ("list_robots", {"stat": "approved"}),
            "no number": ("list_robots", {"limit": True}),
            "too many": ("list_robots", {"limit": 1000}),
            "none of this name": ("get_robot", {"name": "r77"}),
            "missing": ("get_robot", {}),
            "no tool": ("approve_robot", {"name": "r2"}),
            "no run": ("get_run", {"run": "20010101-000000"}),
            "no round": ("get_round", {"run": "20260101-120000", "round": 3}),
            "no version": ("get_model", {"version": 99}),
        }
        for what, (name, arguments) in wrong.items():
            failed, told[what] = said(await client.call_tool(name, arguments))
            assert failed, (what, told[what])
            assert "\n" not in told[what]
        return told

    told = session(over_stdio(fleet.root), use)

    assert [robot["name"] for robot in told["list_robots"]["robots"]] == ["r1", "r2"]
    assert told["list_robots"]["robots"][1]["state"] == "pending"
    assert told["list_robots"]["left_out"] == 0
    assert told["fleet_status"]["robots"]["by_state"] == {"approved": 1, "pending": 1}
    newest, before = told["get_robot"]["rounds"]
    assert (newest["round"], before["round"]) == (2, 1)
    assert newest["examples_left_out"] == "12 without a label"
    assert newest["measures"] == {"accuracy_after": 0.75}
    assert told["list_runs"]["runs"][0]["rounds_closed"] == 2
    assert any("of another model" in line for line in told["get_run"]["words"])
    part = told["get_round"]
    assert [robot["name"] for robot in part["robots"]] == ["r1"]
    assert (part["total"], part["left_out"], part["next_offset"]) == (2, 1, 1)
    assert told["list_models"]["channels"] == {"stable": 1}
    assert told["list_models"]["withheld"][0]["reasons"][0]["words"] == "it fell"
    assert told["get_model"]["after"] == {"accuracy": 0.9}
    accuracy = told["compare_models"]["measures"]["accuracy"]
    assert round(accuracy["difference"], 6) == -0.7
    keys = [robot["key"].split()[1] for robot in json.loads(fleet.robots.read_text())["robots"]]
    everything = json.dumps(told)
    assert not [key for key in keys if key in everything]
    assert fleet.admin_token.read_text().strip() not in everything

    assert told["misspelt"] == (
        'list_robots: stat: unknown argument "stat"; did you mean "state"?; it takes: offset, '
        "limit, state, site, online"
    )
    assert told["no number"].startswith("list_robots: limit: expected a whole number")
    assert "at most 200" in told["too many"]
    assert (
        "robot 'r77' is not in the register; `cloud-server robots list" in told["none of this name"]
    )
    assert told["missing"].startswith("get_robot: name: the argument is missing")
    assert told["no tool"].startswith("there is no tool approve_robot")
    assert "there is no run 20010101-000000" in told["no run"]
    assert "has closed 2 rounds" in told["no round"]
    assert "there is no version 99" in told["no version"]


def test_without_a_running_server_models_are_told_and_of_robots_how_to_start_it(
    server_dir, session, over_stdio, said
):
    async def use(client):
        return [said(await client.call_tool(name, {})) for name in ("list_models", "list_robots")]

    (models_failed, models), (robots_failed, robots) = session(over_stdio(server_dir.root), use)
    assert not models_failed
    assert models["channels"] == {"stable": 1}
    assert robots_failed
    assert f"is it running? Start it with `cloud-server start {server_dir.root}`" in robots
