"""The fallback: a stock flower-supernode with our thin app takes part beside a lean agent."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
SUPERNODE = Path(sys.executable).with_name("flower-supernode")


def test_a_stock_supernode_closes_a_round_with_a_lean_agent(fleet):
    fleet.init()
    fleet.start_server(exports=False)
    fleet.add_robot("lean", "--examples", fleet.bag("hall-1/r1"))
    config = fleet.add_robot("stock", "--examples", fleet.bag("hall-2/r1"), run=False)
    with (fleet.root / "stock.log").open("wb") as log:
        fleet.processes["stock"] = subprocess.Popen(
            [
                SUPERNODE,
                "--superlink",
                f"127.0.0.1:{fleet.port}",
                "--port",
                str(fleet.free_port()),
                "--root-certificates",
                config.parent / "ca.crt",
                "--auth-supernode-private-key",
                config.parent / "robot.key",
                "--node-config",
                f'agent="{config}"',
            ],
            env=stock_environment(fleet.root / "flower-home"),
            stdout=log,
            stderr=log,
        )
    fleet.wait("both robots online", lambda: fleet.online() == {"lean", "stock"})
    run = fleet.train(rounds=1)
    (record,) = run["closed"]
    assert {r["name"]: r["outcome"] for r in record["robots"]} == {
        "lean": "accepted",
        "stock": "accepted",
    }


def stock_environment(home: Path) -> dict[str, str]:
    home.mkdir()
    path = f"{SUPERNODE.parent}{os.pathsep}{os.environ['PATH']}"
    return {
        **os.environ,
        "PATH": path,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
