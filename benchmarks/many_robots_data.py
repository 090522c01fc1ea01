"""What many_robots.py gives both of our servers, written by the modules of the older commit.

many_robots_data.py SERVER_DIR PORT KEYS    a server directory and a register of the keys' robots
"""

import json
import shutil
import sys
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from cloud_server.checkpoints import Checkpoints  # of the older commit, as are the next two
from cloud_server.directory import ServerDirectory

from benchmarks.round_time import make_server
from fleet_model.bundle import entry_of
from fleet_model.types import Checkpoint

HEAD = {"head/kernel": (1280, 5), "head/bias": (5,)}  # of EfficientNet-Lite0, five labels


def main() -> None:
    """Write both."""
    root, port, keys = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    place = ServerDirectory(root)
    make_server(place, port, 8)
    use_head(place)
    now = datetime.now(timezone.utc).isoformat()
    robots = [
        {"name": file.stem, "site": "bench", "key": file.read_text().strip(), "added_at": now}
        for file in sorted(keys.glob("*.pub"))
    ]
    place.robots.write_text(json.dumps({"robots": robots}))


def use_head(place: ServerDirectory) -> None:
    """Let the model that is trained be a head in the place of one tensor."""
    trainer = place.model / "trainer.json"
    spec = json.loads(trainer.read_bytes())
    spec["tensors"] = {name: {"shape": shape} for name, shape in HEAD.items()}
    content = json.dumps(spec).encode()
    trainer.write_bytes(content)
    (place.store / "objects" / entry_of(content).sha256).write_bytes(content)
    shutil.rmtree(place.checkpoints)
    place.checkpoints.mkdir()
    weights = {name: np.zeros(shape, np.float32) for name, shape in HEAD.items()}
    Checkpoints(place.checkpoints).save(Checkpoint(version=0, weights=weights))


if __name__ == "__main__":
    main()
