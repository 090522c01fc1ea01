"""Make tests/data/state_87262d4.tar.xz: directories as commit 87262d4 leaves them.

    git worktree add OLD_TREE 87262d4 && cd OLD_TREE    # in an environment with its extras
    PYTHONPATH=. python NEW_TREE/tests/data/make_state_87262d4.py NEW_TREE/tests/data

A real server and two real agents of that commit train on the tiny bundle. A run of two rounds is
published and installed. In round 2 of the next run of three rounds the server is killed right after
the first reply was stored; both agents are killed as well. What lies on disk then is the fixture.
expected.safetensors holds the weights that commit 87262d4 itself reaches when it continues.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

OLD = Path.cwd()
sys.path[:0] = [str(OLD), str(OLD / "tests")]
KILLING = OLD / "tests" / "cloud_server" / "killed" / "killing_server.py"
PORT = 29443  # replaced by the test
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(OLD),
    "FLEETLEARN_ROUNDS__DEADLINE_S": "60",
    "FLEETLEARN_ROUNDS__QUORUM": "2",
    "FLEETLEARN_LIMITS__REFUSALS_PER_S": "1000",
    "OMP_NUM_THREADS": "1",
}
LABELS = ("circle", "square", "star")


def main(out: Path) -> None:
    work = Path(OLD / "build" / "state")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    place = make_server(work / "server")
    for number, name in enumerate(("r1", "r2")):
        make_robot(place, work / name, number)
    client, server = start(place, "close", 10**9)
    agents = [agent(work / name) for name in ("r1", "r2")]
    first = follow(client, client.start_run(2)["id"])
    wait_for(lambda: all(installed(work / name) == first for name in ("r1", "r2")), "installed")
    stop(server, signal.SIGTERM)
    # Replies come one by one here, so the third one is the first of round 2.
    client, server = start(place, "keep+", 3)
    run = client.start_run(3)["id"]
    wait_for(lambda: server.poll() is not None, "killed")
    for process in agents:
        stop(process, signal.SIGKILL)
    shutil.copytree(work / "server", work / "kept" / "server", symlinks=True)
    for name in ("r1", "r2"):
        shutil.copytree(work / name, work / "kept" / name, symlinks=True)
    client, server = start(place, "close", 10**9)
    agents = [agent(work / name) for name in ("r1", "r2")]
    follow(client, run)
    stop(server, signal.SIGTERM)
    for process in agents:
        stop(process, signal.SIGTERM)
    write_expected(work, run)
    pack(work / "kept", out / "state_87262d4.tar.xz")


def make_server(root: Path):
    """Return the directory of a new server on PORT with the tiny bundle as its model."""
    import conftest

    from cloud_server.robots import Register

    conftest.free_port = lambda: PORT
    place = conftest.make_server_place(root)
    Register(place.robots)
    return place


def make_robot(place, root: Path, number: int) -> None:
    """Enroll a robot with labelled pictures of its own, and admit it."""
    from edge_agent.enroll import enroll
    from edge_agent.settings import ExampleSettings

    from cloud_server.robots import Register

    pictures = root / "pictures"
    random = np.random.default_rng(number)
    for label_number, label in enumerate(LABELS):
        (pictures / label).mkdir(parents=True)
        for second in range(8):
            image = random.integers(0, 60, (32, 32, 3), np.uint8)
            image[:, :, label_number] += np.uint8(120 + 10 * number)
            file = pictures / label / f"{label}-{second}.png"
            cv2.imwrite(str(file), image)
            at = 1_700_000_000 + 15 * second + label_number  # held out by segments of 10 s
            os.utime(file, (at, at))
    line = enroll(place.kit, root, ExampleSettings(paths=(pictures,)), train=True)
    toml = (root / "agent.toml").read_text().replace(str(pictures), "pictures")
    (root / "agent.toml").write_text(toml)
    Register(place.robots).add(root.name, "hall", line)


def start(place, step: str, nth: int):
    """Start a server that publishes the tiny bundle and dies at the nth call of a step."""
    from cloud_server.admin_client import AdminClient

    from fleet_model.errors import FleetError

    (place.root / "killed").unlink(missing_ok=True)
    log = (place.root.parent / "server.log").open("a")
    process = subprocess.Popen(
        [sys.executable, str(KILLING), str(place.root), step, str(nth)],
        env=ENVIRONMENT, stdout=log, stderr=log,
    )  # fmt: skip
    client = AdminClient(place)

    def answers() -> bool:
        with suppress(FleetError):  # it is not up yet
            return bool(client.status())
        return False

    wait_for(answers, "server")
    return client, process


def agent(root: Path):
    log = (root.parent / f"{root.name}.log").open("a")
    command = [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(root / "agent.toml")]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, cwd=OLD)


def follow(client, run: str) -> int:
    """Wait for a run; return the version that it published."""
    wait_for(lambda: client.run(run)["state"] in ("finished", "failed"), f"run {run}")
    ended = client.run(run)
    assert ended["state"] == "finished", ended
    return int(ended["published_version"])


def installed(root: Path) -> int:
    current = root / "state" / "models" / "current"
    return json.loads((current / "manifest.json").read_text())["version"] if current.exists() else 0


def wait_for(done, what: str) -> None:
    end = time.monotonic() + 400
    while not done():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def stop(process, number: int) -> None:
    process.send_signal(number)
    process.wait(240)


def write_expected(work: Path, run: str) -> None:
    from cloud_server.checkpoints import Checkpoints

    checkpoints = Checkpoints(work / "server" / "checkpoints")
    version = checkpoints.versions()[-1]
    weights = checkpoints.path(version).parent / "weights.safetensors"
    shutil.copy(weights, work / "kept" / "expected.safetensors")
    facts = {"version": version, "run": run, "commit": "87262d4"}
    (work / "kept" / "expected.json").write_text(json.dumps(facts))


def pack(folder: Path, file: Path) -> None:
    for junk in (*folder.rglob("*.log"), *folder.rglob("killed"), *folder.rglob("*.lock")):
        junk.unlink()
    with tarfile.open(file, "w:xz") as archive:
        archive.add(folder, arcname="")
    sys.stdout.write(f"{file} {file.stat().st_size}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
