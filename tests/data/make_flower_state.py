"""Make tests/data/flower_state_1.41: the database of a server that stopped in the middle of a run.

    PYTHONPATH=.:tests/cloud_server python tests/data/make_flower_state.py    # with flwr 1.41

Three robots (keys `known_key(1..3)`) were asked with the value 1. r1 has replied 2 and nobody has
read it, r2 has the request and has not replied, r3 has not read the request. Requests never expire.
"""

import gzip
import json
import os
import shutil
import sqlite3
import tempfile
from importlib.metadata import version
from pathlib import Path

from scripted_nodes import admit, content, known_key, receive, reply

OUT = Path(__file__).parent / "flower_state_1.41"
FOR_EVER_S = 3e9


def main() -> None:
    """Replace the folder."""
    assert version("flwr").startswith("1.41."), version("flwr")
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "state.db"
        os.environ["FLWR_HOME"] = folder
        known = _stop_in_the_middle(str(database))
        shutil.rmtree(OUT, ignore_errors=True)
        OUT.mkdir()
        with sqlite3.connect(database) as connection:  # one file, without -wal and -shm
            connection.execute("VACUUM INTO ?", (f"{folder}/whole.db",))
            revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]
        whole = (Path(folder) / "whole.db").read_bytes()
    (OUT / "state.db.gz").write_bytes(gzip.compress(whole, mtime=0))
    known = {"flwr": version("flwr"), "revision": revision, **known}
    (OUT / "expected.json").write_text(json.dumps(known, indent=1) + "\n")


def _stop_in_the_middle(database: str) -> dict[str, object]:
    from cloud_server.flower.flower_link import LinkGrid
    from cloud_server.flower.flower_superlink import create_superlink

    grid = LinkGrid(create_superlink(database, "127.0.0.1", 1))
    nodes = [admit(grid, f"r{number}", known_key(number)).node_id for number in (1, 2, 3)]
    run = grid.open_run()
    asked = grid.push(content(1.0), nodes, FOR_EVER_S)
    tickets = {node_id: ticket for ticket, node_id in asked.items()}
    assert reply(grid, receive(grid, nodes[0]), 2.0)
    assert receive(grid, nodes[1]) is not None
    return {
        "run_id": run.run_id,
        "task_id": run.task_id,
        "nodes": nodes,
        "tickets": [tickets[node_id] for node_id in nodes],
    }


if __name__ == "__main__":
    main()
