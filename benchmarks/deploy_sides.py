"""The two sides of deploy.py: a server with an agent, and a folder on the web with a script."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from benchmarks.deploy_plain import folder_on_https
from benchmarks.environments import sources_digest
from benchmarks.fleets import BIN, ROOT, OurFleet, free_port, move
from benchmarks.measure import say
from benchmarks.relay import Relay
from benchmarks.round_time import fresh
from benchmarks.services import Services, run_python
from cloud_server.models.model_file import export_model
from cloud_server.models.publish import exported
from cloud_server.state.certificates import make_secrets
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import load_settings

WORK = ROOT / "build" / "bench" / "deploy"
LABELS = "circle,square,star,triangle"
VERSIONS = 8  # that can be published


@dataclass(frozen=True, slots=True)
class Inputs:
    """Made once, kept for the next run of this code."""

    bag: Path
    server: Path  # with versions 1.. in its store, which no channel offers yet
    model: Path  # one .tflite file, for the script


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What runs, and how it is given a new model."""

    services: Services
    relay: Relay  # between robot and server
    robot: int  # process
    camera: tuple[str, ...]  # arguments of deploy_camera.py
    answers: Path  # that it writes
    publish: Callable[[int], None]  # version 1, 2, ...
    version: Callable[[], int]  # that the robot runs; -1 where nothing tells


def prepare() -> Inputs:
    """Make bag, server directory with exported versions, and the plain model."""
    root = WORK / f"inputs-{sources_digest()[:12]}"
    inputs = Inputs(root / "bags/hall-1/r1", root / "server", root / "model.tflite")
    if inputs.model.exists():
        return inputs
    fresh(WORK)
    say("deploy: making bag, server directory and versions")
    robot = ("--robots", "hall-1/r1", "--prior", "uniform", "--frames", "200")
    run_python("datasets/robot_camera.py", root / "bags", *robot)
    what = ("--workload", "image-classifier", "--labels", LABELS)
    run_python("-m", "cloud_server.cli", "init", inputs.server, *what)
    server_dir = ServerDirectory(inputs.server)
    checkpoints, store = Checkpoints(server_dir.checkpoints), DirectoryStore(server_dir.store)
    settings, first = load_settings(server_dir.settings, {}).publish, checkpoints.load(0)
    for version in range(1, VERSIONS + 1):
        # The same for every label: another file, which answers as well as the one before.
        bias = first.weights["head/bias"] + np.float32(version / 8)
        weights = {**first.weights, "head/bias": bias}
        checkpoints.save(replace(first, version=version, weights=weights))
        path = checkpoints.path(version)
        with exported(server_dir, settings, server_dir.model, path, version) as bundle:
            store.add(bundle, server_dir.model)
    export_model(server_dir, 0, "tflite", inputs.model, lambda line: None)
    return inputs


@contextmanager
def our_side(inputs: Inputs, settings: Mapping[str, str]) -> Iterator[Side]:
    """Run a server and an agent that has version 0."""
    work = fresh(WORK / "turn-ours")
    shutil.copytree(inputs.server, work / "server")
    move(work / "server", free_port())
    current = work / "robot/state/models/current"
    store = DirectoryStore(ServerDirectory(work / "server").store)

    def version() -> int:
        return int(current.resolve().name.partition("-")[0]) if current.exists() else -1

    with Services(work / "logs") as services:
        # Where polls are counted the server holds no requests: `settings` are of both.
        fleet = OurFleet.start(services, work / "server", settings)
        fleet.enroll("r1", work / "robot", inputs.bag)
        with Relay(fleet.port) as relay:
            command = [BIN / "edge-agent", "run", "--config", work / "robot/agent.toml"]
            server = {"EDGE_AGENT_SERVER__ADDRESS": f"127.0.0.1:{relay.port}"}
            robot = services.start("agent", command, {**server, **settings})
            services.wait("version 0", lambda: version() == 0)
            yield Side(
                services=services,
                relay=relay,
                robot=robot,
                camera=("follow", str(current)),
                answers=work / "answers.txt",
                publish=lambda number: store.offer("stable", number),
                version=version,
            )


@contextmanager
def plain_side(inputs: Inputs, every_s: float) -> Iterator[Side]:
    """Serve a folder on the web, and follow it by a script."""
    work = fresh(WORK / "turn-plain")
    folder, model = work / "www", work / "model.tflite"
    folder.mkdir()
    server_dir = ServerDirectory(work / "ca")
    make_secrets(server_dir, ("localhost", "127.0.0.1"), datetime.now(timezone.utc))
    certificate, key = server_dir.certificates / "server.crt", server_dir.secrets / "server.key"

    def publish(number: int) -> None:
        """Put the file there once more; its time tells it from the one before."""
        shutil.copyfile(inputs.model, folder / f"new-{number}")
        (folder / f"new-{number}").replace(folder / model.name)

    publish(0)
    with (
        folder_on_https(folder, certificate, key) as port,
        Relay(port) as relay,
        Services(work / "logs") as services,
    ):
        what = (f"https://127.0.0.1:{relay.port}/{model.name}", server_dir.certificates / "ca.crt")
        command = [sys.executable, "-m", "benchmarks.deploy_plain", *what, model, every_s]
        robot = services.start("script", command, {"PYTHONPATH": str(ROOT)})
        services.wait("the first model", model.exists)
        yield Side(
            services=services,
            relay=relay,
            robot=robot,
            camera=("reopen", str(model), LABELS),
            answers=work / "answers.txt",
            publish=publish,
            version=lambda: -1,
        )
