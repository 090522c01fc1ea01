import json

from typer.testing import CliRunner

from cloud_server.cli import app
from cloud_server.cli.admin_client import AdminClient
from cloud_server.cli.runs import evaluate_command

RUN = {"id": "m", "state": "finished", "measured": {}, "error": "", "exit_code": 0}


def test_with_json_nothing_but_json_is_on_stdout(server_dir, monkeypatch):
    def follow(client, run, say):
        say("round 1 waits since 30 s for heavy")
        return run

    monkeypatch.setattr(AdminClient, "evaluate", lambda *_: RUN)
    monkeypatch.setattr(evaluate_command, "follow", follow)

    done = CliRunner().invoke(app, ["evaluate", str(server_dir.root), "--json"])

    assert json.loads(done.stdout) == RUN
    assert done.stderr == "round 1 waits since 30 s for heavy\n"
