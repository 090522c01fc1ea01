"""A name of a hub is fetched where there is one, and told in one line where there is none."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cloud_server.models.hub import fetched, is_hub_name
from fleet_model.errors import CheckpointError

FILES = ("config.json", "tokenizer.json")


def test_a_name_is_what_is_no_path_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for name in ("distilbert-base-uncased", "owner/model", "owner/model-1.5_x"):
        assert is_hub_name(Path(name))
    for name in ("mine", "/data/model", "../model", "a/b/c", "with space/x"):
        assert not is_hub_name(Path(name))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Return a small hub's set of models; huggingface_hub is sent there."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    content = b'{"model_type": "distilbert"}'

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, *, body):
            if not self.path.startswith(("/api/models/own/tiny", "/own/tiny")):
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.end_headers()
                return
            data = content
            if self.path.startswith("/api/"):
                names = [{"rfilename": name} for name in (*FILES, "pytorch_model.bin")]
                if "/tree/" in self.path:
                    names = [
                        {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                        for name in (*FILES, "pytorch_model.bin")
                    ]
                    data = json.dumps(names).encode()
                else:
                    data = json.dumps(
                        {"id": "own/tiny", "sha": "1" * 40, "siblings": names}
                    ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", "1" * 40)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    wanted = huggingface_hub.snapshot_download

    def snapshot(name, **options):
        return wanted(name, endpoint=address, cache_dir=tmp_path / "kept", **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    yield
    server.shutdown()
    server.server_close()


def test_the_files_of_a_model_are_fetched_and_no_others(hub):
    folder = fetched("own/tiny", FILES)
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES)
    assert json.loads((folder / "config.json").read_text()) == {"model_type": "distilbert"}


def test_a_model_that_no_hub_has_is_told_in_one_line(hub):
    with pytest.raises(CheckpointError, match=r"no such folder here, and no hub gives it") as error:
        fetched("own/other", FILES)
    assert "\n" not in str(error.value)
    assert "config.json, tokenizer.json" in str(error.value)
