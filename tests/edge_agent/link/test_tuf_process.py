"""The child process between a robot's link and the client of python-tuf; the rest is by attack."""

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloud_server.signing.keys import OnlineKeys
from cloud_server.signing.repository import SignedStore
from edge_agent.link import tuf_process
from edge_agent.link.tuf_process import refresh, require_root
from fleet_model.errors import ConnectionFailed, TrustError
from fleet_model.protocol.proof import utc_now
from fleet_model.protocol.routes import target_of

MANIFEST = Path(__file__).parents[2] / "data" / "tiny_bundle" / "manifest.json"


@pytest.fixture
def files(tmp_path):
    """Return file name -> content of the metadata of a store that offers one model."""
    store = SignedStore(tmp_path / "store", OnlineKeys(tmp_path / "secrets"))
    store.sign(lambda: {"stable": MANIFEST.read_bytes()}, utc_now())
    return {file.name: file.read_bytes() for file in (tmp_path / "store/metadata").iterdir()}


def test_a_refresh_leaves_nothing_of_the_library_behind(files):
    """A robot that is idle is not to keep 14 MB for what it does every ten minutes."""
    program = f"""
import sys
from edge_agent.link.tuf_process import refresh, require_root
files = {files!r}
require_root(files["1.root.json"])
held = {{"root.json": files["1.root.json"]}}
names = [{target_of("stable")!r}, "stable/sites/hall-1/manifest.json"]
(name, sha256), = refresh(held, names, "/m/", lambda path: files.get(path[3:])).items()
print(sha256)
print(sorted(held))
print([name for name in sys.modules if name.partition(".")[0] in ("tuf", "securesystemslib")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sha256, held, loaded = done.stdout.splitlines()
    assert len(sha256) == 64
    assert "timestamp.json" in held
    assert loaded == "[]"


def test_what_was_verified_before_the_link_fails_is_kept_and_its_error_passes(files):
    held = {"root.json": files["1.root.json"]}

    def get(path):
        if path.endswith(".snapshot.json"):
            raise ConnectionFailed("the server went away")
        return files.get(path[3:])

    with pytest.raises(ConnectionFailed, match="the server went away"):
        refresh(held, [target_of("stable")], "/m/", get)
    assert held["timestamp.json"] == files["timestamp.json"]
    assert "snapshot.json" not in held


def test_what_is_no_root_is_refused_with_the_next_step():
    with pytest.raises(TrustError, match="copy it from the server's kit"):
        require_root(b"{}")


def test_a_child_that_dies_is_told(files, monkeypatch):
    """As when the robot is out of memory."""
    monkeypatch.setattr(tuf_process, "_COMMAND", ["-c", "import os; os.kill(os.getpid(), 9)"])
    held = {"root.json": files["1.root.json"]}
    with pytest.raises(TrustError, match=r"ended before it answered \(code -9\); the active model"):
        refresh(held, [target_of("stable")], "/m/", files.get)
    assert held == {"root.json": files["1.root.json"]}


@pytest.mark.parametrize("sent", ["nothing", "half of a job", "a job"])
def test_a_child_whose_agent_was_killed_ends_without_a_word(files, sent):
    """Whether it waits for the job, for an answer, or writes where nobody reads any more."""
    child = subprocess.Popen(
        [sys.executable, "-m", "edge_agent.link.tuf_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    held = {"root.json": base64.b64encode(files["1.root.json"]).decode()}
    job = json.dumps({"held": held, "targets": ["stable/manifest.json"], "base": "/m/"}).encode()
    child.stdin.write({"nothing": b"", "half of a job": job, "a job": job + b"\n"}[sent])
    child.stdout.close()
    child.stdin.close()

    assert child.wait(240) == 1
    assert child.stderr.read() == b""
    child.stderr.close()


def test_an_agent_killed_while_its_child_works_leaves_no_temporary_folder(files, tmp_path):
    program = f"""
import time
from edge_agent.link.tuf_process import refresh

def get(path):
    print("asked", flush=True)
    time.sleep(600)

refresh({{"root.json": {files["1.root.json"]!r}}}, [{target_of("stable")!r}], "/m/", get)
"""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temporary)},
    ) as agent:
        assert agent.stdout.readline() == b"asked\n"
        assert [folder.name[:17] for folder in temporary.iterdir()] == ["fleetlearn-trust-"]
        agent.kill()
    end = time.monotonic() + 60
    while list(temporary.iterdir()):
        assert time.monotonic() < end, "the child's folder is still there"
        time.sleep(0.05)
