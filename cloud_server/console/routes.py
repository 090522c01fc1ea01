"""The console's routes: login, pages, confirmations. Every answer forbids what no page needs.

Whoever has no session gets the login's page with status 401. A form is taken from a page of this
server alone, with the token of its session.
"""

import hmac
import json
import logging
from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import parse_qs, quote, urlencode

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from cloud_server.console import models_view, robots_view, runs_view
from cloud_server.console.access import (
    LOGIN,
    PREFIX,
    PROTECTION,
    Access,
    Session,
    TooManyLoginsError,
    require_own_page,
)
from cloud_server.console.actions import ACTIONS
from cloud_server.console.compare.pages import add_comparisons
from cloud_server.console.desk import Desk, part_of
from cloud_server.console.pages import Pages
from cloud_server.monitoring.status_words import tell
from cloud_server.sites.report import newest_report
from cloud_server.web.buckets import address_key
from fleet_model.errors import BundleError, FleetError, RefusedError
from fleet_model.protocol.routes import ADMIN, CONSOLE_LINK, CONSOLE_SESSIONS

MAX_SHOWN_WORDS = 4  # sentences of `status` at the top of the fleet's page
log = logging.getLogger(__name__)


class NoSessionError(Exception):
    """Nobody is logged in here."""


class _Route(APIRoute):
    """Answer what goes wrong with a page, and protect every answer."""

    pages: Pages

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer, pages = super().get_route_handler(), self.pages

        async def protected(request: Request) -> Response:
            try:
                response = await answer(request)
            except NoSessionError:
                response = pages.login("", status=401)
            except RequestValidationError:
                response = pages.problem("There is no such page", "", status=404)
            except HTTPException as error:
                response = pages.problem("This is not possible", error.detail, error.status_code)
            except FleetError as error:
                response = pages.problem("This does not work now", str(error), status=500)
            response.headers.update(PROTECTION)
            return response

        return protected


def console_routes(desk: Desk, access: Access) -> tuple[APIRouter, ...]:
    """Return the login, the pages, and the operator's routes that make links and end sessions."""
    pages = Pages(desk.server_dir.root.name)
    route = type("_ConsoleRoute", (_Route,), {"pages": pages})
    login = APIRouter(prefix=PREFIX, tags=["console"], route_class=route)
    _add_login(login, pages, access)
    # Of the router, not of each route: no page is shown to who is not logged in.
    known = [Depends(_session_of(access))]
    router = APIRouter(prefix=PREFIX, tags=["console"], route_class=route, dependencies=known)
    _add_robots(router, pages, desk)
    _add_runs(router, pages, desk)
    _add_models(router, pages, desk)
    _add_actions(router, pages, desk)
    add_comparisons(router, pages, desk, _form)
    return login, router, _links(access)


def _links(access: Access) -> APIRouter:
    router = APIRouter(prefix=ADMIN, tags=["admin"])

    @router.post(CONSOLE_LINK)
    def make_link() -> dict[str, str]:
        """Return the path that logs one browser in."""
        return {"path": access.link()}

    @router.delete(CONSOLE_SESSIONS)
    def end_sessions() -> dict[str, int]:
        """End every session and link."""
        return {"ended": access.end_all()}

    return router


def _session_of(access: Access) -> Callable[[Request], Session]:
    def session(request: Request) -> Session:
        found = access.session(dict(request.scope["headers"]))
        if found is None:
            raise NoSessionError
        request.state.session = found
        return found

    return session


async def _form(request: Request) -> dict[str, str]:
    """Return the form of a page of this session; `session` has been asked before."""
    values = await _posted(request)
    token = values.pop("token", "")
    if not hmac.compare_digest(token.encode(), request.state.session.form_token.encode()):
        raise HTTPException(403, "this form is not of a page of this session; open it again")
    return values


async def _posted(request: Request) -> dict[str, str]:
    """Return a form that a page of this server has sent; its size was bounded by the guard."""
    headers = request.headers
    require_own_page(headers, "https")
    kind = headers.get("content-type", "").partition(";")[0]
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "expected a form")
    try:
        text = (await request.body()).decode("ascii")
        values = parse_qs(text, strict_parsing=True, keep_blank_values=True, max_num_fields=40)
    except ValueError:  # also bytes that are no ASCII
        raise HTTPException(400, "this is no form") from None
    return {name: found[0] for name, found in values.items()}


def _add_login(router: APIRouter, pages: Pages, access: Access) -> None:
    @router.get("/login", include_in_schema=True)
    def login(code: str = "") -> Response:
        """Show a button: what only looks at links must not use them up."""
        return pages.login(code[:100])

    @router.post("/login")
    async def log_in(request: Request) -> Response:
        """Use up a link."""
        values = await _posted(request)
        client = request.client.host if request.client else ""
        try:
            token = access.log_in(values.get("code", ""), address_key(client))
        except RefusedError as refused:
            late = isinstance(refused, TooManyLoginsError)
            log.warning("console: a login from %s is refused: %s", client, refused)
            return pages.login("", str(refused), status=429 if late else 403)
        log.info("console: a browser at %s has logged in", client)
        return _to(PREFIX, access.set_cookie(token))

    @router.post("/logout")
    async def log_out(request: Request) -> Response:
        """End this session."""
        _session_of(access)(request)
        await _form(request)
        access.end(dict(request.scope["headers"]))
        return _to(LOGIN, access.set_cookie(""))

    @router.get("/static/{name}")
    def static(name: str) -> Response:
        """Return a file of the pages."""
        return pages.static(name)


def _who(request: Request) -> Session:
    found: Session = request.state.session
    return found


def _to(path: str, cookie: str = "") -> Response:
    headers = {"location": path} | ({"set-cookie": cookie} if cookie else {})
    return Response(status_code=303, headers=headers)


def _add_robots(router: APIRouter, pages: Pages, desk: Desk) -> None:
    @router.get("")
    def fleet(
        request: Request, q: str = "", site: str = "", state: str = "", page: str = "1"
    ) -> Response:
        """Show all robots, or those that a filter lets through."""
        status = desk.status()
        words = [desk.words(line) for line in tell(status)]
        robots = robots_view.judged(status)
        found = robots_view.chosen(robots, q[:100], site[:100], state)
        kept = {name: v for name, v in (("q", q), ("site", site), ("state", state)) if v}
        return pages.show(
            "fleet.html", _who(request),
            numbers=robots_view.numbers(status, robots),
            part=part_of(found, page), kept=urlencode(kept),
            sites=sorted({robot.site for robot in status.robots}), filters=robots_view.FILTERS,
            q=q[:100], site=site, state=state, words=words, shown=MAX_SHOWN_WORDS,
            waiting=status.waiting[:20],
        )  # fmt: skip

    @router.get("/robots/{name}")
    def robot(request: Request, name: str) -> Response:
        """Show one robot."""
        found = robots_view.one_robot(desk, name)
        if found is None:
            raise HTTPException(404, f"there is no robot {name[:80]} in the register")
        return pages.show("robot.html", _who(request), **found)

    @router.get("/sites")
    def sites(request: Request) -> Response:
        """Show sites and clusters."""
        return pages.show(
            "sites.html", _who(request),
            sites=robots_view.sites_of(desk.status()), report=newest_report(desk.server_dir.runs),
        )  # fmt: skip


def _add_runs(router: APIRouter, pages: Pages, desk: Desk) -> None:
    @router.get("/runs")
    def runs(request: Request, page: str = "1") -> Response:
        """Show all runs that are kept."""
        rows = runs_view.run_rows(desk)
        return pages.show("runs.html", _who(request), part=part_of(rows, page), kept="")

    @router.get("/runs/{run_id}")
    def run(request: Request, run_id: str, round: str = "", page: str = "1") -> Response:
        """Show one run, and the robots of one of its rounds."""
        found = runs_view.one_run(desk, run_id, round)
        if found is None:
            raise HTTPException(404, f"there is no run {run_id[:40]}")
        number = found["number"]
        kept = "" if number is None else urlencode({"round": number})
        return pages.show(
            "run.html", _who(request), **found, part=part_of(found["robots"], page), kept=kept
        )


def _add_models(router: APIRouter, pages: Pages, desk: Desk) -> None:
    @router.get("/models")
    def models(request: Request, page: str = "1") -> Response:
        """Show channels, versions, rollouts."""
        told = models_view.models(desk)
        return pages.show(
            "models.html", _who(request), **told, part=part_of(told["versions"], page), kept=""
        )

    @router.get("/models/{version}")
    def version(request: Request, version: int, lineage: str = "") -> Response:
        """Show where a version comes from."""
        try:
            return pages.show(
                "version.html", _who(request), **models_view.one_version(desk, version, lineage)
            )
        except BundleError as error:
            raise HTTPException(404, desk.words(str(error))) from None


def _add_actions(router: APIRouter, pages: Pages, desk: Desk) -> None:
    @router.get("/do/{name}")
    def confirm(request: Request, name: str) -> Response:
        """Say what will happen."""
        action = ACTIONS.get(name)
        if action is None:
            raise HTTPException(404, "there is no such button")
        given = {key: request.query_params.get(key, "")[:200] for key in action.given}
        try:
            asked = action.ask(desk, given)
        except FleetError as error:
            return pages.problem(
                action.title, desk.words(str(error)), status=409, session=_who(request)
            )
        return pages.show(
            "confirm.html", _who(request), name=name, action=action, given=given, asked=asked
        )

    @router.post("/do/{name}")
    def do(
        request: Request, name: str, values: Annotated[dict[str, str], Depends(_form)]
    ) -> Response:
        """Do it, and go back."""
        action = ACTIONS.get(name)
        if action is None:
            raise HTTPException(404, "there is no such button")
        about = json.dumps(values)[:300]
        try:
            done = action.do(desk, values)
        except FleetError as error:
            log.info("console: %s %s: %s", name, about, error)
            return pages.problem(
                action.title, desk.words(str(error)), status=409, session=_who(request)
            )
        finally:
            desk.changed()
        log.info("console: %s %s: %s", name, about, done)
        _who(request).notes.append(("good", done))
        return _to(_back(action.back, values))


def _back(path: str, values: dict[str, str]) -> str:
    robot = values.get("robot", "")
    return f"{path}/robots/{quote(robot, safe='')}" if robot else path
