"""What is told while the server is off; test_service.py asks about a running one."""

from cloud_server.cli.assistants.protocol import answer
from cloud_server.cli.assistants.reading import READING

TOOLS = {tool.name: tool for tool in READING}


def test_without_a_running_server_models_are_told_and_of_robots_how_to_start_it(server_dir, said):
    failed, models = said(answer(server_dir.root, TOOLS, "list_models", {}))
    assert (failed, models["channels"]) == (False, {"stable": 1})
    failed, runs = said(answer(server_dir.root, TOOLS, "list_runs", {}))
    assert (failed, runs["total"]) == (False, 0)
    failed, robots = said(answer(server_dir.root, TOOLS, "list_robots", {}))
    assert failed
    assert f"is it running? Start it with `cloud-server start {server_dir.root}`" in robots


def test_a_directory_that_is_none_is_one_line(tmp_path, said):
    failed, words = said(answer(tmp_path, TOOLS, "list_models", {}))
    assert failed
    assert "is this a server directory?" in words or "cloud-server init" in words
