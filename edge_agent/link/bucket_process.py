"""Files of a bucket, by fsspec: a child process, since s3fs alone takes 43 MB and 0.9 s to load.

  to the child    {"url": URL, "options": {...}, "path": PATH, "start": BYTE, "most": BYTES}
  from the child  {"content": base64, or null if there is no such file}
                  or {"failed": WORDS, "denied": whether a credential is missing or wrong}

One line of JSON each, and never two before an answer. It ends when it has nothing to
do, and with its parent.
"""

import json
import select
import signal
from base64 import b64encode
from typing import Any

from edge_agent.robot.child_process import signal_at_parents_end, take_pipes

IDLE_S = 30.0
MOST_WORDS = 200  # characters of what a library says
_ROOTS = ".root.json"  # the next one is asked for until there is none


class Files:
    """Reads parts of files below one URL."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        """Load what this kind of bucket needs; raises whatever that raises."""
        from fsspec.core import url_to_fs

        self._files, self._folder = url_to_fs(url, **options)

    def read(self, path: str, start: int, most: int) -> dict[str, Any]:
        """Return the answer to a request."""
        try:
            content = self._files.cat_file(
                f"{self._folder.rstrip('/')}{path}", start=start, end=start + most
            )
        except FileNotFoundError:
            return {"content": None}
        except PermissionError as error:  # also of what is not there, where one may not list
            if path.endswith(_ROOTS):
                return {"content": None}
            return {"failed": _words(error), "denied": True}
        return {"content": b64encode(content).decode()}


def main() -> None:
    """Answer until there is nothing to do."""
    signal_at_parents_end(signal.SIGKILL)
    inbound, outbound = take_pipes()
    files = None
    while select.select([inbound], [], [], IDLE_S)[0] and (line := inbound.readline()):
        try:
            job = json.loads(line)
            files = files or Files(job["url"], job["options"])
            answer = files.read(job["path"], job["start"], job["most"])
        except Exception as error:  # noqa: BLE001  (of any library: its words are the answer)
            denied = "credential" in str(error).lower()
            answer = {"failed": _words(error), "denied": denied}
        outbound.write(json.dumps(answer).encode() + b"\n")
        outbound.flush()


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:MOST_WORDS] or type(error).__name__


if __name__ == "__main__":
    main()
