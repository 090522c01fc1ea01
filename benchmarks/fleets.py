"""Start and stop whole fleets as processes: our server and agents, stock Flower's likewise.

Both speak TLS with a certificate authority of their own and know robots by a registered key. Both
servers run in the environment of this interpreter, so a robot from another environment shares no
page of Flower or TensorFlow with them; libpython and libc it may share.
"""

import os
import re
import secrets
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.measure import boot_time_s
from benchmarks.services import ROOT, Services, base_environment
from cloud_server.cli.admin_client import AdminClient
from cloud_server.flower.flower_link import LinkGrid
from cloud_server.flower.flower_superlink import create_superlink
from cloud_server.robots.register import Register
from cloud_server.state.certificates import make_secrets
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.history_file import all_lines
from cloud_server.state.settings import load_settings
from edge_agent.agent.status import read_status
from edge_agent.cli.enroll import enroll
from edge_agent.robot.settings import ExampleSettings
from fleet_model.protocol.proof import make_key, parse_public

BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Node:
    """A robot's process, as seen from outside."""

    pid: int
    ready_s: float  # from its start until the server takes it for online


@dataclass(frozen=True, slots=True, kw_only=True)
class OurFleet:
    """A started `cloud-server` and how robots join it."""

    services: Services
    server_dir: ServerDirectory
    admin: AdminClient
    port: int
    environment: Mapping[str, str]  # settings (FLEETLEARN_*)

    @classmethod
    def start(cls, services: Services, root: Path, environment: Mapping[str, str]) -> "OurFleet":
        """Serve an initialized directory."""
        server_dir = ServerDirectory(root)
        port = load_settings(server_dir.settings, {}).network.port
        admin = AdminClient(server_dir)
        fleet = cls(
            services=services,
            server_dir=server_dir,
            admin=admin,
            port=port,
            environment=environment,
        )
        fleet.serve()
        return fleet

    def serve(self) -> None:
        """Start the server, or start it again on the same directory."""
        command = [sys.executable, "-m", "cloud_server.cli", "start", self.server_dir.root]
        environment = {"PYTHONPATH": str(ROOT), **self.environment}
        self.services.start("cloud-server", command, environment)
        self.services.wait("the server's start", lambda: listening(self.port))

    def enroll(self, name: str, directory: Path, examples: Path) -> None:
        """Make a robot's directory and admit its key."""
        settings = ExampleSettings(paths=(examples,))
        line = enroll(self.server_dir.kit, directory, settings, train=True)
        Register(self.server_dir.robots).add(name, "bench", line)

    def run_agent(
        self, name: str, directory: Path, command: Sequence[object], environment: Mapping[str, str]
    ) -> Node:
        """Start an agent and wait until it is online."""
        online = online_nodes(self.server_dir.flower / "state.db")
        begin = boot_time_s()
        arguments = [*command, "run", "--config", directory / "agent.toml"]
        pid = self.services.start(name, arguments, environment)
        return Node(
            pid, _ready_s(self.services, self.server_dir.flower / "state.db", online, begin)
        )

    def online(self) -> int:
        """Return how many robots are online."""
        return online_nodes(self.server_dir.flower / "state.db")

    def rounds_closed(self) -> int:
        """Return how many rounds the history has."""
        return len(list(all_lines(self.server_dir.history)))

    def follows(self, directory: Path, run_id: str) -> bool:
        """Return whether a run has ended, and the robot of a directory runs what it published."""
        run, status = self.admin.run(run_id), read_status(directory / "state")
        published = run["published_version"]
        return published is not None and status.get("active_version") == published


@dataclass(frozen=True, slots=True, kw_only=True)
class StockFleet:
    """A started `flower-superlink` and how SuperNodes join it; after spikes/flower/fleet.sh."""

    services: Services
    work: Path
    port: int
    separate: bool  # SuperExec beside the SuperLink, so that a ServerApp outlives it

    @classmethod
    def start(
        cls,
        services: Services,
        work: Path,
        port: int,
        keys: Sequence[Path] = (),
        *,
        separate: bool = False,
    ) -> "StockFleet":
        """Start a SuperLink with TLS and node authentication; it knows the robots of public `keys`.

        One `flwr supernode register` takes a second: see `register` for a few robots.
        """
        server_dir = ServerDirectory(work)
        make_secrets(server_dir, ("localhost", "127.0.0.1"), datetime.now(timezone.utc))
        fleet = cls(services=services, work=work, port=port, separate=separate)
        (work / "operator").mkdir()
        (work / "operator" / "config.toml").write_text(
            '[superlink]\ndefault = "lab"\n[superlink.lab]\n'
            f'address = "127.0.0.1:{port}"\nroot-certificates = "{fleet._ca}"\n'
        )
        fleet._secret.write_text(secrets.token_hex(32))
        if keys:
            grid = LinkGrid(create_superlink(str(fleet._database), "127.0.0.1", port))
            for key in keys:
                grid.register(parse_public(key.read_text()), key.stem)
        fleet.serve()
        if separate:
            command = [
                BIN / "flower-superexec", "--runtime-api-address", f"127.0.0.1:{port}",
                "--root-certificates", fleet._ca, "--superexec-auth-secret-file", fleet._secret,
            ]  # fmt: skip
            home = {"FLWR_HOME": str(work / "exec"), "PATH": _path(BIN)}
            services.start("superexec", command, home)
        return fleet

    def serve(self) -> None:
        """Start the SuperLink, or start it again on the same database."""
        server_dir = ServerDirectory(self.work)
        command = [
            BIN / "flower-superlink", "--host", "127.0.0.1", "--port", self.port,
            "--ssl-ca-certfile", self._ca, "--ssl-certfile", server_dir.certificates / "server.crt",
            "--ssl-keyfile", server_dir.secrets / "server.key", "--enable-supernode-auth",
            "--database", self._database, "--disable-runtime-dependency-installation",
        ]  # fmt: skip
        if self.separate:
            command += ["--isolation", "process", "--superexec-auth-secret-file", self._secret]
        home = {"FLWR_HOME": str(self.work / "link"), "PATH": _path(BIN)}
        self.services.start("superlink", command, home)
        self.services.wait("the SuperLink's start", lambda: listening(self.port))

    def register(self, key: Path) -> None:
        """Admit the robot of a private key, whose public half lies beside it."""
        self.flwr("supernode", "register", key.with_suffix(".pub"), "lab")

    def online(self) -> int:
        """Return how many nodes are online."""
        return online_nodes(self._database)

    def run_supernode(
        self, name: str, programs: Path, config: str, environment: Mapping[str, str]
    ) -> Node:
        """Register a key, start `flower-supernode` from the folder `programs`, wait for it."""
        key = self.work / f"{name}.key"
        make_key(key)
        self.register(key)
        online = online_nodes(self._database)
        begin = boot_time_s()
        command = [
            programs / "flower-supernode", "--root-certificates", self._ca,
            "--superlink", f"127.0.0.1:{self.port}", "--auth-supernode-private-key", key,
            "--host", "127.0.0.1", "--port", free_port(), "--node-config", config,
        ]  # fmt: skip
        home = {"FLWR_HOME": str(self.work / f"{name}-home"), "PATH": _path(programs)}
        pid = self.services.start(name, command, {**home, **environment})
        return Node(pid, _ready_s(self.services, self._database, online, begin))

    def run_app(self, app: Path, config: str) -> None:
        """Submit an app with `flwr run`; it goes on by itself."""
        self.flwr("run", app, "lab", "--run-config", config)

    def flwr(self, *arguments: object) -> None:
        """Run the operator's command."""
        done = subprocess.run(
            [str(BIN / "flwr"), *map(str, arguments)],
            env={**base_environment(), "FLWR_HOME": str(self.work / "operator")},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"flwr {arguments[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}")

    @property
    def _ca(self) -> Path:
        return ServerDirectory(self.work).certificates / "ca.crt"

    @property
    def _secret(self) -> Path:
        return self.work / "superexec.secret"

    @property
    def _database(self) -> Path:
        return self.work / "state.db"


def move(root: Path, port: int) -> None:
    """Let a copied server directory listen on another port, and tell its kit."""
    server_dir = ServerDirectory(root)
    settings, kit = server_dir.settings.read_text(), (server_dir.kit / "kit.toml").read_text()
    server_dir.settings.write_text(re.sub(r"(?m)^port = \d+", f"port = {port}", settings))
    (server_dir.kit / "kit.toml").write_text(re.sub(r':\d+"', f':{port}"', kit))


def online_nodes(database: Path) -> int:
    """Return how many nodes Flower's database has online."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            query = "SELECT count(*) FROM node WHERE status = 'online'"
            return int(connection.execute(query).fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # not yet made, or just being written


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listening(port: int) -> bool:
    """Return whether somebody answers."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _ready_s(services: Services, database: Path, online: int, begin: float) -> float:
    services.wait("the robot's start", lambda: online_nodes(database) > online, step_s=0.02)
    return boot_time_s() - begin


def _path(programs: Path) -> str:
    return f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"
