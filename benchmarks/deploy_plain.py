"""How robots get models without a fleet tool: a folder on a web server, and a loop that asks it.

    python -m benchmarks.deploy_plain https://127.0.0.1:PORT/model.tflite CA MODEL.tflite SECONDS

The loop asks every so many seconds whether the file has changed (If-Modified-Since), writes it
aside and renames it. Nothing is tried, nothing is reported, nothing goes back. Standard library.
"""

import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen


def main() -> None:
    """Follow one file until the process is ended."""
    url, ca, model, seconds = sys.argv[1:]
    context, target, headers = ssl.create_default_context(cafile=ca), Path(model), {}
    while True:
        try:
            with urlopen(Request(url, headers=headers), context=context) as answer:  # noqa: S310
                aside = target.with_suffix(".new")
                aside.write_bytes(answer.read())
                aside.replace(target)
                headers = {"If-Modified-Since": answer.headers["Last-Modified"]}
        except HTTPError as error:
            if error.code != 304:
                raise
        time.sleep(float(seconds))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def folder_on_https(folder: Path, certificate: Path, key: Path) -> Iterator[int]:
    """Serve a folder on a free port while the block runs; yields the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    # The handshake belongs to the connection's own thread.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
