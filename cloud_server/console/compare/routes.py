"""The page on which models answer the same input; for the console, and without a fleet.

What is asked is the body of a request as it is, by the page's own script: no form, no file on disk.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from cloud_server.console.access import Session, require_own_page
from cloud_server.console.compare.lineup import Lineup
from cloud_server.console.compare.uploads import received
from cloud_server.console.compare.view import answer_values, board_values
from cloud_server.console.pages import Pages
from fleet_model.errors import BusyError, FleetError, FrameError

FORM_HEADER = "x-form-token"  # every request of the page's script has it
ROOT = "/compare"


@dataclass(frozen=True)
class House:
    """What differs between the console and the page alone."""

    pages: Pages
    lineup: Callable[[str], Lineup | None]  # by its key in the address
    token: Callable[[Request], str]  # of the page that a request must come from
    session: Callable[[Request], Session | None]
    scheme: str  # of the page's own address


def add_lineups(router: APIRouter, house: House) -> None:
    """Add the page of one line-up, and what its script asks for."""

    def known(key: str) -> Lineup:
        found = house.lineup(key)
        if found is None:
            raise HTTPException(404, "this comparison was closed; choose the models again")
        return found

    @router.get(ROOT + "/{key}")
    def page(request: Request, key: str) -> Response:
        """Show the models, and where to drop an input."""
        lineup = known(key)
        return house.pages.show(
            "compare.html", house.session(request),
            lineup=lineup, token=house.token(request), key=key, **board_values(lineup),
        )  # fmt: skip

    @router.post(ROOT + "/{key}/ask")
    async def ask(request: Request, key: str, truth: str = "") -> Response:
        """Show one input to all models."""
        try:
            lineup = known(key)
            _require_page(house, request)
            content = await received(request, lineup.most_bytes)
            told = await run_in_threadpool(lineup.ask, content, truth[:200])
        except HTTPException as refused:
            headers = dict(refused.headers or {})
            return _refusal(refused.status_code, refused.detail, headers)
        except FleetError as error:
            return _refusal(_status(error), str(error))
        values = answer_values(lineup, told) | board_values(lineup)
        return house.pages.show("answer.html", house.session(request), **values)

    @router.post(ROOT + "/{key}/clear")
    def clear(request: Request, key: str) -> Response:
        """Begin the board anew."""
        try:
            lineup = known(key)
            _require_page(house, request)
        except HTTPException as refused:
            return _refusal(refused.status_code, refused.detail)
        lineup.board.clear()
        return house.pages.show("cleared.html", house.session(request), **board_values(lineup))


def _require_page(house: House, request: Request) -> None:
    require_own_page(request.headers, house.scheme)
    given = request.headers.get(FORM_HEADER, "")
    if not hmac.compare_digest(given.encode(), house.token(request).encode()):
        raise HTTPException(403, "this is not of a page of this session; open the page again")


def _status(error: FleetError) -> int:
    if isinstance(error, FrameError):
        return 422
    return 503 if isinstance(error, BusyError) else 500


def _refusal(status: int, words: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"detail": words}, status, headers)
