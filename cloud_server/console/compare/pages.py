"""The console's pages of comparisons: what to choose from, and each that is open."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from cloud_server.console.access import PREFIX, Session
from cloud_server.console.compare.data_sets import data_sets_in
from cloud_server.console.compare.routes import ROOT, House, add_lineups
from cloud_server.console.compare.versions import Versions
from cloud_server.console.desk import Desk, part_of
from cloud_server.console.pages import Pages
from fleet_model.errors import FleetError

Form = Callable[[Request], Coroutine[Any, Any, dict[str, str]]]
log = logging.getLogger(__name__)


def add_comparisons(router: APIRouter, pages: Pages, desk: Desk, form: Form) -> None:
    """Add the pages; whoever asks has a session, see console/routes.py.

    Args:
        router: of the console.
        pages: of the console.
        desk: of the console.
        form: reads a form of a page of this session.
    """
    versions, folder = Versions(desk.overview.store), desk.settings.console.data_sets
    house = House(
        pages=pages,
        lineup=versions.get,
        token=lambda request: _session(request).form_token,
        session=_session,
        scheme="https",
        data_sets=lambda: data_sets_in(folder) if folder else {},
        no_data="Name a folder of data sets in server.toml: data_sets in [console].",
    )

    @router.get(ROOT)
    def choose(request: Request, page: str = "1", version: str = "", lineage: str = "") -> Response:
        """Show the versions to choose from; one may be chosen already."""
        rows = versions.rows()
        picked = {
            choice.field
            for row in rows
            for choice, _ in row.choices[:1]
            if (str(row.version), row.lineage) == (version, lineage)
        }
        return pages.show(
            "versions.html", _session(request),
            part=part_of(rows, page), picked=picked, opened=versions.opened(),
        )  # fmt: skip

    @router.post(ROOT)
    async def open_them(request: Request) -> Response:
        """Open what was chosen."""
        fields = await form(request)
        return await run_in_threadpool(opened, fields, _session(request))

    def opened(fields: dict[str, str], session: Session) -> Response:
        try:
            key = versions.open(fields)
        except FleetError as error:
            words = desk.words(str(error))
            return pages.problem("These cannot be compared", words, status=409, session=session)
        names = dict(versions.opened())[key]
        log.info("console: %s are compared", names)
        return Response(status_code=303, headers={"location": f"{PREFIX}{ROOT}/{key}"})

    add_lineups(router, house)


def _session(request: Request) -> Session:
    found: Session = request.state.session
    return found
