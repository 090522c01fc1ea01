"""Asking for help is instant: the command lines load nothing heavy before they need it."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.base

HEAVY = ["tensorflow", "flwr", "cv2", "rosbags", "keras", "httpx", "numpy", "ai_edge_litert"]
HEAVY += ["fastapi", "uvicorn", "torch", "pydantic", "cryptography", "psutil", "safetensors"]
HEAVY += ["prometheus_client", "tensorboard", "av", "transformers", "tokenizers", "onnxruntime"]
HEAVY += ["mcp", "anyio", "starlette"]
CODE = """
import json, sys
from importlib import import_module
sys.argv = ["program", *sys.argv[1:]]
main = import_module(MODULE).main
try:
    main()
except SystemExit as end:
    code = end.code
print("\\n" + json.dumps([code, [name for name in HEAVY if name in sys.modules]]))
"""


@pytest.mark.parametrize("words", [["--help"], ["--version"], []], ids=str)
@pytest.mark.parametrize("module", ["edge_agent.cli", "cloud_server.cli"])
def test_help_loads_nothing_heavy(module, words):
    code = CODE.replace("MODULE", repr(module)).replace("HEAVY", repr(HEAVY))
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    exit_code, loaded = json.loads(done.stdout.splitlines()[-1])
    assert loaded == []
    assert exit_code == (0 if words else 2)


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("edge_agent.cli", c)
        for c in (
            *("enroll", "run", "status", "predict", "extract", "inspect", "label", "serve"),
            "k8s-controller",
        )
    ]
    + [
        ("cloud_server.cli", c)
        for c in ("init", "start", "train", "status", "robots", "models", "k8s", "mcp")
    ]
    + [("cloud_server.cli", c) for c in ("history", "simulate")],
)
def test_help_of_a_command_loads_nothing_heavy(module, command):
    code = CODE.replace("MODULE", repr(module)).replace("HEAVY", repr(HEAVY))
    done = subprocess.run(
        [sys.executable, "-c", code, command, "--help"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


def test_reading_the_history_of_a_server_loads_no_numpy():
    code = "import sys, cloud_server.state.history; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_idle_agent_holds_nothing_that_signatures_and_buckets_need():
    """Both are read by child processes that end."""
    code = (
        "import sys, edge_agent.agent.agent, edge_agent.link.bucket, edge_agent.link.file_server\n"
        "print([name for name in ('tuf', 'fsspec', 's3fs', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
