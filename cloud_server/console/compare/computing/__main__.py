"""The process that computes: it opens the models, and decodes what was sent.

The first line of JSON on stdin says what to open, each further one asks, and its bytes follow. A
line on stdout answers; the rest goes to stderr.

    {"models": [...], "idle_s": 600}, models as contenders.py has them

    {"ask": "answer", "repeats": 3, "bytes": 9} and 9 bytes    {"answers": [...], "agree": [...]}
    {"ask": "preview", "side": 320, "bytes": 9} and 9 bytes    {"bytes": 7} and a JPEG of 7 bytes

The first line tells what was opened, {"models": [...]}, or an error: {"error": class, "message"}.
It ends when stdin does, and when nobody has asked for `idle_s` seconds.
"""

import json
import os
import select
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

from cloud_server.console.compare.computing.answering import Answering
from cloud_server.console.compare.contenders import Contender
from fleet_model.errors import BundleError, FleetError


def main() -> None:
    """Open the models, then answer until stdin ends."""
    stdin, outbound = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        job = json.loads(stdin.readline())
        answering = Answering([Contender(*row) for row in job["models"]])
    except FleetError as error:
        _tell(outbound, _failed(error))
        return
    _tell(outbound, {"models": answering.models})
    # Whoever asks waits for the answer: between two questions nothing lies in the buffer.
    while select.select([stdin], [], [], job["idle_s"])[0] and (line := stdin.readline()):
        order = json.loads(line)
        _answer(answering, order, stdin.read(order["bytes"]), outbound)


def _answer(
    answering: Answering, order: Mapping[str, Any], content: bytes, outbound: BinaryIO
) -> None:
    try:
        if order["ask"] == "preview":
            picture = answering.preview(content, order["side"])
            _tell(outbound, {"bytes": len(picture)}, picture)
        else:
            _tell(outbound, answering.answer(content, order["repeats"]))
    except FleetError as error:
        _tell(outbound, _failed(error))
    except (MemoryError, RuntimeError, ValueError) as error:  # a model that fails on this input
        why = str(error).partition("\n")[0][:200]
        _tell(outbound, _failed(BundleError(f"a model cannot answer it: {why}")))


def _failed(error: FleetError) -> dict[str, str]:
    return {"error": type(error).__name__, "message": str(error)}


def _tell(outbound: BinaryIO, line: Mapping[str, Any], content: bytes = b"") -> None:
    outbound.write(json.dumps(line).encode() + b"\n" + content)
    outbound.flush()


if __name__ == "__main__":
    main()
