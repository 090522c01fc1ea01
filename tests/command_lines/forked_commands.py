"""Run commands of both programs in children of one process that has loaded them: 30 ms each.

Reads one JSON object a line: {"words", "cwd", "stdout"}; answers {"code", "out", "err"}. `stdout`
is "pipe", "closed" (a pipe that nobody reads) or the path of a file. A child of root has none of
root's rights over files; it stays root by name, so that it can load what lies in root's home.
"""

import ctypes
import importlib
import json
import os
import pkgutil
import sys
import tempfile
import threading
import traceback
from pathlib import Path

import cloud_server.cli
import edge_agent.cli
import fleet_model
import site_relay.cli


def write():
    """Write a file of 100 kB: what the cases make impossible."""
    Path(sys.argv[1]).write_bytes(b"x" * 100_000)


PROGRAMS = {
    "cloud-server": cloud_server.cli.main, "edge-agent": edge_agent.cli.main,
    "site-relay": site_relay.cli.main, "write": write,
}  # fmt: skip
LONGEST_S = 120
# Flyte and kfp have an environment of their own.
ELSEWHERE = (
    "__main__", "flyte_tasks",
    "kubeflow.compiling", "kubeflow.definition", "kubeflow.local_run",
)  # fmt: skip


def load():
    """Import whatever a command may import, so that no child does it again."""
    for package in (cloud_server, edge_agent, fleet_model):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(ELSEWHERE):
                importlib.import_module(module.name)
    import cv2  # noqa: F401
    import uvicorn  # noqa: F401


def main():
    load()
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)  # noqa: T201


def run(words, cwd, stdout):
    assert threading.active_count() == 1, "a fork takes no other thread along"
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        return _run(words, cwd, stdout, out, err)


def _run(words, cwd, stdout, out, err):
    writes = out.fileno()
    if stdout == "closed":
        reads, writes = os.pipe()
        os.close(reads)
    elif stdout != "pipe":
        writes = os.open(stdout, os.O_WRONLY)
    child = os.fork()
    if not child:
        _become(words, cwd, writes, err.fileno())
    timer = threading.Timer(LONGEST_S, os.kill, (child, 9))
    timer.start()
    _, status = os.waitpid(child, 0)
    timer.cancel()
    timer.join()
    answer = {"code": os.waitstatus_to_exitcode(status)}
    for name, stream in (("out", out), ("err", err)):
        stream.seek(0)
        answer[name] = stream.read().decode(errors="replace")
    if stdout != "pipe":
        os.close(writes)
    return answer


def _become(words, cwd, out, err):
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        _drop_rights()
        os.chdir(cwd)
        sys.argv = words
        PROGRAMS[words[0]]()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  (as the interpreter shows it)
        traceback.print_exc()
        code = 1
    finally:
        try:
            sys.stdout.flush()
        except OSError:
            code = 120  # as the interpreter does
        os._exit(code)


def _drop_rights():
    """Give up every capability, among them to read and write what others own."""
    if os.geteuid() == 0:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
        if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
            raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    main()
