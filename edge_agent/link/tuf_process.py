"""The client of python-tuf in a child process: what it loads is given back when it ends.

  to the child    {"held": {file name: content}, "target": NAME, "base": PATH} or {"root": content}
  from the child  {"get": PATH}, any number of times, each answered by {"content": content or null}
                  or {"failed": true}
                  {"held": ..., "sha256": ... or null, "error": "..."}: the end

One line of JSON each; contents are base64. The link and what this robot trusts stay the parent's.
"""

import json
import os
import signal
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

from edge_agent.robot.child_process import import_paths, signal_at_parents_end, take_pipes
from fleet_model.errors import TrustError

Get = Callable[[str], "bytes | None"]
_COMMAND = ("-m", "edge_agent.link.tuf_process")


def refresh(held: dict[str, bytes], target: str, base: str, get: Get) -> str | None:
    """Return the sha256 of what is signed under a name: tuf_client.refresh, with its errors."""
    job = {"held": _encoded(held), "target": target, "base": base}
    end = _ask(job, get)
    held |= {name: b64decode(content) for name, content in end["held"].items()}
    if end["failed"]:
        raise end["failed"]
    _raise(end["error"])
    signed: str | None = end["sha256"]
    return signed


def require_root(content: bytes) -> None:
    """Raise TrustError unless this is a root that its own keys have signed."""
    end = _ask({"root": b64encode(content).decode()}, lambda path: None)
    _raise(end["error"])


def _ask(job: dict[str, Any], get: Get) -> dict[str, Any]:
    """Return how a job has ended; "failed" is what `get` has raised."""
    failed: Exception | None = None
    with subprocess.Popen(
        [sys.executable, *_COMMAND],
        env={**os.environ, **import_paths()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        assert child.stdin
        assert child.stdout
        try:
            _say(child.stdin, job)
            for line in child.stdout:
                said = json.loads(line)
                if "get" not in said:
                    return {**said, "failed": failed}
                try:
                    content = get(said["get"])
                except Exception as error:  # noqa: BLE001  (raised again by `refresh`)
                    failed = error
                    _say(child.stdin, {"failed": True})
                else:
                    _say(child.stdin, {"content": _coded(content)})
        except (BrokenPipeError, ValueError):  # it died, in the middle of a line perhaps
            pass
        finally:
            child.kill()
    raise TrustError(
        f"the check of signatures ended before it answered (code {child.returncode}); the active "
        "model stays, and the check is made again"
    )


def main() -> None:
    """Do one job."""
    signal_at_parents_end(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the parent ends us
    inbound, outbound = take_pipes()
    job = json.loads(inbound.readline())
    if "root" in job:
        _say(outbound, {"error": _checked(b64decode(job["root"]))})
        return
    held = {name: b64decode(content) for name, content in job["held"].items()}

    def get(path: str) -> bytes | None:
        _say(outbound, {"get": path})
        answer = json.loads(inbound.readline())
        if "failed" in answer:
            raise _GetError
        content = answer["content"]
        return None if content is None else b64decode(content)

    signed, error = None, ""
    from edge_agent.link import tuf_client

    try:
        signed = tuf_client.refresh(held, job["target"], job["base"], get)
    except TrustError as refusal:
        error = str(refusal)
    except _GetError:
        pass
    _say(outbound, {"held": _encoded(held), "sha256": signed, "error": error})


class _GetError(Exception):
    """The parent could not get a file, and knows why."""


def _checked(content: bytes) -> str:
    from edge_agent.link import tuf_client

    try:
        tuf_client.require_root(content)
    except TrustError as error:
        return str(error)
    return ""


def _raise(error: str) -> None:
    if error:
        raise TrustError(error)


def _say(stream: Any, words: dict[str, Any]) -> None:
    stream.write(json.dumps(words).encode() + b"\n")
    stream.flush()


def _encoded(files: dict[str, bytes]) -> dict[str, str]:
    return {name: b64encode(content).decode() for name, content in files.items()}


def _coded(content: bytes | None) -> str | None:
    return None if content is None else b64encode(content).decode()


if __name__ == "__main__":
    main()
