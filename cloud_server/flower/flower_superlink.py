"""Flower's SuperLink as an app inside this process; nothing of Flower is imported before a call."""

import hashlib
import logging
import os
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from cloud_server.state.logs import SeldomLines
from fleet_model.errors import SettingsError
from fleet_model.flower import quiet

if TYPE_CHECKING:
    from fastapi import FastAPI
    from flwr.supercore.fab import Fab

# Flower gives each of up to 30 SQLite connections a cache of 64 MB and maps 256 MB of the file: the
# server would grow with the robots that talk to it at once. A page that many need is in the
# kernel's cache anyway. Writers wait for each other longer than 5 s on a slow disk.
PRAGMAS = {"cache_size": "-256", "mmap_size": "0", "busy_timeout": "60000"}
TIDY_S = 5.0
# Flower demands a ServerApp by name; nobody loads it: the server itself is the ServerApp.
STOCK_APP = b"""\
[project]
name = "fleetlearn"
version = "1.0.0"
description = "Thin app: names the ClientApp that the robot has installed"
license = "Apache-2.0"
dependencies = ["flwr>=1.41,<1.43"]
[tool.flwr.app]
publisher = "fleetlearn"
[tool.flwr.app.components]
serverapp = "cloud_server.server_app:app"
clientapp = "edge_agent.client_app:app"
"""


def create_superlink(database: str, host: str, port: int) -> "FastAPI":
    """Return Flower's SuperLink as an app, robots authenticated, no ServerApp process of its own.

    Args:
        database: SQLite file.
        host: address that the caller serves the app at; Flower only records it.
        port: as `host`.

    Raises:
        SettingsError: the file is damaged, cannot be opened, or is of a newer flwr. The file of an
            older flwr is taken over; that flwr cannot read it afterwards.
    """
    quiet()
    from alembic.util import CommandError
    from flwr.supercore import sql_mixin
    from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig
    from flwr.superlink.main import create_app
    from sqlalchemy.exc import DatabaseError

    sqlite: Any = sql_mixin
    sqlite.SQLITE_PRAGMAS = tuple({**dict(sqlite.SQLITE_PRAGMAS), **PRAGMAS}.items())
    _tidy_seldom()
    flower = logging.getLogger("flwr")
    flower.setLevel(logging.WARNING)  # it logs every poll of every robot
    flower.handlers.clear()  # its own writes beside the process's log, in a form of its own
    flower.addFilter(_lower_late_replies)
    if not any(isinstance(one, SeldomLines) for one in flower.filters):
        flower.addFilter(SeldomLines())  # it logs every request that it refuses
    config = SuperLinkLifespanConfig(
        control_address="127.0.0.1:0",  # unused since 1.41: every API is served by the app
        health_server_address=None,
        host=host,
        port=port,
        insecure=False,
        certificates=None,  # TLS belongs to whoever serves the app
        superexec_auth_secret=os.urandom(32),
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type="grpc-rere",
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=database,
        isolation="process",
        runtime_dependency_install=False,
    )
    try:
        return create_app(config, SuperLinkLifespan)
    except DatabaseError as error:
        raise SettingsError(
            f"{database}: cannot be used ({error.orig}); if it is damaged, move it away, its -wal "
            "and -shm too: it holds only open questions, which are then asked again"
        ) from None
    except CommandError:  # a revision of the tables that this flwr does not know
        raise SettingsError(
            f"{database}: was written by a newer flwr than {version('flwr')}; install that version "
            "of flwr again, or move the file away, its -wal and -shm too: it holds only open "
            "questions, which are then asked again"
        ) from None


def _lower_late_replies(record: logging.LogRecord) -> bool:
    """Log a late reply of a robot as information: it is no error of the server."""
    from flwr.supercore.error import ApiErrorCode

    path, _, rest = record.getMessage().partition("][")
    if rest.startswith(f"ApiError:{ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED:d}]"):
        record.msg = "a robot replied to a run that has ended; it was notified (%s)"
        record.args, record.levelno, record.levelname = (path.strip("["),), logging.INFO, "INFO"
    return True


def _tidy_seldom() -> None:
    """Let Flower look for expired tasks every few seconds instead of with every request.

    The look writes, and SQLite has one write lock; tasks of this server do not expire anyway.
    """
    from flwr.supercore.corestate.sql_corestate import SqlCoreState

    state: Any = SqlCoreState
    tidy = state._cleanup_expired_task_tokens
    if hasattr(tidy, "seldom"):  # once a process
        return
    tidied_at = -TIDY_S

    def seldom(self: Any) -> None:
        nonlocal tidied_at
        if time.monotonic() - tidied_at >= TIDY_S:
            tidied_at = time.monotonic()
            tidy(self)

    seldom.seldom = True  # type: ignore[attr-defined]
    state._cleanup_expired_task_tokens = seldom


def is_half_sent(error: Exception) -> bool:
    """Whether a ServerApp's `push_messages` has failed so that it can be called again.

    Flower repeats a call whose answer was lost, and takes it for an error that the object is there.
    """
    from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

    return isinstance(error, ObjectPushError)


def stock_fab() -> "Fab":
    """Return the app that names a run's ServerApp and ClientApp."""
    from flwr.cli.build import build_fab_from_files
    from flwr.supercore.fab import Fab

    content, _ = build_fab_from_files({"pyproject.toml": STOCK_APP})
    return Fab(hashlib.sha256(content).hexdigest(), content, {})
