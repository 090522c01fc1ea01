"""Talk to the running server as its operator: the admin credential lies in the server directory."""

import ssl
from collections.abc import Sequence
from typing import Any

from cloud_server.state.directory import ServerDirectory
from cloud_server.state.settings import load_settings, url_host
from cloud_server.state.words import with_directory
from fleet_model.errors import ConnectionFailed, RefusedError, RoundError, SettingsError
from fleet_model.protocol.routes import (
    ADMIN,
    CONSOLE_LINK,
    CONSOLE_SESSIONS,
    EVALUATIONS,
    PROFILES,
    RESUME_RUN,
    RUN,
    RUNS,
    STATUS,
    STOP_RUN,
    path_of,
)

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (listened on -> reached at)


class AdminClient:
    """What the operator's commands ask of a running server; knows it by its directory."""

    def __init__(self, server_dir: ServerDirectory) -> None:
        import httpx

        server_dir.require()
        network = load_settings(server_dir.settings).network
        host = url_host(EVERYWHERE.get(network.host, network.host))
        self._url = f"https://{host}:{network.port}"
        try:
            context = ssl.create_default_context(cafile=str(server_dir.certificates / "ca.crt"))
            token = server_dir.admin_token.read_text().strip()
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(
                f"{server_dir.root}: certificates/ca.crt or secrets/admin.token cannot be read "
                f"({error})"
            ) from None
        self._client = httpx.Client(
            base_url=self._url,
            verify=context,
            headers={"authorization": f"Bearer {token}"},
            timeout=30.0,
            trust_env=False,  # no proxy stands between two programs of one machine
        )
        self._server_dir = server_dir

    def start_run(
        self,
        rounds: int,
        *,
        every_s: float | None = None,
        continuous: bool = False,
        closed_form: str | None = None,
    ) -> dict[str, Any]:
        """Start a run; with `every_s` or `continuous` also set the schedule of the next ones."""
        asked: dict[str, Any] = {"rounds": rounds, "every_s": every_s, "continuous": continuous}
        if closed_form is not None:  # a server of an earlier release does not know it
            asked["closed_form"] = closed_form
        return self._call("POST", RUNS, asked)

    def evaluate(self, version: int | None = None, robots: Sequence[str] = ()) -> dict[str, Any]:
        """Start an evaluation of a checkpoint, the newest if None; by these robots, or by all."""
        return self._call("POST", EVALUATIONS, {"version": version, "robots": list(robots)})

    def ask_for_profiles(
        self, version: int | None = None, robots: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Start asking for profiles, made with a checkpoint; as `evaluate`."""
        return self._call("POST", PROFILES, {"version": version, "robots": list(robots)})

    def runs(self) -> list[dict[str, Any]]:
        """Return the newest runs, oldest first."""
        return list(self._call("GET", RUNS)["runs"])

    def stop_run(self, run_id: str) -> dict[str, Any]:
        """Ask for a run's end."""
        return self._call("POST", STOP_RUN, run_id=run_id)

    def resume_run(self, run_id: str) -> dict[str, Any]:
        """Go on with a run that failed or was stopped."""
        return self._call("POST", RESUME_RUN, run_id=run_id)

    def run(self, run_id: str) -> dict[str, Any]:
        """Return a run's state."""
        return self._call("GET", RUN, run_id=run_id)

    def status(self) -> dict[str, Any]:
        """Return robots, runs, versions."""
        return self._call("GET", STATUS)

    def console_link(self) -> str:
        """Return the address that opens the console once.

        Raises:
            RoundError: this server has none.
        """
        return f"{self._url}{self._console('POST', CONSOLE_LINK)['path']}"

    def end_console_sessions(self) -> int:
        """Log every browser out; return how many there were."""
        return int(self._console("DELETE", CONSOLE_SESSIONS)["ended"])

    def _console(self, method: str, route: str) -> dict[str, Any]:
        try:
            return self._call(method, route)
        except RoundError as error:
            if "answers 404" not in str(error):
                raise
            raise RoundError(
                "this server has no console: it is a site relay (ask the fleet's server), was "
                "started with console.enabled = false, or is of an earlier release"
            ) from None

    def _call(self, method: str, route: str, body: Any = None, **parts: str) -> dict[str, Any]:
        import httpx

        try:
            response = self._client.request(method, path_of(ADMIN, route, **parts), json=body)
        except httpx.TransportError as error:
            raise ConnectionFailed(
                f"no answer from {self._url} ({error}); is it running? Start it with `cloud-server "
                f"start {self._server_dir.root}`"
            ) from None
        if response.status_code in (401, 403):
            raise RefusedError(f"{self._url} refuses the admin token of {self._server_dir.root}")
        if response.is_error:
            detail = self._filled(_detail(response))
            if response.status_code == 409:  # the server's own words, of what goes on there
                raise RoundError(detail)
            raise RoundError(f"the server answers {response.status_code}: {detail}")
        return dict(self._filled(response.json()))

    def _filled(self, value: Any) -> Any:
        """Name the directory in every command of an answer."""
        if isinstance(value, str):
            return with_directory(value, self._server_dir.root)
        if isinstance(value, list):
            return [self._filled(one) for one in value]
        if isinstance(value, dict):
            return {key: self._filled(one) for key, one in value.items()}
        return value


def _detail(response: Any) -> str:
    """Return why; an answer of something else than our routes is given as it is."""
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return str(response.text[:300]) or "no reason"
