"""A small server directory made without TensorFlow, and a real server process on it."""

import fcntl
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from cloud_server.state.directory import ServerDirectory

sys.path.append(str(Path(__file__).parent))
from free_ports import free_port

# `make soak` runs every property with a hundred times the examples. Nothing is timed in a test:
# machines are noisy.
hypothesis_settings.register_profile("default", deadline=None)
hypothesis_settings.register_profile("soak", max_examples=10_000, deadline=None)
hypothesis_settings.register_profile("sample", max_examples=10, deadline=None)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")
hypothesis_settings.load_profile(PROFILE)

# A shell that starts `make test` in the background lets it ignore Ctrl-C, and so every program that
# a test starts and sends one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TINY = Path(__file__).parent / "data" / "tiny_bundle"  # see data/make_tiny_bundle.py
PATIENCE_S = 240.0
SAMPLE_TIMEOUT_S = 1200.0  # as in pyproject.toml
SUMMARIES = "TEST_SUMMARIES"  # a folder: `make test` ends with what failed, and what was running


class Summary:
    """A file of what has failed and what runs now, complete at every moment of a session."""

    def __init__(self, file: Path) -> None:
        self.file, self.failed, self.running = file, {}, {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.running[nodeid] = datetime.now().strftime("%H:%M:%S")
        self._write()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed[report.nodeid] = report.when

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed[report.nodeid] = "collection"

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.running.pop(nodeid, None)
        self._write()

    def pytest_sessionfinish(self) -> None:
        self._write()

    def _write(self) -> None:
        lines = [f"failed ({when}): {name}\n" for name, when in self.failed.items()]
        lines += [f"running since {time}: {name}\n" for name, time in self.running.items()]
        self.file.write_text("".join(lines))


def pytest_configure(config: pytest.Config) -> None:
    """Tell `make test` what fails, from the process that all workers report to."""
    if SUMMARIES in os.environ and not hasattr(config, "workerinput"):
        environment = Path(sys.prefix).name.removeprefix(".")
        file = Path(os.environ[SUMMARIES]) / f"{environment}.{os.getpid()}"
        config.pluginmanager.register(Summary(file))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long suites' other cases to `make soak`; begin with the longest files.

    Processes share the files one by one: a long one at the end would leave the others idle.
    """
    left_out = [item for item in items if PROFILE != "soak" and item.get_closest_marker("soak")]
    if find_spec("torch") is None:  # `make test-torch` has an environment of its own
        left_out += [item for item in items if item.get_closest_marker("torch")]
    if find_spec("flyte") is None:  # as is `make test-pipelines`
        left_out += [item for item in items if item.get_closest_marker("pipelines")]
    items[:] = [item for item in items if item not in left_out]
    if PROFILE != "soak":  # the marks are for whole suites, of which samples run here
        for item in items:
            if (own := item.get_closest_marker("timeout")) and own.args[0] > SAMPLE_TIMEOUT_S:
                item.add_marker(pytest.mark.timeout(SAMPLE_TIMEOUT_S), append=False)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: ("end_to_end" not in item.path.parts, item.path not in slow))
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable], Path]:
    """Return made_once(name, make): a folder that the first test process makes for all of them.

    An export takes ten seconds and is the same everywhere. Nobody may change what is in it.
    """
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "made-once"
    root.mkdir(exist_ok=True)

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, aside = root / name, root / f".{name}"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                shutil.rmtree(aside, ignore_errors=True)  # of one that failed
                make(aside)
                aside.rename(folder)
        return folder

    return made


@pytest.fixture(scope="session")
def packages(made_once: Callable[[str, Callable], Path]) -> Callable[..., Path]:
    """Build as `make dist` does, and the agent a second time; return packages(name, revision=1)."""
    build = [sys.executable, Path(__file__).parents[1] / "deploy" / "packages" / "build.py"]
    again = ("--revision", "2", "--only", "fleetlearn-agent")

    def make(folder: Path) -> None:
        for options in ((), again):
            subprocess.run([*build, "--out", folder, *options], check=True)

    def named(name: str, revision: int = 1) -> Path:
        (file,) = made_once("packages", make).glob(f"{name}_*-{revision}_*.deb")
        return file

    return named


def pytest_collection_finish() -> None:
    """Keep thousands of tests, which stay to the end, out of every garbage collection."""
    gc.freeze()


@dataclass(frozen=True)
class RunningServer:
    """A server process on a directory of its own."""

    address: str  # host:port
    server_dir: ServerDirectory
    log: Path  # what it writes to stderr
    process: subprocess.Popen


@pytest.fixture
def server_dir(tmp_path: Path) -> ServerDirectory:
    """A directory as init leaves it, of the tiny bundle, with a free port in its settings.

    Checkpoint 1 holds the weights of the tiny bundle, which is version 1 on channel `stable`.
    No robot is admitted: use `Register(server_dir.robots).add(name, site, line)`.
    """
    return make_server_dir(tmp_path / "server")


@pytest.fixture(scope="session")
def new_server_dir() -> Callable[[Path], ServerDirectory]:
    """Return what makes a directory as `server_dir` is, wherever it is told."""
    return make_server_dir


@pytest.fixture(scope="module")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server process a test module; it must end with exit code 0 on SIGTERM.

    Its settings are the defaults (two robots a round), but a run waits for no robot.
    """
    from cloud_server.state.settings import load_settings

    root = tmp_path_factory.mktemp("running")
    server_dir, log = make_server_dir(root / "server"), root / "server.log"
    port = load_settings(server_dir.settings, {}).network.port
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "cloud_server.cli", "start", str(server_dir.root)],
            # A run that finds too few robots online gives up at once.
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "FLEETLEARN_ROUNDS__WAIT_S": "0",
                # All tests come from one address.
                "FLEETLEARN_LIMITS__REFUSALS_PER_S": "1000",
                "FLEETLEARN_LIMITS__REQUESTS_PER_S": "10000",
            },
            stdout=stream,
            stderr=stream,
        )
    try:
        _wait_for_port(process, port, log)
        yield RunningServer(f"127.0.0.1:{port}", server_dir, log, process)
        process.terminate()
        assert process.wait(240) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def require_internal() -> Callable[[str, str], None]:
    """Return what fails unless the installed flwr has "module:name", which `user` imports."""

    def require(internal: str, user: str) -> None:
        module, name = internal.split(":")
        try:
            found = hasattr(import_module(module), name)
        except ImportError:
            found = False
        assert found, (
            f"Flower has moved or removed {internal}. Find what took its place in the new flwr, "
            f"change the functions that import it and its line in INTERNALS of {user}, or go back "
            "to the flwr versions that pyproject.toml allows."
        )

    return require


def make_server_dir(root: Path) -> ServerDirectory:
    """Do what `cloud-server init` does but for the export, which is the tiny bundle's."""
    from cloud_server.initialize import LOOPBACK
    from cloud_server.state.certificates import make_secrets
    from cloud_server.state.checkpoints import Checkpoints
    from cloud_server.state.learning_settings import TrainingSettings
    from cloud_server.state.model_store import DirectoryStore
    from cloud_server.state.settings import NetworkSettings, server_toml
    from fleet_model.types import Checkpoint
    from fleet_model.weights import read_weights

    server_dir, port = ServerDirectory(root), free_port()
    server_dir.root.mkdir()
    make_secrets(server_dir, LOOPBACK, datetime.now(timezone.utc))
    shutil.copytree(TINY, server_dir.model)
    weights = read_weights(TINY / "weights.safetensors")
    Checkpoints(server_dir.checkpoints).save(Checkpoint(version=1, weights=weights))
    DirectoryStore(server_dir.store).publish(TINY, "stable", TINY)
    server_dir.kit.mkdir()
    shutil.copy(server_dir.certificates / "ca.crt", server_dir.kit)
    kit = f'address = "127.0.0.1:{port}"\nchannel = "stable"\n'
    (server_dir.kit / "kit.toml").write_text(kit)
    network = NetworkSettings(port=port, names=LOOPBACK)
    server_dir.settings.write_text(server_toml(network, TrainingSettings(batch_size=4)))
    return server_dir


def _wait_for_port(process: subprocess.Popen, port: int, log: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    with_port = ("127.0.0.1", port)
    while True:
        assert process.poll() is None, f"the server has ended:\n{log.read_text()}"
        assert time.monotonic() < end, f"the server does not listen:\n{log.read_text()}"
        with socket.socket() as probe:
            if probe.connect_ex(with_port) == 0:
                return
        time.sleep(0.1)
