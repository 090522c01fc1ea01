"""Talk to the running server as its operator: the admin credential lies in the server directory."""

import ssl
from typing import Any

from cloud_server.directory import ServerDirectory
from cloud_server.settings import load_settings
from fleet_model.errors import ConnectionFailed, RefusedError, RoundError

ADMIN = "/fleetlearn/v1/admin"


class AdminClient:
    """Calls of `cloud-server train` and `status`; never leaves this machine's directory."""

    def __init__(self, place: ServerDirectory) -> None:
        import httpx

        place.require()
        network = load_settings(place.settings).network
        host = "127.0.0.1" if network.host in ("0.0.0.0", "::") else network.host  # noqa: S104
        self._url = f"https://{host}:{network.port}"
        context = ssl.create_default_context(cafile=str(place.certificates / "ca.crt"))
        token = place.admin_token.read_text().strip()
        self._client = httpx.Client(
            base_url=self._url,
            verify=context,
            headers={"authorization": f"Bearer {token}"},
            timeout=30.0,
        )
        self._place = place

    def start_run(self, rounds: int) -> dict[str, Any]:
        """Start a run."""
        return self._call("POST", "/runs", {"rounds": rounds})

    def run(self, run_id: str) -> dict[str, Any]:
        """Return a run's state."""
        return self._call("GET", f"/runs/{run_id}")

    def status(self) -> dict[str, Any]:
        """Return robots, runs, versions."""
        return self._call("GET", "/status")

    def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        import httpx

        try:
            response = self._client.request(method, ADMIN + path, json=body)
        except httpx.TransportError as error:
            raise ConnectionFailed(
                f"no answer from {self._url} ({error}); is it running? Start it with `cloud-server "
                f"start {self._place.root}`"
            ) from None
        if response.status_code in (401, 403):
            raise RefusedError(f"{self._url} refuses the admin token of {self._place.root}")
        if response.is_error:
            detail = response.json().get("detail", response.text)
            raise RoundError(f"the server refuses: {detail}")
        return dict(response.json())
