"""The robots' routes: who they are here, and the models they follow."""

import hashlib
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute

from cloud_server.models.older_agents import OlderAgents
from cloud_server.robots.last_seen import LastSeen, admit_command
from cloud_server.robots.offenses import Offenses
from cloud_server.robots.register import Register, Robot
from cloud_server.robots.tokens import Tokens
from cloud_server.state.logs import Seldom
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.offers.rollout_files import RolloutFiles
from fleet_model.errors import BundleError, RefusedError, SettingsError, UpdateError
from fleet_model.protocol.proof import (
    MAX_TOKEN,
    NAME_HEADER,
    TIME_HEADER,
    TOKEN_HEADER,
    Proof,
    check,
    fingerprint,
    utc_now,
)
from fleet_model.protocol.report import STANDING_HEADER, RobotReport, pack_standing, unpack_report
from fleet_model.protocol.routes import (
    CHANNEL,
    HELLO,
    METADATA,
    OBJECT,
    ROBOT,
    SITE,
    TARGETS,
    WHOAMI,
    site_offer,
)
from fleet_model.protocol.trial import MAX_INT
from fleet_model.protocol.version import FIRST_PROTOCOL, MAX_PROTOCOL
from fleet_model.protocol.whole import MOST_WHOLE_BYTES

NAME, SHA256 = re.compile(r"[a-z][a-z0-9-]{0,30}"), re.compile(r"[0-9a-f]{64}")
SIGNED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")  # of a folder or file: no way out
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Authenticator:
    """Knows robots by the proof on their requests; remembers when it saw them."""

    register: Register
    seen: LastSeen
    offenses: Offenses
    tokens: Path  # file of the tokens by which robots admit themselves
    changed: Callable[[], object]  # called when the register is another than at the last request
    servers: frozenset[str]  # the names of this server in proofs
    moves_to: str = ""  # network.moves_to
    signs: Callable[[], bool] = lambda: False  # whether models are signed
    hold_s: float = 0.0  # limits.hold_s
    _robots: tuple[Robot, ...] | None = None
    _refused: Seldom = field(default_factory=Seldom)
    _sessions: Seldom = field(default_factory=Seldom)

    def robot(self, request: Request) -> Robot:
        """Return who asks, or answer 403 with the reason (503 while the register is damaged)."""
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        try:
            proof = self._proven(request, path)
            self._admit_by_token(proof, request.headers)
            robot = self._admitted(proof)
            request.state.standing = self.standing(robot)
        except RefusedError as error:
            self.log_refusal(str(error))
            raise HTTPException(403, str(error)) from None
        except SettingsError as error:
            self.log_refusal(str(error))
            raise HTTPException(503, "the server cannot read its register of robots") from None
        self.seen.see(robot.name)
        return robot

    def standing(self, robot: Robot) -> str:
        """Return what a robot is told of its standing now, packed."""
        more = {
            "warning": self.seen.twins.words(robot.name),
            "moves_to": self.moves_to,
            "signs": self.signs(),
            "hold_s": self.hold_s,
            "whole_reply_bytes": MOST_WHOLE_BYTES if self.hold_s else 0,
        }
        return pack_standing(self.offenses.standing(robot).model_copy(update=more))

    def _proven(self, request: Request, path: str) -> Proof:
        """Return what a request proves; of a robot whose clock is off, tell its name."""
        try:
            return check(request.headers, request.method, path, utc_now(), self.servers)
        except RefusedError as error:
            try:  # right but for its time? Then it is known who asks.
                then = datetime.fromisoformat(request.headers[TIME_HEADER])
                line = check(request.headers, request.method, path, then, self.servers).line
            except (RefusedError, KeyError, ValueError):
                raise error from None
            robot = self.register.by_key(line)
            if robot is None:
                raise
            reason = str(error).replace("the robot's", "its", 1)
            self.seen.refuse(robot.name, reason)
            raise RefusedError(f"robot {robot.name}: {reason}") from None

    def _admit_by_token(self, proof: Proof, headers: Mapping[str, str]) -> None:
        """Add a robot that nobody knows and that has a good token; others pass unchanged."""
        token, line = headers.get(TOKEN_HEADER, "")[:MAX_TOKEN], proof.line
        if not token or self.register.by_key(line) is not None:
            return
        try:
            if not proof.names_server:
                raise RefusedError("a token is taken from agents that name the server alone")
            name = headers.get(NAME_HEADER, "")
            robot = Tokens(self.tokens).admit(token, line, name, self.register, utc_now())
        except RefusedError as error:
            self.seen.wait(line)
            hint = f"on the server run: {admit_command(line)}"
            raise RefusedError(f"{error} (robot key {fingerprint(line)}); {hint}") from None
        log.info("robot %s (%s) is admitted by a token", robot.name, robot.site)

    def _admitted(self, proof: Proof) -> Robot:
        line = proof.line
        robots = self.register.robots()
        self.seen.save_if_due(robots)
        if robots is not self._robots:  # revoked robots lose Flower's paths, too, and at once
            self.changed()
            self._robots = robots
        robot = self.registered(line)
        self._require_no_downgrade(robot, proof)
        return robot

    def registered(self, line: str) -> Robot:
        """Return the robot with a key, as it is now; raises RefusedError, SettingsError."""
        robot = self.register.by_key(line)
        if robot is None:
            self.seen.wait(line)
            raise RefusedError(
                f"unknown robot key {fingerprint(line)}; on the server run: {admit_command(line)}"
            )
        if robot.state == "revoked":
            self.seen.refuse(robot.name, f"it is revoked ({robot.reason}) and still asks")
            raise RefusedError(
                f"robot {robot.name} is revoked ({robot.reason}); ask the operator of the server"
            )
        return robot

    def _require_no_downgrade(self, robot: Robot, proof: Proof) -> None:
        """Refuse a proof without the server's name from a robot that has given one before."""
        if proof.names_server:
            self.seen.names_server(robot)
        elif self.seen.has_named_server(robot):
            reason = (
                "its proof does not name this server any more: its agent is older than before, or "
                "another server repeats its request; update the agent, or let the older one in by "
                f"`cloud-server robots approve DIR {robot.name}`"
            )
            self.seen.refuse(robot.name, reason)
            raise RefusedError(f"robot {robot.name}: {reason}")

    def save(self) -> None:
        """Write down who was seen: at the end of the server."""
        if self._robots is not None:  # else nobody asked
            self.seen.save(self._robots)

    def log_refusal(self, reason: str) -> None:
        """Log why a robot is not answered, the same at most once a minute."""
        if (more := self._refused.more(reason)) is not None:
            log.warning("refused a robot: %s%s", reason, more)

    def log_session(self, robot: Robot) -> None:
        """Log that a robot has started; one that starts again and again, once a minute."""
        if (more := self._sessions.more(robot.name)) is not None:
            about = {"robot": robot.name, "site": robot.site}
            log.info("robot %s (%s) begins a session%s", robot.name, robot.site, more, extra=about)


class _RobotRoute(APIRoute):
    """Tell a robot its standing with every answer once it is known, refusals included."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap what FastAPI makes of a route."""
        answer = super().get_route_handler()

        async def with_standing(request: Request) -> Response:
            try:
                response = await answer(request)
            except RequestValidationError as error:
                raise HTTPException(400, _first(error), headers=_standing(request)) from None
            except HTTPException as refusal:
                headers = {**(refusal.headers or {}), **_standing(request)}
                raise HTTPException(refusal.status_code, refusal.detail, headers) from None
            response.headers.update(_standing(request))
            return response

        return with_standing


def _standing(request: Request) -> dict[str, str]:
    standing = getattr(request.state, "standing", None)
    return {} if standing is None else {STANDING_HEADER: standing}


def _first(error: RequestValidationError) -> str:
    """Return what is wrong without the value: it is the robot's, of any length."""
    first = error.errors()[0]
    return f"{first['loc'][-1]}: {first['msg']}"


def robot_routes(
    authenticator: Authenticator,
    store: DirectoryStore,
    older: OlderAgents,
    restarted: Callable[[Robot], None],
) -> APIRouter:
    """Return the routes for robots; every one asks for proof of the robot's key."""

    @asynccontextmanager
    async def remembering(_: object) -> AsyncIterator[None]:
        yield
        authenticator.save()

    router = APIRouter(prefix=ROBOT, tags=["robot"], route_class=_RobotRoute, lifespan=remembering)
    known = Annotated[Robot, Depends(authenticator.robot)]

    @router.post(HELLO)
    def hello(robot: known) -> dict[str, str]:
        """Tell a robot that starts who it is here."""
        restarted(robot)
        authenticator.log_session(robot)
        return {"name": robot.name, "site": robot.site}

    @router.get(WHOAMI)
    def whoami(robot: known) -> dict[str, str]:
        """Tell a robot who it is here."""
        return {"name": robot.name, "site": robot.site}

    _add_model_routes(router, authenticator, store, older)
    _add_signed_routes(router, authenticator, store)
    return router


def _add_signed_routes(
    router: APIRouter, authenticator: Authenticator, store: DirectoryStore
) -> None:
    """Hand out the signed files as any web server would; see cloud_server/signing/."""
    known = Annotated[Robot, Depends(authenticator.robot)]

    @router.get(METADATA)
    def metadata(name: str, robot: known) -> Response:
        """Return who may sign, or what is signed."""
        return _file(store, "metadata", name)

    @router.get(TARGETS + "{path:path}")
    def target(path: str, robot: known) -> Response:
        """Return a manifest by the name that is signed."""
        return _file(store, "targets", *path.split("/"))


def _file(store: DirectoryStore, *parts: str) -> Response:
    """Return a small file of the store; the names come from outside."""
    if all(re.fullmatch(SIGNED_NAME, part) for part in parts):
        with suppress(FileNotFoundError, IsADirectoryError):
            return Response(store.root.joinpath(*parts).read_bytes(), media_type="application/json")
    raise HTTPException(404, f"{parts[-1][:80]} is not there")


def _site(robot: Robot, told: RobotReport | None) -> str:
    """Return the site by which a robot gets models: the one it keeps, if it says so."""
    return told.models_site if told and re.fullmatch(SITE, told.models_site) else robot.site


def _offered(
    store: DirectoryStore, channel: str, robot: Robot, site: str, active: int | None
) -> bytes | None:
    """Return the manifest for a robot; one that verifies finds the same by itself."""
    own = store.latest_bytes(site_offer(channel, site))
    if own is not None:
        return own
    rollout = RolloutFiles(store.root).read(channel)
    if rollout is None or rollout.over:
        return store.latest_bytes(channel)
    return store.latest_bytes(rollout.offer_for(robot.key, site, active))


def _add_model_routes(
    router: APIRouter, authenticator: Authenticator, store: DirectoryStore, older: OlderAgents
) -> None:
    known = Annotated[Robot, Depends(authenticator.robot)]

    @router.get(CHANNEL)
    def channel_manifest(
        channel: str,
        robot: known,
        request: Request,
        active: Annotated[int | None, Query(ge=0, le=MAX_INT)] = None,
        protocol: Annotated[int | None, Query(ge=1, le=MAX_PROTOCOL)] = None,
        report: str | None = None,
        agent: Annotated[str | None, Query(pattern="^[0-9a-f]{1,32}$")] = None,
    ) -> Response:
        """Take the robot's report; return the newest manifest, 304 when the robot has it."""
        try:
            told = None if report is None else unpack_report(report)
        except UpdateError as error:
            raise HTTPException(400, str(error)) from None
        known = channel if NAME.fullmatch(channel) else ""
        authenticator.seen.looked(robot.name, active, told, protocol, agent or "", known)
        try:
            site = _site(robot, told)
            content = _offered(store, known, robot, site, active) if known else None
            if content is not None and (protocol or FIRST_PROTOCOL) == FIRST_PROTOCOL:
                content = older.manifest(content)
        except (BundleError, OSError, ValueError) as error:
            authenticator.log_refusal(str(error))
            raise HTTPException(503, f"the server cannot read its channel {channel}") from None
        if content is None:
            raise HTTPException(404, f"nothing is published on channel {channel[:31]}")
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"etag": tag})
        return Response(content, media_type="application/json", headers={"etag": tag})

    @router.get(OBJECT)
    def model_object(sha256: str, robot: known) -> Response:
        """Return one file by content, or the rest of it (Range, If-Range)."""
        path = store.object(sha256) if SHA256.fullmatch(sha256) else None
        if path is not None:
            tag = {"etag": f'"{sha256}"'}
            return FileResponse(path, media_type="application/octet-stream", headers=tag)
        content = older.object(sha256)
        if content is None:
            raise HTTPException(404, f"object {sha256[:12]} is no longer published")
        return Response(content, media_type="application/octet-stream")
