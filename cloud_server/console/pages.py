"""Templates and files of the pages, read once; whatever is filled in is escaped."""

from pathlib import Path
from typing import Any

from fastapi import HTTPException, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cloud_server.console.access import PREFIX, Session
from cloud_server.report.markup import STYLE
from fleet_model import __version__

HERE = Path(__file__).parent
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# What the pages show of each other: path, name.
SECTIONS = (
    ("", "Fleet"),
    ("/runs", "Runs"),
    ("/models", "Models"),
    ("/compare", "Compare"),
    ("/sites", "Sites"),
)


class Pages:
    """Makes answers of templates."""

    def __init__(self, name: str, prefix: str = PREFIX) -> None:
        """Read every file: nothing else is ever served from the disk.

        Args:
            name: what is shown, on every page.
            prefix: how the address of every page begins.
        """
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals |= {
            "prefix": prefix,
            "sections": [(prefix + path, title) for path, title in SECTIONS],
            "fleet_name": name,
            "release": __version__,
        }
        self._files = {
            file.name: (KINDS[file.suffix], file.read_bytes())
            for file in (HERE / "static").iterdir()
            if file.suffix in KINDS
        }
        kind, own = self._files["console.css"]
        self._files["console.css"] = kind, STYLE.encode() + own

    def show(
        self, template: str, session: Session | None, status: int = 200, **values: Any
    ) -> Response:
        """Return a page of somebody who is logged in, or of a server without a login."""
        return self._made(template, status, session=session, **values)

    def login(self, code: str, why: str = "", status: int = 200) -> Response:
        """Return the page for those who are not logged in."""
        return self._made("login.html", status, session=None, code=code, why=why)

    def problem(
        self, title: str, words: str, status: int, session: Session | None = None
    ) -> Response:
        """Return a page that says what is wrong."""
        return self._made("problem.html", status, session=session, heading=title, words=words)

    def static(self, name: str) -> Response:
        """Return a file; raises HTTPException if there is none."""
        if name not in self._files:
            raise HTTPException(404, "there is no such file")
        kind, content = self._files[name]
        return Response(content, media_type=kind)

    def _made(self, template: str, status: int, **values: Any) -> Response:
        text = self._environment.get_template(template).render(**values)
        return Response(text, status_code=status, media_type="text/html; charset=utf-8")
