"""The page on which models answer the same input; for the console, and without a fleet.

What is asked is the body of a request as it is, by the page's own script: no form, no file on disk.
"""

import hmac
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from cloud_server.console.access import Session, require_own_page
from cloud_server.console.compare.lineup import Lineup
from cloud_server.console.compare.uploads import received
from cloud_server.console.compare.view import answer_values, batch_values, board_values
from cloud_server.console.pages import Pages
from fleet_model.errors import BusyError, FleetError, FrameError, SettingsError

FORM_HEADER = "x-form-token"  # every request of the page's script has it
ROOT = "/compare"
SMALL, LARGE = 320, 640  # pixels of the longer side of a picture of a data set


@dataclass(frozen=True)
class House:
    """What differs between the console and the page alone."""

    pages: Pages
    lineup: Callable[[str], Lineup | None]  # by its key in the address
    token: Callable[[Request], str]  # of the page that a request must come from
    session: Callable[[Request], Session | None]
    scheme: str  # of the page's own address
    data_sets: Callable[[], Mapping[str, Path]]  # what a batch may ask about, by name
    no_data: str  # what is shown where there is none

    def known(self, key: str) -> Lineup:
        """Return an open line-up; raises HTTPException."""
        found = self.lineup(key)
        if found is None:
            raise HTTPException(404, "this comparison was closed; choose the models again")
        return found

    def require_page(self, request: Request) -> None:
        """Raise HTTPException unless the page itself asks."""
        require_own_page(request.headers, self.scheme)
        given = request.headers.get(FORM_HEADER, "")
        if not hmac.compare_digest(given.encode(), self.token(request).encode()):
            raise HTTPException(403, "this is not of a page of this session; open the page again")

    def show(self, template: str, request: Request, **values: Any) -> Response:
        """Return a page, or a part of one."""
        return self.pages.show(template, self.session(request), **values)


class _Told(APIRoute):
    """Say what is wrong as JSON: a script reads it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                return await answer(request)
            except HTTPException as refused:
                headers = dict(refused.headers or {})
                return JSONResponse({"detail": refused.detail}, refused.status_code, headers)
            except FleetError as error:
                return JSONResponse({"detail": str(error)}, _status(error))

        return told


def add_lineups(router: APIRouter, house: House) -> None:
    """Add the page of one line-up, and what its script asks for."""

    @router.get(ROOT + "/{key}")
    def page(request: Request, key: str) -> Response:
        """Show the models, and where to drop an input."""
        lineup = house.known(key)
        return house.show(
            "compare.html", request,
            lineup=lineup, token=house.token(request), key=key, data_sets=house.data_sets(),
            no_data=house.no_data,
            **board_values(lineup), **batch_values(lineup),
        )  # fmt: skip

    outer = router.route_class
    route = _Told if outer is APIRoute else type("_ToldRoute", (outer, _Told), {})
    asked = APIRouter(
        prefix=ROOT + "/{key}", route_class=route, dependencies=[Depends(house.require_page)]
    )
    looked_at = APIRouter(prefix=ROOT + "/{key}", route_class=route)
    _add_questions(asked, house)
    _add_batches(asked, looked_at, house)
    router.include_router(asked)
    router.include_router(looked_at)


def _add_questions(asked: APIRouter, house: House) -> None:
    @asked.post("/ask")
    async def ask(request: Request, key: str, truth: str = "") -> Response:
        """Show one input to all models."""
        lineup = house.known(key)
        content = await received(request, lineup.most_bytes)
        told = await run_in_threadpool(lineup.ask, content, truth[:200])
        return _answered(request, lineup, told)

    @asked.post("/again/{number}")
    def ask_again(request: Request, key: str, number: int) -> Response:
        """Show an input of the data set to all models; it does not count again."""
        lineup = house.known(key)
        return _answered(request, lineup, lineup.process.answer(lineup.input(number).read()))

    @asked.post("/clear")
    def clear(request: Request, key: str) -> Response:
        """Begin the board anew."""
        lineup = house.known(key)
        lineup.board.clear()
        return house.show("cleared.html", request, **board_values(lineup))

    def _answered(request: Request, lineup: Lineup, told: Mapping[str, Any]) -> Response:
        values = answer_values(lineup, told) | board_values(lineup)
        return house.show("answer.html", request, **values)


def _add_batches(asked: APIRouter, looked_at: APIRouter, house: House) -> None:
    @asked.post("/begin")
    def begin(request: Request, key: str, data: str = "") -> Response:
        """Ask about a data set."""
        lineup, path = house.known(key), house.data_sets().get(data)
        if path is None:
            raise HTTPException(404, "there is no such data set")
        lineup.begin_batch(path)
        return house.show("batch.html", request, key=key, **batch_values(lineup))

    @asked.post("/stop")
    def stop(request: Request, key: str) -> Response:
        """Ask about no further input."""
        lineup = house.known(key)
        if lineup.batch is not None:
            lineup.batch.stop()
        return house.show("batch.html", request, key=key, **batch_values(lineup))

    @looked_at.get("/batch")
    def batch(request: Request, key: str) -> Response:
        """Show how far it is, and what has come of it."""
        return house.show("batch.html", request, key=key, **batch_values(house.known(key)))

    @looked_at.get("/input/{number}")
    def picture(key: str, number: int, large: bool = False) -> Response:
        """Show a picture of the data set, as the models' process has read it."""
        content = house.known(key).preview(number, LARGE if large else SMALL)
        return Response(content, media_type="image/jpeg")


def _status(error: FleetError) -> int:
    if isinstance(error, FrameError):
        return 422
    if isinstance(error, SettingsError):
        return 409
    return 503 if isinstance(error, BusyError) else 500
