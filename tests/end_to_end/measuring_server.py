"""A server that asks its robots to measure the newest checkpoint, as a process of its own.

    python measuring_server.py DIR ROBOTS

Prints the round's record as JSON once ROBOTS robots have answered. No command of the product asks
for an evaluation yet: this is the real server with its real fleet, and one request of kind
"evaluate" in the round loop.
"""

import json
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import cloud_server.flower.flower_fleet as flower_fleet
from cloud_server.rounds.round_journal import MemoryJournal
from cloud_server.rounds.round_loop import run_round
from cloud_server.runs.run_rounds import CLOCK, _request
from cloud_server.server import build
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import load_settings
from fleet_model.types import EVALUATE

fleets = []


class KeptFleet(flower_fleet.FlowerFleet):
    """The server's own fleet, within reach."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        fleets.append(self)


def main():
    flower_fleet.FlowerFleet = KeptFleet
    server_dir, robots = ServerDirectory(Path(sys.argv[1])), int(sys.argv[2])
    settings = load_settings(server_dir.settings)
    server = build(server_dir, settings)
    threading.Thread(target=server.run, daemon=True).start()
    (fleet,) = fleets
    while len(fleet.online()) < robots:
        time.sleep(0.1)
    fleet.open_run(None)
    checkpoint = Checkpoints(server_dir.checkpoints).latest()
    request = _request(server_dir, settings, "measure", 1, checkpoint)
    _, record = run_round(
        fleet,
        None,
        replace(request, kind=EVALUATE),
        settings.rounds.model_copy(update={"quorum": robots}),
        settings.checks,
        CLOCK,
        MemoryJournal(),
        stop=lambda: False,
    )
    fleet.close_run(completed=True)
    sys.stdout.write(json.dumps(record.as_json()) + "\n")
    server.should_exit = True


if __name__ == "__main__":
    main()
