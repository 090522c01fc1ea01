"""The client of python-tuf in a child process: what it loads is given back when it ends.

  to the child    {"held": {file name: content}, "targets": [NAME, ...], "base": PATH}
                  or {"root": content}
  from the child  {"get": PATH}, any number of times, each answered by {"content": content or null}
                  or {"failed": true}
                  {"held": ..., "signed": {NAME: sha256}, "error": "..."}: the end

One line of JSON each; contents are base64. The link and what this robot trusts stay the parent's.
"""

import json
import os
import signal
import subprocess
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Any

from edge_agent.robot.child_process import import_paths, take_pipes
from fleet_model.errors import TrustError

Get = Callable[[str], "bytes | None"]  # path of the server -> content; None: it is not there
_COMMAND = ("-m", "edge_agent.link.tuf_process")


def refresh(held: dict[str, bytes], targets: Sequence[str], base: str, get: Get) -> dict[str, str]:
    """Return name -> sha256 of what is signed: tuf_client.refresh, with its errors."""
    job = {"held": _encoded(held), "targets": list(targets), "base": base}
    return _ask(job, held, get)


def require_root(content: bytes) -> None:
    """Raise TrustError unless this is a root that its own keys have signed."""
    _ask({"root": _text(content)}, {}, lambda path: None)


def _ask(job: dict[str, Any], held: dict[str, bytes], get: Get) -> dict[str, str]:
    """Have a job done; add what it has verified to `held`, return what it found signed."""
    failed: Exception | None = None
    with subprocess.Popen(
        [sys.executable, *_COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **import_paths()},
        start_new_session=True,  # Ctrl-C reaches the agent, which then ends the child
    ) as child:
        assert child.stdin
        assert child.stdout
        end = None
        try:
            _say(child.stdin, job)
            for line in child.stdout:
                said = json.loads(line)
                if "get" not in said:
                    end = said
                    continue
                answer: dict[str, Any] = {"failed": True}
                try:
                    answer = {"content": _text(get(said["get"]))}
                except Exception as error:  # noqa: BLE001  (raised again below)
                    failed = error
                _say(child.stdin, answer)
        except (BrokenPipeError, ValueError):  # it died, in the middle of a line perhaps
            pass
        # Any other error closes the pipes, which ends the child.
    if end is None:
        raise TrustError(
            f"the check of signatures ended before it answered (code {child.returncode}); the "
            "active model stays, and the check is made again"
        )
    held |= {name: b64decode(content) for name, content in end["held"].items()}
    if failed:
        raise failed
    if end["error"]:
        raise TrustError(end["error"])
    signed: dict[str, str] = end["signed"]
    return signed


def main() -> None:
    """Do one job; a pipe that the agent's end has closed ends it as well.

    No signal does: one would leave the temporary folder, or interrupt its removal.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # systemd sends it to agent and child
    inbound, outbound = take_pipes()
    try:
        _work(inbound, outbound)
    except (BrokenPipeError, EOFError):
        os._exit(1)


def _work(inbound: Any, outbound: Any) -> None:
    job = _heard(inbound)
    held = {name: b64decode(content) for name, content in job.get("held", {}).items()}
    from edge_agent.link import tuf_client

    def get(path: str) -> bytes | None:
        _say(outbound, {"get": path})
        answer = _heard(inbound)
        if "failed" in answer:
            raise _GetError
        content = answer["content"]
        return None if content is None else b64decode(content)

    signed, error = dict[str, str](), ""
    try:
        if "root" in job:
            tuf_client.require_root(b64decode(job["root"]))
        else:
            signed = tuf_client.refresh(held, job["targets"], job["base"], get)
    except TrustError as refusal:
        error = str(refusal)
    except _GetError:
        pass
    _say(outbound, {"held": _encoded(held), "signed": signed, "error": error})


class _GetError(Exception):
    """The parent could not get a file, and knows why."""


def _heard(stream: Any) -> dict[str, Any]:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    said: dict[str, Any] = json.loads(line)
    return said


def _say(stream: Any, words: dict[str, Any]) -> None:
    stream.write(json.dumps(words).encode() + b"\n")
    stream.flush()


def _encoded(files: dict[str, bytes]) -> dict[str, str | None]:
    return {name: _text(content) for name, content in files.items()}


def _text(content: bytes | None) -> str | None:
    return None if content is None else b64encode(content).decode()


if __name__ == "__main__":
    main()
