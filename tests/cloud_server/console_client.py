"""A browser without scripts, for tests of the console's routes."""

import re
import socket
import ssl

import httpx

from cloud_server.cli.admin_client import AdminClient


class Browser:
    """One that keeps cookies, and fills in forms as a page has them."""

    def __init__(self, server):
        self.server_dir = server.server_dir
        self.base = f"https://{server.address}"
        ca = str(self.server_dir.certificates / "ca.crt")
        self.context = ssl.create_default_context(cafile=ca)
        self.client = httpx.Client(base_url=self.base, verify=self.context, timeout=240)

    def head_alone(self, path, length):
        """Return the answer to a request whose body never comes."""
        cookie = "; ".join(f"{one.name}={one.value}" for one in self.client.cookies.jar)
        host, _, port = self.base.removeprefix("https://").partition(":")
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\norigin: {self.base}\r\n"
            f"cookie: {cookie}\r\ncontent-length: {length}\r\n\r\n"
        )
        with (
            socket.create_connection((host, int(port)), 20) as plain,
            self.context.wrap_socket(plain, server_hostname=host) as client,
        ):
            client.sendall(head.encode())
            answer = b""
            while piece := client.recv(4096):  # it closes the connection
                answer += piece
        return answer

    def get(self, path, **more):
        return self.client.get(path, **more)

    def post(self, path, values, **headers):
        return self.client.post(path, data=values, headers={"origin": self.base} | headers)

    def token(self):
        return re.search(r'name="token" value="([^"]+)"', self.get("/console").text)[1]

    def press(self, button, **values):
        return self.post(f"/console/do/{button}", values | {"token": self.token()})

    def log_in(self, link=None):
        link = link or AdminClient(self.server_dir).console_link()
        code = re.search(r'name="code" value="([^"]+)"', self.get(link).text)[1]
        return self.post("/console/login", {"code": code})
