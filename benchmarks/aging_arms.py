"""What aging.py does in a process of its own, with one side's modules on PYTHONPATH.

aging_arms.py examples FRAMES STATE COUNT  list a store's examples as a training process does
aging_arms.py hash FILE                    hash a file of tensors, then touch each tensor once
"""

import json
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HEARTBEAT_S = 20.0
FRAME_SUFFIXES = (".jpg", ".mcap")
# Where a store is opened, and its class, which is imported there: of the older commit, ours. In
# this order: an editable installation also finds our modules where the older ones have none.
STORES = {
    "edge_agent.local_training": "edge_agent.example_store",
    "edge_agent.examples.source": "edge_agent.examples.example_store",
}


def main() -> None:
    """Run one of the two; print one line of JSON."""
    arm, *rest = sys.argv[1:]
    arms = {"examples": examples, "hash": hash_file, "robots": stay_online}
    print(json.dumps(arms[arm](*rest)), flush=True)


def examples(frames: str, state: str, count: str) -> dict[str, float]:
    """Return the seconds until all examples are listed, and the bytes of frame files opened.

    Every opening counts the whole file, whether it is then read, mapped or left alone.
    """
    name = next(name for name in STORES if find_spec(name))
    module, _ = import_module(name), import_module(STORES[name])
    opened = [0]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith(FRAME_SUFFIXES):
            opened[0] += Path(arguments[0]).stat().st_size

    root = Path(state)
    settings = {
        "paths": [f"{frames}/pictures", f"{frames}/bags"],
        "trained": f"{root}/trained.json",
    }
    settings |= {"topic": "", "label_topic": "/camera/label", "labels": ["a", "b"]}
    if hasattr(module, "INDEX"):
        settings["index"] = str(root / module.INDEX)
    sys.addaudithook(hook)
    begin = time.perf_counter()
    open_store = getattr(module, "open_frames", None) or module.open_store
    found = list(open_store(**settings).examples())
    seconds = time.perf_counter() - begin
    if not 0.8 * int(count) <= len(found) <= int(count):  # some lie between training and held out
        raise RuntimeError(f"{len(found)} examples are listed, expected {count}")
    return {"seconds": seconds, "frame_bytes": opened[0], "examples": len(found)}


def hash_file(path: str) -> dict[str, float]:
    """Hash and touch; waits for a line on stdin before, so that the idle process can be seen."""
    import numpy as np

    from fleet_model.bundle import entry_of_file
    from fleet_model.weights import read_weights

    print("idle", flush=True)
    sys.stdin.readline()
    entry = entry_of_file(Path(path))
    total = 0.0
    for tensor in read_weights(Path(path)).values():
        total += float(np.add.reduce(tensor))
    return {"bytes": entry.size_bytes, "sum": total}


def stay_online(address: str, ca: str, *keys: str) -> None:
    """Be robots that wait for work: real ones look for it every few seconds, which is not measured.

    Runs until the process is ended.
    """
    from edge_agent.link.flower_connection import FleetConnection
    from fleet_model.protocol.proof import read_key

    authority = Path(ca).read_bytes()
    robots = [FleetConnection(address, authority, read_key(Path(key))) for key in keys]
    for robot in robots:
        robot.activate()
    while True:
        time.sleep(HEARTBEAT_S)
        for robot in robots:
            robot.heartbeat()


if __name__ == "__main__":
    main()
