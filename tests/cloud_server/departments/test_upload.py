"""`cloud-server adapters`, and the hub it uploads to: huggingface_hub's calls, answered here."""

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from fleet_model.adapters.spec import LoraSpec
from fleet_model.bundle import TRAINER, FileEntry, TensorSpec, TrainerSpec, WorkloadSpec, to_json
from fleet_model.errors import BundleError, ConnectionFailed, RefusedError, SettingsError
from fleet_model.signatures import FROZEN
from fleet_model.weights import read_weights, write_weights
from fleet_model.workloads.causal_lm.peft_files import ADAPTER, ADAPTER_CONFIG, write_adapter

SPEC = LoraSpec(rank=2, alpha=4.0, targets={"layers/0/q_proj/kernel": (6, 4)})
TOKEN = "hf_allowed"


class Hub(ThreadingHTTPServer):
    """Has repositories of one owner, private ones for whoever has the token."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.files, self.private, self.commits, self.status = {}, {}, [], 0
        self.address = f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    """The calls of an upload."""

    def do_GET(self):
        name = self.path.removeprefix("/api/models/")
        self.answer(200, {"id": name, "sha": self.head(name), "siblings": []})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status:
            return self.answer(self.server.status, {"error": "no space left for this account"})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            return self.created(json.loads(body))
        if self.path == "/api/validate-yaml":  # of the page
            return self.answer(200, {"errors": [], "warnings": []})
        name = self.path.removeprefix("/api/models/").rpartition("/")[0].rpartition("/")[0]
        if "/preupload/" in self.path:
            wanted = [one["path"] for one in json.loads(body)["files"]]
            files = [{"path": path, **self.known(name, path)} for path in wanted]
            return self.answer(200, {"files": files})
        return self.committed(name, [json.loads(line) for line in body.splitlines()])

    def created(self, about):
        name = f"{about['organization']}/{about['name']}"
        there = name in self.server.files
        self.server.files.setdefault(name, {})
        is_private = about.get("visibility") == "private" or about.get("private", False)
        self.server.private.setdefault(name, is_private)
        url = {"url": f"{self.server.address}/{name}"}
        return self.answer(409 if there else 200, url)

    def known(self, name, path):
        content = self.server.files[name].get(path)
        about = {"uploadMode": "regular", "shouldIgnore": False}
        if content is not None:
            about["oid"] = sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return about

    def committed(self, name, lines):
        header, *files = lines
        for one in files:
            value = one["value"]
            self.server.files[name][value["path"]] = base64.b64decode(value["content"])
        self.server.commits.append(header["value"]["summary"])
        url = f"{self.server.address}/{name}/commit/{self.head(name)}"
        return self.answer(200, {"commitUrl": url, "commitOid": self.head(name), "hookOutput": ""})

    def head(self, _):
        return f"{len(self.server.commits):040d}"

    def answer(self, status, about):
        content = json.dumps(about).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    one = Hub()
    threading.Thread(target=one.serve_forever, daemon=True).start()
    yield one
    one.shutdown()
    one.server_close()


@pytest.fixture
def fleet(server_dir):
    """Return the directory of a fleet with two departments' adapters of its rehearsal."""
    shutil.rmtree(server_dir.model)
    server_dir.model.mkdir()
    entry = FileEntry(sha256="ab" * 32, size_bytes=1)
    spec = TrainerSpec(
        workload=WorkloadSpec(name="causal-lm", config={}), trainable="lora",
        tensors={name: TensorSpec(shape=shape) for name, shape in SPEC.factors.items()},
        batch_size=1, files={FROZEN: entry}, parts={}, adapter=SPEC,
    )  # fmt: skip
    (server_dir.model / TRAINER).write_bytes(to_json(spec))
    random = np.random.default_rng(0)
    for name in ("books", "toys"):
        folder = server_dir.rehearsed / "round-000003" / name
        folder.mkdir(parents=True)
        weights = {n: random.normal(size=s).astype(np.float32) for n, s in SPEC.factors.items()}
        write_adapter(SPEC, weights, folder)
    return server_dir


@pytest.fixture
def command(fleet, hub, tmp_path):
    """Return what runs `cloud-server adapters` on the fleet, with a token unless told otherwise."""

    def run(what, *arguments, **environment):
        done = subprocess.run(
            [sys.executable, "-m", "cloud_server.cli", "adapters", what, fleet.root, *arguments],
            capture_output=True, text=True, check=False,
            env={
                **os.environ, "HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN,
                "HF_HOME": str(tmp_path / "hf"), "COLUMNS": "200", **environment,
            },
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


def test_all_departments_are_brought_in_one_commit_and_not_again(command, hub, fleet):
    pytest.importorskip("huggingface_hub")
    code, out, err = command("upload", "acme/helpdesk", "--base", "acme/base-135m")
    assert code == 0, err
    assert "acme/helpdesk: books (round 3), toys (round 3); commit 0000" in out
    files = dict(hub.files["acme/helpdesk"])
    for name in ("books", "toys"):
        for file in (ADAPTER, ADAPTER_CONFIG):
            there = fleet.rehearsed / "round-000003" / name / file
            assert files.pop(f"{name}/{file}") == there.read_bytes()
    card = files.pop("README.md").decode()
    assert files == {}
    assert "base_model: acme/base-135m\n" in card
    assert "| `toys` | round 3 | 2 |" in card
    assert 'subfolder="books"' in card
    assert "abababababab" in card
    assert hub.private == {"acme/helpdesk": True}
    assert hub.commits == ["Adapters of books (round 3), toys (round 3)"]

    code, out, err = command("upload", "acme/helpdesk", "--base", "acme/base-135m", "--json")
    assert (code, json.loads(out)["changed"], len(hub.commits)) == (0, False, 1), err
    assert err == ""  # the words of the library are not ours


def test_one_department_is_brought_and_the_others_stay(command, hub):
    pytest.importorskip("huggingface_hub")
    code, out, err = command("upload", "acme/one", "--department", "toys", "--public", "--json")
    assert code == 0, err
    assert [one["department"] for one in json.loads(out)["adapters"]] == ["toys"]
    assert {name.partition("/")[0] for name in hub.files["acme/one"]} == {"toys", "README.md"}
    assert hub.private == {"acme/one": False}


def test_what_a_hub_refuses_is_told_in_one_line(command, hub):
    pytest.importorskip("huggingface_hub")
    for environment, error, words in (
        ({"HF_TOKEN": "hf_other"}, RefusedError, "set HF_TOKEN to one with the right to write"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, ConnectionFailed, "no hub answers at http://127."),
        ({"HF_HUB_OFFLINE": "1"}, ConnectionFailed, "HF_HUB_OFFLINE is set; unset it"),
    ):
        code, _, err = command("upload", "acme/x", **environment)
        assert (code, words in err, "Nothing was uploaded" in err) == (
            error.exit_code,
            True,
            True,
        ), err
    hub.status = 507
    code, _, err = command("upload", "acme/x")
    assert (code, "status 507" in err) == (ConnectionFailed.exit_code, True), err
    assert hub.files == {}


def test_what_is_no_adapter_of_this_base_never_leaves(command, hub, fleet):
    file = fleet.rehearsed / "round-000003" / "toys" / ADAPTER
    tensors = {name: np.full_like(one, np.nan) for name, one in read_weights(file).items()}
    write_weights(file, tensors)
    code, _, err = command("upload", "acme/x")
    assert code == BundleError.exit_code
    assert "department toys, round 3" in err
    assert "NaN or infinity" in err
    assert hub.files == {}


def test_wrong_names_are_told_with_those_that_there_are(command):
    for arguments, words in (
        (("acme/x", "--department", "cars"), "there is no department cars; those with an adapter"),
        (("helpdesk",), "helpdesk: expected the repository as OWNER/NAME"),
        (("acme/x", "--base", "a b"), "--base a b: expected OWNER/NAME"),
    ):
        code, _, err = command("upload", *arguments)
        assert (code, words in err) == (SettingsError.exit_code, True), err


def test_the_list_says_which_adapter_each_department_has(command):
    code, out, _ = command("list", "--json")
    found = json.loads(out)["adapters"]
    assert (code, [one["department"] for one in found]) == (0, ["books", "toys"])
    assert {one["what"] for one in found} == {"round 3"}
    assert {one["rank"] for one in found} == {2}
    assert len({one["sha256"] for one in found}) == 2
    code, out, _ = command("list")
    assert "toys" in out
    assert "round 3" in out
