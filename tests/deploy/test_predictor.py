"""deploy/kubernetes/predictor: KServe's own clients ask the process that its container runs.

A real bundle of a server's store, a real `edge-agent serve --pod`; no cluster was there.
"""

import json
import os
import signal
import subprocess
import sys
import time

import httpx
import numpy as np
import pytest
from free_ports import free_port
from tiny_versions import TINY

from fleet_model.bundle import MANIFEST, read_bundle, to_json
from fleet_model.engine import TFLiteEngine

pytestmark = pytest.mark.slow
CLIENT = f"{os.path.dirname(__file__)}/kserve_client.py"  # noqa: PTH120
PATIENCE_S = 240.0
RIGHT = {
    "name": "image", "datatype": "FP32", "shape": [2, 32, 32, 3], "value": 100.0,
    "model": "fleet-model", "binary": True,
}  # fmt: skip
WRONG = {
    "name": ({"name": "picture"}, "no input 'picture'"),
    "type": ({"datatype": "FP64"}, "expected FP32"),
    "shape": ({"shape": [2, 16, 32, 3]}, "expected [-1, 32, 32, 3]"),
    "range": ({"value": 300.0}, "expected 0 to 255"),
    "NaN": ({"value": "nan"}, "not finite"),
}
CASES = [RIGHT, {**RIGHT, "binary": False}, *({**RIGHT, **more} for more, _ in WRONG.values())]


@pytest.fixture(scope="module")
def bundle(new_server_dir, tmp_path_factory):
    """Return the folder that `models export --format bundle` writes."""
    folder = tmp_path_factory.mktemp("mnt")
    server_dir = new_server_dir(folder / "server")
    export = [sys.executable, "-m", "cloud_server.cli", "models", "export", str(server_dir.root)]
    subprocess.run(
        [*export, "--format", "bundle", "--out", str(folder / "models")],
        check=True,
        capture_output=True,
    )
    return folder / "models"


def command(bundle, *more):
    return [sys.executable, "-m", "edge_agent", "serve", "--bundle", str(bundle), *more]


@pytest.fixture(scope="module")
def predictor(bundle, tmp_path_factory):
    """Return the addresses of a predictor; it must end with exit code 0 on SIGTERM."""
    rest, grpc = (f"0.0.0.0:{free_port()}" for _ in range(2))
    log = tmp_path_factory.mktemp("log") / "log"
    ports = ("--rest", rest, "--grpc", grpc)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command(bundle, "--pod", "--name", "fleet-model", *ports), stderr=stream, stdout=stream
        )
    here = {
        "rest": rest.replace("0.0.0.0", "127.0.0.1"),
        "grpc": grpc.replace("0.0.0.0", "127.0.0.1"),
    }
    try:
        end = time.monotonic() + PATIENCE_S
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            try:
                if httpx.get(f"http://{here['rest']}/v2/health/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        yield here
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module", params=["rest", "grpc"])
def told(request, predictor, tool, tmp_path_factory):
    """Return what KServe's client of one wire was told, for all cases."""
    file = tmp_path_factory.mktemp("cases") / "cases.json"
    file.write_text(json.dumps(CASES))
    done = tool("python", CLIENT, request.param, predictor[request.param], "fleet-model", file)
    assert done.returncode == 0, done.stderr
    return request.param, json.loads(done.stdout.splitlines()[-1])


def test_kserves_client_gets_the_answers_of_the_model_itself(told, bundle):
    _, answer = told
    image = np.full((32, 32, 3), 100.0, np.float32)
    expected = [TFLiteEngine(bundle).run({"image": image})["logits"]] * 2
    assert answer["health"] == [True, True, True]
    for logits in answer["told"][:2]:
        assert np.allclose(logits, expected, rtol=1e-6)


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_400_and_says_what_was_expected(told, case):
    wire, answer = told
    code, words = answer["told"][2 + list(WRONG).index(case)]
    assert code == (400 if wire == "rest" else "INVALID_ARGUMENT")
    assert WRONG[case][1] in words


def test_a_pod_is_asked_by_any_name_and_on_its_own_address(predictor):
    answer = httpx.get(
        f"http://{predictor['rest']}/v2/models/fleet-model/ready",
        headers={"host": "fleet-model.default.example.com"},
    )
    assert (answer.status_code, answer.json()["ready"]) == (200, True)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--rest", "0.0.0.0:0"], 2, "0.0.0.0 is reached by other machines"),
        (["--pod", "--name", "a b"], 2, "--name 'a b': expected letters"),
        (["--pod", "--rest", "robot.example:80"], 2, "robot.example is reached by"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line(bundle, arguments, code, words):
    done = subprocess.run(
        command(bundle, *arguments), capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_model_that_no_pod_can_serve_is_told_at_once(tmp_path):
    manifest = read_bundle(TINY)
    task = manifest.described_task.model_copy(update={"answer": "text", "classes": ()})
    changes = {
        "adapter": ({"task": task}, "`cloud-server serve-adapters DIR PLAN` does"),
        "no engine": ({"engines": {"int8": manifest.engines["fp32"]}}, "has no 'fp32' engine"),
    }
    for name, (change, words) in changes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST).write_bytes(to_json(manifest.model_copy(update=change)))
        done = subprocess.run(
            command(tmp_path / name, "--pod"), capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert (done.returncode, words in done.stderr) == (3, True), done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent", "serve", "--pod"], capture_output=True, text=True
    )
    assert (done.returncode, "name the folder with --bundle" in done.stderr) == (2, True)
