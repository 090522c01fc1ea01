"""Answer by department until Ctrl-C or SIGTERM: the process with the port."""

import asyncio
import json
import logging
import secrets
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cloud_server.departments.asking import Bounds, Desk
from cloud_server.departments.engine import Engine
from cloud_server.departments.job import EngineJob
from cloud_server.departments.sources import Source, source_of, trainer_of
from cloud_server.departments.table import Departments
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import LimitSettings, load_settings
from fleet_model.bundle import TrainerSpec
from fleet_model.durable import write_durably
from fleet_model.errors import BundleError, SettingsError
from fleet_model.workloads.causal_lm.conversation import Conversation

log = logging.getLogger(__name__)
NEEDED = {"jinja2": "torch-server", "tokenizers": "torch-server", "fastapi": "web"}
GRACE_S = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ServePlan:
    """Where, and within which bounds."""

    adapters: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    needs_key: bool = True
    tls: bool | None = None  # None: unless only this machine can ask
    device: str = "auto"
    threads: int = 2
    batch: int = 4
    waiting: int = 32
    context: int = 2048
    every_s: float = 1.0


def serve_adapters(server_dir: ServerDirectory, plan: ServePlan) -> None:
    """Serve until a signal.

    Raises:
        SettingsError: not such a fleet, wrong settings, or the port is taken.
        BundleError: no department has an adapter, or there is not the memory.
        RoundError: the process that computes has died.
    """
    server_dir.require()
    settings = load_settings(server_dir.settings)
    server_dir = server_dir.trained()
    spec = trainer_of(server_dir)
    for package, extra in NEEDED.items():
        if find_spec(package) is None:
            raise SettingsError(f"{package} is not installed: pip install 'fleetlearn[{extra}]'")
    local = _is_local(plan.host)
    if not local and not plan.needs_key:
        raise SettingsError(
            f"--no-key --host {plan.host}: everybody could ask; leave one of them out"
        )
    key = _key(server_dir) if plan.needs_key else ""
    source = source_of(server_dir, settings.publish.channel, plan.adapters, spec.files)
    from cloud_server.web.listener import BoundedLoop

    tls = not local if plan.tls is None else plan.tls
    with asyncio.Runner(loop_factory=BoundedLoop) as runner:
        runner.run(_serve(server_dir, plan, spec, source, key, tls))
    log.info("stopped")


async def _serve(
    server_dir: ServerDirectory,
    plan: ServePlan,
    spec: TrainerSpec,
    source: Source,
    key: str,
    tls: bool,
) -> None:
    assert spec.adapter is not None
    sockets = _listen(plan)
    bounds = _bounds(server_dir.model, plan, spec)
    found = len(await asyncio.to_thread(source.look))
    factors = 4 * sum(a * b for a, b in spec.adapter.factors.values())
    job = EngineJob(
        model=server_dir.model.absolute(),
        batch=plan.batch,
        context=bounds.context,
        threads=plan.threads,
        device=plan.device,
        adapters_mb=found * factors / 1e6,
    )
    server: Any = None

    def ended() -> None:
        if server is not None:
            server.should_exit = True

    engine = Engine(job, plan.batch + plan.waiting, ended)
    departments = Departments(source, engine, spec.adapter)
    following: asyncio.Task[None] | None = None
    try:
        await engine.start()
        log.info(
            "the base is loaded on %s; about %d MB of memory with %d texts of %d tokens",
            engine.about["device"], engine.about["memory_mb"], plan.batch, bounds.context,
        )  # fmt: skip
        await departments.begin()
        following = asyncio.create_task(departments.follow(plan.every_s))
        tokens = Conversation(server_dir.model)
        app = _app(Desk(departments, engine, tokens, bounds), departments, engine, key)
        server = _server(app, server_dir, tls=tls)
        port = sockets[0].getsockname()[1]
        scheme = "https" if tls else "http"
        log.info(
            "answering on %s://%s:%d/v1 for %s",
            scheme,
            plan.host,
            port,
            ", ".join(sorted(departments.served)),
        )
        if key:
            log.info("the key that clients send is in %s", _key_file(server_dir))
        for number in (signal.SIGINT, signal.SIGTERM):
            # uvicorn raises the signal again once it has shut down: here that is a clean end
            signal.signal(number, lambda *_: None)
        await server.serve(sockets)
    finally:
        if following is not None:
            following.cancel()
            with suppress(BaseException):
                await following
        for one in sockets:
            one.close()
        await engine.close()
    if engine.failure is not None:
        raise engine.failure


def _app(desk: Desk, departments: Departments, engine: Engine, key: str) -> Any:
    from prometheus_client import CollectorRegistry, Gauge

    from cloud_server.departments.routes import make_app

    registry = CollectorRegistry()
    for name, about, value in (
        ("open", "Texts that go on or wait.", lambda: engine.open),
        ("served", "Departments with an adapter.", lambda: len(departments.served)),
        (
            "refused",
            "Departments whose newest adapter is not used.",
            lambda: len(departments.refused),
        ),
        ("swaps", "Adapters that were taken into use.", lambda: departments.swaps),
    ):
        gauge = Gauge(f"fleetlearn_departments_{name}", about, registry=registry)
        gauge.set_function(value)
    return make_app(desk, departments, key, registry)


def _server(app: Any, server_dir: ServerDirectory, *, tls: bool) -> Any:
    import uvicorn

    from cloud_server.web.limits import CIPHERS, BoundedServer, strict_tls
    from cloud_server.web.protocol import BoundedProtocol

    files: dict[str, Any] = {}
    if tls:
        files = {
            "ssl_certfile": server_dir.certificates / "server.crt",
            "ssl_keyfile": str(server_dir.secrets / "server.key"),
            "ssl_ciphers": CIPHERS,
            "ssl_context_factory": strict_tls,
        }
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        **files,
    )
    config.load()
    return BoundedServer(config, list)


def _listen(plan: ServePlan) -> list[socket.socket]:
    from cloud_server.web.listener import listen

    return listen(plan.host, plan.port, LimitSettings())


def _bounds(model: Path, plan: ServePlan, spec: TrainerSpec) -> Bounds:
    """Return the bounds: the base may see fewer tokens than the operator allows."""
    try:
        about = json.loads((model / "config.json").read_text(encoding="utf-8"))
        seen = about.get("max_position_embeddings")
    except (OSError, ValueError, AttributeError):
        raise BundleError(
            f"{model / 'config.json'}: cannot be read as JSON; restore it from a backup"
        ) from None
    context = min(plan.context, seen) if isinstance(seen, int) else plan.context
    return Bounds(context, int(spec.workload.config.get("max_new_tokens", 64)))


def _key_file(server_dir: ServerDirectory) -> Path:
    return server_dir.secrets / "departments.key"


def _key(server_dir: ServerDirectory) -> str:
    """Return the key that clients send, made at the first start."""
    file = _key_file(server_dir)
    try:
        if not file.exists():
            write_durably(file, f"fl-{secrets.token_urlsafe(32)}\n", mode=0o600)
        key = file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is no text"
        raise SettingsError(f"{file}: cannot be used ({reason})") from None
    if len(key) < 16:
        raise SettingsError(
            f"{file}: expected a key of 16 letters at least; remove it for a new one"
        )
    return key


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
