"""Ask a running server as its operator, again and again, without a process of its own."""

import time

from cloud_server.cli.admin_client import AdminClient
from cloud_server.state.directory import ServerDirectory


class PolledAdmin:
    """Called, it returns an `AdminClient`; polls share one TLS connection.

    After a pause it is a new one: the server ends those that are idle for five seconds.
    """

    def __init__(self, server_dir: ServerDirectory) -> None:
        self._server_dir = server_dir
        self._asked_at = float("-inf")

    def __call__(self) -> AdminClient:
        if time.monotonic() - self._asked_at > 1:
            self._client = AdminClient(self._server_dir)
        self._asked_at = time.monotonic()
        return self._client
