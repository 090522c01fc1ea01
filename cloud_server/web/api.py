"""Our own routes: model files for robots, runs and status for the operator."""

import hashlib
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field

from cloud_server.model_store import DirectoryStore
from cloud_server.robots import Register, Robot
from cloud_server.runs import Runs
from fleet_model.errors import FleetError, RefusedError, RoundError
from fleet_model.proof import check, fingerprint, utc_now

ROBOT, ADMIN = "/fleetlearn/v1/robot", "/fleetlearn/v1/admin"
CHANNEL, SHA256 = re.compile(r"[a-z][a-z0-9-]{0,30}"), re.compile(r"[0-9a-f]{64}")
REPEAT_S = 60.0  # the same refusal is logged once a minute
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Seen:
    """What is known of a robot since this server process started."""

    at: float  # monotonic seconds
    active_version: int | None = None


@dataclass(slots=True)
class Doorkeeper:
    """Knows robots by the proof on their requests; remembers when it saw them."""

    register: Register
    seen: dict[str, Seen] = field(default_factory=dict)
    _refused: dict[str, float] = field(default_factory=dict)

    def robot(self, request: Request) -> Robot:
        """Return who asks, or answer 403 with the reason."""
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        try:
            line = check(request.headers, request.method, path, utc_now())
            robot = self.register.by_key(line)
            if robot is None:
                raise RefusedError(
                    f"unknown robot key {fingerprint(line)}; on the server run: "
                    f"cloud-server robots add DIR NAME --site SITE --key '{line}'"
                )
        except RefusedError as error:
            self._log(str(error))
            raise HTTPException(403, str(error)) from None
        seen = self.seen.setdefault(robot.name, Seen(at=0.0))
        seen.at = time.monotonic()
        return robot

    def _log(self, reason: str) -> None:
        now = time.monotonic()
        if now - self._refused.get(reason, -REPEAT_S) >= REPEAT_S:
            if len(self._refused) > 1000:  # strangers must not fill the memory
                self._refused.clear()
            self._refused[reason] = now
            log.warning("refused a robot: %s", reason)


class RunRequest(BaseModel):
    """What `cloud-server train` asks."""

    model_config = ConfigDict(extra="forbid")
    rounds: int = Field(ge=1, le=10_000)


def robot_routes(
    keeper: Doorkeeper, store: DirectoryStore, restarted: Callable[[Robot], None]
) -> APIRouter:
    """Return the routes for robots; every one asks for proof of the robot's key."""
    router = APIRouter(prefix=ROBOT, tags=["robot"])
    known = Annotated[Robot, Depends(keeper.robot)]

    @router.post("/hello")
    def hello(robot: known) -> dict[str, str]:
        """Tell a robot that starts who it is here."""
        restarted(robot)
        log.info("robot %s (%s) says hello", robot.name, robot.site)
        return {"name": robot.name, "site": robot.site}

    @router.get("/whoami")
    def whoami(robot: known) -> dict[str, str]:
        """Tell a robot who it is here."""
        return {"name": robot.name, "site": robot.site}

    @router.get("/channels/{channel}")
    def channel_manifest(
        channel: str, robot: known, request: Request, active: int | None = None
    ) -> Response:
        """Return the newest manifest; 304 when the robot has it."""
        keeper.seen[robot.name].active_version = active
        content = store.latest_bytes(channel) if CHANNEL.fullmatch(channel) else None
        if content is None:
            raise HTTPException(404, f"nothing is published on channel {channel[:31]}")
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"etag": tag})
        return Response(content, media_type="application/json", headers={"etag": tag})

    @router.get("/objects/{sha256}")
    def model_object(sha256: str, robot: known) -> Response:
        """Return one file by content."""
        path = store.object(sha256) if SHA256.fullmatch(sha256) else None
        if path is None:
            raise HTTPException(404, f"no object {sha256[:12]}")
        return FileResponse(path, media_type="application/octet-stream")

    return router


def admin_routes(runs: Runs, status: Callable[[], dict[str, Any]]) -> APIRouter:
    """Return the routes for the operator; the guard has checked the credential."""
    router = APIRouter(prefix=ADMIN, tags=["admin"])

    @router.post("/runs")
    def start_run(body: RunRequest) -> dict[str, Any]:
        """Start a run."""
        try:
            return runs.start(body.rounds).as_json()
        except RoundError as error:
            raise HTTPException(409, str(error)) from None

    @router.get("/runs/{run_id}")
    def get_run(run_id: str) -> dict[str, Any]:
        """Return one run of this server process."""
        run = runs.get(run_id)
        if run is None:
            raise HTTPException(404, f"no run {run_id} since the server started")
        return run.as_json()

    @router.get("/status")
    def fleet_status() -> dict[str, Any]:
        """Return robots, runs, versions."""
        try:
            return status()
        except FleetError as error:
            raise HTTPException(500, str(error)) from None

    return router
