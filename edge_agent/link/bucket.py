"""Models from a bucket, by fsspec in a child process: bucket_process.py has why, and the words.

fsspec knows no limit of time that holds for every kind of bucket: the child is ended where an
answer does not come.
"""

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edge_agent.link import answers
from edge_agent.link.download import Download
from edge_agent.robot.child_process import import_paths
from fleet_model.bundle import MAX_JSON_BYTES
from fleet_model.errors import ConnectionFailed, RefusedError, SettingsError

_COMMAND = ("-m", "edge_agent.link.bucket_process")
_NEEDED = {"s3": ("fsspec", "s3fs"), "s3a": ("fsspec", "s3fs")}
FIRST_BYTES, MOST_BYTES = 1 << 16, 1 << 20  # asked for at once: more while answers come quickly
QUICK_S, MOST_S = 1.0, 120.0


class Bucket:
    """Files of a bucket; for one thread."""

    def __init__(self, url: str, options: Mapping[str, Any], name: str) -> None:
        """Start nothing yet.

        Args:
            url: as fsspec knows it, e.g. s3://bucket/fleet.
            options: of fsspec, for this kind of bucket.
            name: for words.

        Raises:
            SettingsError: a package is missing.
        """
        kind = url.partition("://")[0]
        needed = _NEEDED.get(kind, ("fsspec",))
        if missing := [one for one in needed if importlib.util.find_spec(one) is None]:
            raise SettingsError(
                f"server.models {name} needs {' and '.join(missing)}: "
                "pip install 'fleetlearn[bucket]'"
            )
        self._job = {"url": url, "options": dict(options)}
        self._name = name
        self._child: subprocess.Popen[bytes] | None = None

    def small(self, path: str) -> bytes | None:
        """Return a small file; None if it is not there."""
        content = self._read(path, 0, MAX_JSON_BYTES + 1)
        if content is not None and len(content) > MAX_JSON_BYTES:
            raise ConnectionFailed(f"{self._name} answers more than {MAX_JSON_BYTES} bytes")
        return content

    def rest(self, download: Download, path: str, count: Callable[[int], None]) -> bool:
        """Fetch what is missing of a file: its name is its content, so any part of it fits."""
        missing = False

        def parts() -> Iterator[bytes]:
            nonlocal missing
            start, most, size = download.size, FIRST_BYTES, download.entry.size_bytes
            while start < size:
                begin = time.monotonic()
                content = self._read(path, start, min(most, size - start))
                missing = content is None
                if not content:
                    return
                count(len(content))
                start += len(content)
                yield content
                if time.monotonic() - begin < QUICK_S:
                    most = min(2 * most, MOST_BYTES)

        download.append(parts())
        return not missing

    def close(self) -> None:
        """End the child process."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def _read(self, path: str, start: int, most: int) -> bytes | None:
        """Return bytes of a file; None if it is not there."""
        said = self._ask({**self._job, "path": path, "start": start, "most": most}, most)
        if "failed" in said:
            kind = RefusedError if said["denied"] else ConnectionFailed
            raise kind(f"{self._name} does not give {path.rpartition('/')[2]}: {said['failed']}")
        content = said["content"]
        return None if content is None else b64decode(content)

    def _ask(self, words: dict[str, Any], most: int) -> dict[str, Any]:
        """Return the answer of the child; one that has ended for want of work is started again."""
        for _ in range(2):
            child = self._started()
            assert child.stdin
            assert child.stdout
            slow = threading.Event()

            def end(child: subprocess.Popen[bytes] = child, slow: threading.Event = slow) -> None:
                slow.set()
                child.kill()

            allowed_s = answers.SILENCE_S + most / answers.SLOWEST_BYTES_S
            timer = threading.Timer(min(allowed_s, MOST_S), end)
            timer.start()
            try:
                child.stdin.write(json.dumps(words).encode() + b"\n")
                child.stdin.flush()
                answer: dict[str, Any] = json.loads(child.stdout.readline())
            except (BrokenPipeError, ValueError):  # it has ended, in the middle of a line perhaps
                self.close()
            except BaseException:
                self.close()
                raise
            else:
                return answer
            finally:
                timer.cancel()
            if slow.is_set():
                raise ConnectionFailed(f"{self._name} answers too slowly")
        raise ConnectionFailed(f"what asks {self._name} ended before it answered")

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._child = subprocess.Popen(
                [sys.executable, *_COMMAND],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **import_paths()},
                start_new_session=True,  # Ctrl-C reaches the agent, which then ends the child
            )
        return self._child
