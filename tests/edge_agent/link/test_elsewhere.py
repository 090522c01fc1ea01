"""Models from a file server or a bucket: verified as those of the server; no proof is sent there.

The file server is a real one over TLS, the bucket a real S3 server (moto) in a process of its own.
"""

import http.server
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from functools import partial

import pytest
from free_ports import free_port

from cloud_server.robots.register import Register
from cloud_server.signing.signing import offer, offered
from cloud_server.signing.sync import Folder, destination_of, sync
from cloud_server.state.model_store import DirectoryStore
from edge_agent.cli.doctor import examine
from edge_agent.cli.enroll import enroll
from edge_agent.link import answers, bucket
from edge_agent.link.elsewhere import open_elsewhere
from edge_agent.link.server_link import HttpsStore
from edge_agent.link.signed_models import SignedModels
from edge_agent.robot.settings import ExampleSettings, load_settings
from fleet_model.errors import BundleError, ConnectionFailed, SettingsError, TrustError

TIMESTAMP = "metadata/timestamp.json"


@pytest.fixture(scope="module")
def server(running_server):
    end = time.monotonic() + 240
    while not (running_server.server_dir.store / TIMESTAMP).exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    return running_server.server_dir


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder; `server.answer` may take a request over, and headers are remembered."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append((self.path, {name.lower() for name in self.headers}))
        if self.server.answer is None or not self.server.answer(self):
            super().do_GET()

    def log_message(self, *words):
        pass


@pytest.fixture
def files(server, tmp_path):
    """A file server over TLS with the certificate of the server's own authority."""
    folder = tmp_path / "served"
    (folder / "fleet").mkdir(parents=True)
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=folder)
    ) as one:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server.certificates / "server.crt", server.secrets / "server.key")
        one.socket = context.wrap_socket(one.socket, server_side=True)
        one.asked, one.answer, one.folder = [], None, folder / "fleet"
        one.url = f"https://127.0.0.1:{one.server_port}/fleet"
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


class Robot:
    """One robot that takes models from elsewhere; a new process each time, as after a start."""

    def __init__(self, server, folder, **link):
        name = f"r{time.monotonic_ns()}"
        self.folder = folder / name
        line = enroll(server.kit, self.folder, ExampleSettings(), train=False)
        Register(server.robots).add(name, "hall", line)
        settings = load_settings(self.folder / "agent.toml", {})
        self.link = settings.server.model_copy(update=link)
        self.trust, self.into = settings.state / "trust", self.folder / "object"
        self.stores = []

    def store(self):
        signed = SignedModels(self.trust, self.link.root)
        self.stores.append(
            HttpsStore(self.link, signed=signed, elsewhere=open_elsewhere(self.link))
        )
        return self.stores[-1]

    def look(self):
        return self.store().latest("stable")

    def fetch(self, entry):
        self.into.unlink(missing_ok=True)
        store = self.store()
        store.fetch(entry.sha256, entry.size_bytes, self.into)
        return self.into.read_bytes()


@pytest.fixture
def robot(server, files, tmp_path):
    sync(server, Folder(files.folder))
    one = Robot(server, tmp_path, models=files.url, models_ca=server.certificates / "ca.crt")
    yield one
    for store in one.stores:
        store.close()


def publish(server, version):
    store = DirectoryStore(server.store)
    if version not in store.published():
        store.reissue(1, version, "2026-01-01T00:00:00")
    offer(server, "stable", version)


def an_object(model):
    return next(iter(model.manifest.files.values()))


def get(address):
    """Fail unless somebody listens."""
    urllib.request.urlopen(address, timeout=5).close()


# -------------------------------------------------------------------------------- a file server


def test_what_is_signed_comes_from_there_and_the_server_is_asked_for_the_rest(robot, server, files):
    model = robot.look()
    assert model.content == offered(server)["stable"]
    entry = an_object(model)
    assert len(robot.fetch(entry)) == entry.size_bytes
    paths = [path for path, _ in files.asked]
    assert f"/fleet/{TIMESTAMP}" in paths
    assert f"/fleet/objects/{entry.sha256}" in paths
    sent = set().union(*(headers for _, headers in files.asked))
    assert sent <= {
        "host", "accept", "accept-encoding", "connection", "user-agent", "cache-control", "range",
    }  # fmt: skip
    assert not list(robot.folder.glob("*.part"))


def test_a_robot_waits_for_what_its_server_has_and_the_place_has_not_yet(
    robot, server, files, monkeypatch
):
    store = robot.store()
    before = store.latest("stable").manifest.version
    publish(server, before + 1)
    assert store.latest("stable").manifest.version == before
    files.asked.clear()
    assert store.latest("stable").manifest.version == before  # no refresh at each look
    assert files.asked == []
    sync(server, Folder(files.folder))
    monkeypatch.setattr(store._signed, "_look_at", 0.0)
    assert store.latest("stable").manifest.version == before + 1


def test_the_first_root_is_never_taken_from_there(robot, server, files):
    """Whoever has the file server would choose whom this robot trusts."""
    (robot.folder / "root.json").unlink()
    assert robot.look() is not None
    assert (robot.trust / "first.json").read_bytes() == (
        server.store / "metadata/1.root.json"
    ).read_bytes()
    assert "/fleet/metadata/1.root.json" not in [path for path, _ in files.asked]


def test_an_object_that_was_changed_there_is_refused(robot, files):
    entry = an_object(robot.look())
    file = files.folder / "objects" / entry.sha256
    file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(BundleError, match="changed or damaged on the way"):
        robot.fetch(entry)
    file.write_bytes(file.read_bytes()[::-1] + b"more")
    with pytest.raises(BundleError, match="more than the"):
        robot.fetch(entry)
    assert not robot.into.exists()


def test_an_object_that_is_not_there_comes_from_the_server(robot, files):
    entry = an_object(robot.look())
    (files.folder / "objects" / entry.sha256).unlink()
    assert len(robot.fetch(entry)) == entry.size_bytes


def test_an_object_that_broke_off_goes_on_where_it_ended(robot, files):
    entry = an_object(robot.look())
    content = (files.folder / "objects" / entry.sha256).read_bytes()

    def half(handler):
        handler.send_response(200)
        handler.send_header("content-length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2])
        handler.close_connection = True
        return True

    files.answer = half
    with pytest.raises(BundleError, match=r"models are taken from there \(server.models\)"):
        robot.fetch(entry)

    def rest(handler):
        begin = int(handler.headers["range"].removeprefix("bytes=").rstrip("-"))
        assert begin == len(content) // 2
        handler.send_response(206)
        handler.send_header("content-range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        handler.send_header("content-length", str(len(content) - begin))
        handler.end_headers()
        handler.wfile.write(content[begin:])
        return True

    files.answer = rest
    assert robot.fetch(entry) == content
    files.answer = half
    with pytest.raises(BundleError):
        robot.fetch(entry)
    files.answer = None  # this server knows no ranges, and sends all
    assert robot.fetch(entry) == content


def test_metadata_that_was_valid_once_is_refused(robot, server, files):
    old = (files.folder / TIMESTAMP).read_bytes()
    publish(server, robot.look().manifest.version + 1)
    sync(server, Folder(files.folder))
    robot.look()
    (files.folder / TIMESTAMP).write_bytes(old)
    with pytest.raises(TrustError, match=r"^127\.0\.0\.1:\d+: .*older than what this robot has"):
        robot.look()
    state = robot.stores[-1]._signed.state()
    assert "older than what this robot has" in state["refused"]
    assert "verified_at" not in state
    assert robot.stores[-2]._signed.state()["verified_at"] >= state["since"]


def test_metadata_that_was_changed_or_is_gone_is_refused(robot, files):
    signed = (files.folder / TIMESTAMP).read_bytes()
    (files.folder / TIMESTAMP).write_bytes(signed.replace(b'"version":', b'"version":9', 1))
    with pytest.raises(TrustError, match="not signed by the keys that this robot trusts"):
        robot.look()
    (files.folder / TIMESTAMP).unlink()
    with pytest.raises(TrustError, match="is not on the server"):
        robot.look()


def test_no_failure_there_is_one_of_the_server(robot, files, monkeypatch):
    """The agent waits for its server, and does not for this."""

    def status(code, *headers):
        def answer(handler):
            handler.send_response(code)
            for name, value in headers:
                handler.send_header(name, value)
            handler.send_header("content-length", "0")
            handler.end_headers()
            return True

        return answer

    def flood(handler):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b" " * 100_000)

    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b" ")
            time.sleep(0.05)

    for answer, words in [
        (status(301, ("location", "https://other.example/")), "not followed: set server.models"),
        (status(503), "cannot answer now: status 503"),
        (status(401), "asks for a password"),
        (flood, "more than 1000000 bytes"),
    ]:
        files.answer = answer
        with pytest.raises(BundleError, match=words):
            robot.look()
    files.answer = drip
    monkeypatch.setattr(answers, "PATIENCE_S", 0.3)
    monkeypatch.setattr(answers, "SLOWEST_BYTES_S", 1e9)
    with pytest.raises(BundleError, match="answers too slowly"):
        robot.look()
    files.shutdown()
    files.server_close()
    with pytest.raises(BundleError, match="no answer from 127"):
        robot.look()


def test_a_certificate_of_another_authority_names_the_setting(robot):
    robot.link = robot.link.model_copy(update={"models_ca": None})
    with pytest.raises(BundleError, match=r"name its authority in server\.models_ca"):
        robot.look()
    robot.link = robot.link.model_copy(update={"models_ca": robot.folder / "robot.key"})
    with pytest.raises(SettingsError, match=r"server\.models_ca .*not a CA certificate"):
        robot.look()


def test_doctor_asks_there_too(robot, files):
    def said():
        settings = load_settings(robot.folder / "agent.toml", {})
        found = examine(settings.model_copy(update={"server": robot.link}))
        return next((one.state, one.text) for one in found if one.subject == "models")

    assert said()[0] == "ok"
    (files.folder / TIMESTAMP).unlink()
    assert said() == (
        "fail",
        f"127.0.0.1:{files.server_port} has no metadata/timestamp.json below the folder of "
        "server.models",
    )
    files.shutdown()
    files.server_close()
    assert said()[0] == "fail"


# ----------------------------------------------------------------------------------- a bucket


@pytest.fixture(scope="module")
def s3():
    """A server that speaks S3, on this machine; a bucket for each test."""
    port = free_port()
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "robot",
        "AWS_SECRET_ACCESS_KEY": "robot",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + 240
    while True:
        try:
            get(f"{url}/moto-api/")
            break
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
    yield url
    process.kill()
    process.wait()


@pytest.fixture
def credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "robot")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "robot")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def place(s3, server, credentials):
    """A bucket that has been brought what the server has."""
    options = {"endpoint_url": s3, "skip_instance_cache": True}
    name = f"models-{time.monotonic_ns()}"
    request = urllib.request.Request(f"{s3}/{name}", method="PUT")
    urllib.request.urlopen(request, timeout=60).close()
    one = destination_of(f"s3://{name}/fleet", options, server.store)
    sync(server, one)
    one.url = f"s3://{name}/fleet"
    return one


@pytest.fixture
def bucket_robot(place, s3, server, tmp_path):
    one = Robot(server, tmp_path, models=place.url, models_options={"endpoint_url": s3})
    yield one
    for store in one.stores:
        store.close()


def test_models_come_from_a_bucket_too(bucket_robot, place, server):
    model = bucket_robot.look()
    assert model.content == offered(server)["stable"]
    entry = an_object(model)
    assert (
        bucket_robot.fetch(entry) == DirectoryStore(server.store).object(entry.sha256).read_bytes()
    )
    publish(server, model.manifest.version + 1)
    assert bucket_robot.look() == model
    done = sync(server, place)
    assert done.brought > 0
    assert bucket_robot.look().manifest.version == model.manifest.version + 1


def test_a_bucket_that_was_changed_is_refused(bucket_robot, place, server):
    entry = an_object(bucket_robot.look())
    place.put(f"objects/{entry.sha256}", b"x" * entry.size_bytes)
    with pytest.raises(BundleError, match="changed or damaged on the way"):
        bucket_robot.fetch(entry)
    place.put(f"objects/{entry.sha256}", b"x")
    with pytest.raises(BundleError):
        bucket_robot.fetch(entry)
    place.remove(f"objects/{entry.sha256}")
    assert len(bucket_robot.fetch(entry)) == entry.size_bytes  # from the server
    old = place.read(TIMESTAMP)
    publish(server, bucket_robot.look().manifest.version + 1)
    sync(server, place)
    bucket_robot.look()
    place.put(TIMESTAMP, old)
    with pytest.raises(TrustError, match=r"^s3://models-\d+: .*older than what this robot has"):
        bucket_robot.look()


def test_an_object_of_a_bucket_goes_on_where_it_ended(bucket_robot, monkeypatch):
    entry = an_object(bucket_robot.look())
    monkeypatch.setattr(bucket, "FIRST_BYTES", 100)
    monkeypatch.setattr(bucket, "MOST_BYTES", 100)
    whole, asked = bucket.Bucket._read, []

    def read(self, path, start, most):
        if len(asked) == 2:
            raise ConnectionFailed("away")
        asked.append((start, most))
        return whole(self, path, start, most)

    monkeypatch.setattr(bucket.Bucket, "_read", read)
    with pytest.raises(BundleError, match="away"):
        bucket_robot.fetch(entry)
    assert asked == [(0, 100), (100, 100)]
    asked = [()] * 10
    monkeypatch.setattr(bucket.Bucket, "_read", whole)
    assert len(bucket_robot.fetch(entry)) == entry.size_bytes


def test_the_child_ends_with_its_parent_and_is_started_again(bucket_robot):
    store = bucket_robot.store()
    assert store.latest("stable")
    child = store._elsewhere._place._child
    os.kill(child.pid, signal.SIGKILL)
    assert store._elsewhere.small("/metadata/none.json") is None
    assert store._elsewhere._place._child.pid != child.pid
    child = store._elsewhere._place._child
    store.close()
    assert child.poll() is not None


def test_the_agent_itself_never_loads_what_a_bucket_needs(bucket_robot, s3, server):
    """In a process of its own: this one has loaded it for the server's half."""
    code = f"""
import sys
from pathlib import Path
from edge_agent.link.elsewhere import open_elsewhere
from edge_agent.robot.server_settings import ServerLink
link = ServerLink(address="s:1", models={bucket_robot.link.models!r},
                  models_options={{"endpoint_url": {s3!r}}})
place = open_elsewhere(link)
assert place.small("/metadata/timestamp.json")
place.close()
print([name for name in ("fsspec", "s3fs", "aiohttp") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_bucket_that_does_not_answer_is_given_up(bucket_robot, monkeypatch):
    monkeypatch.setattr(bucket, "_COMMAND", ("-c", "import time; time.sleep(600)"))
    monkeypatch.setattr(bucket, "MOST_S", 0.3)
    with pytest.raises(BundleError, match=r"s3://models-\d+ answers too slowly"):
        bucket_robot.look()
    monkeypatch.setattr(bucket, "MOST_S", 120)
    monkeypatch.setattr(bucket, "_COMMAND", ("-c", "pass"))
    with pytest.raises(BundleError, match="ended before it answered"):
        bucket_robot.look()


def test_a_missing_package_is_named_with_the_extra(server, tmp_path, monkeypatch):
    robot = Robot(server, tmp_path, models="s3://models/fleet")
    monkeypatch.setattr(bucket.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"fsspec and s3fs: pip install 'fleetlearn\[bucket\]'"):
        robot.look()


def test_a_bucket_without_credentials_or_of_another_name(server, tmp_path, s3, monkeypatch):
    options = {"endpoint_url": s3}
    robot = Robot(server, tmp_path, models="s3://none-such/fleet", models_options=options)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(BundleError, match=r"does not give .*credentials"):
        robot.look()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "robot")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "robot")
    with pytest.raises((BundleError, TrustError), match="none-such"):
        robot.look()
    for store in robot.stores:
        store.close()


def test_a_folder_of_this_machine_as_a_stick(server, tmp_path):
    sync(server, Folder(tmp_path / "stick"))
    robot = Robot(server, tmp_path, models=f"file://{tmp_path}/stick")
    model = robot.look()
    assert len(robot.fetch(an_object(model))) == an_object(model).size_bytes
    shutil.rmtree(tmp_path / "stick")
    with pytest.raises(TrustError) as caught:
        robot.look()
    assert str(tmp_path) not in str(caught.value)
    for store in robot.stores:
        store.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://models.example/x", "over http everybody on the way sees"),
        ("models.example/x", "expected https://host/folder"),
        ("https://me:secret@models.example/x", "no name and password in it"),
        ("s3://models/a?b=c", "expected https://host/folder"),
    ],
)
def test_an_address_that_is_none(server, tmp_path, text, words):
    robot = Robot(server, tmp_path)
    environment = {"EDGE_AGENT_SERVER__MODELS": text}
    with pytest.raises(SettingsError, match=words):
        load_settings(robot.folder / "agent.toml", environment)
    environment = {"EDGE_AGENT_SERVER__MODELS": "https://models.example/x/"}
    settings = load_settings(robot.folder / "agent.toml", environment)
    assert settings.server.models == "https://models.example/x"


def test_a_kit_says_where_models_are(server, tmp_path):
    kit = tmp_path / "kit"
    shutil.copytree(server.kit, kit)
    with (kit / "kit.toml").open("a") as stream:
        stream.write('models = "https://models.example/fleet"\n')
    enroll(kit, tmp_path / "a", ExampleSettings(), train=False)
    settings = load_settings(tmp_path / "a/agent.toml", {})
    assert settings.server.models == "https://models.example/fleet"
    enroll(kit, tmp_path / "b", ExampleSettings(), train=False, models="s3://models/fleet")
    assert load_settings(tmp_path / "b/agent.toml", {}).server.models == "s3://models/fleet"
