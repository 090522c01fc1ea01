"""Folders and buckets: a real S3 server (moto) in a process of its own."""

import json
import subprocess
import sys
import time
import urllib.request

import pytest
from free_ports import free_port

from cloud_server.pipelines import places
from cloud_server.pipelines.places import data_at, deliver, model_at, require_out
from fleet_model.errors import CheckpointError, ConnectionFailed, FrameError, SettingsError

TOLD = {"key": "abc"}


@pytest.fixture
def result(tmp_path):
    folder = tmp_path / "result"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "metrics.json").write_text('{"accuracy": 1}')
    return folder


@pytest.fixture(scope="module")
def bucket():
    """Return fsspec's options of a bucket named "fleet"; nothing else answers there."""
    pytest.importorskip("moto")
    s3fs = pytest.importorskip("s3fs")
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + 120
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/moto-api/").close()
                break
            except OSError:
                assert time.monotonic() < end
                assert server.poll() is None
                time.sleep(0.1)
        options = {"key": "k", "secret": "s", "endpoint_url": url}
        s3fs.S3FileSystem(**options).mkdir("fleet")
        yield options
    finally:
        server.terminate()
        server.wait(60)


def files_in(bucket, where):
    import s3fs

    files = s3fs.S3FileSystem(**bucket, use_listings_cache=False)
    return {path.removeprefix(f"{where}/"): files.cat_file(path) for path in files.find(where)}


def test_a_folder_is_replaced_as_a_whole(tmp_path, result):
    out = tmp_path / "out"
    deliver(result, TOLD, str(out), {})
    (out / "left.txt").touch()
    deliver(result, {"key": "new"}, str(out), {})
    names = {file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()}
    assert names == {"model/config.json", "metrics.json", "pipeline.json"}
    assert json.loads((out / "pipeline.json").read_text()) == {"key": "new"}
    assert not [*tmp_path.glob(".out.*")]


def test_a_bucket_gets_the_result_and_pipeline_json_last(bucket, result, monkeypatch):
    deliver(result, TOLD, "s3://fleet/runs/1", bucket)
    found = files_in(bucket, "fleet/runs/1")
    assert set(found) == {"model/config.json", "metrics.json", "pipeline.json"}
    assert json.loads(found["pipeline.json"]) == TOLD

    done, left = places._do, [2]  # to look for pipeline.json, and to remove it

    def cut(url, action):
        if not left[0]:
            raise ConnectionFailed("cut")
        left[0] -= 1
        return done(url, action)

    monkeypatch.setattr(places, "_do", cut)
    with pytest.raises(ConnectionFailed, match="cut"):
        deliver(result, TOLD, "s3://fleet/runs/1", bucket)
    assert "pipeline.json" not in files_in(bucket, "fleet/runs/1")  # it is not complete any more


def test_data_of_a_bucket_are_fetched_once_and_again_where_they_change(bucket, tmp_path):
    import s3fs

    files = s3fs.S3FileSystem(**bucket)
    files.pipe_file("fleet/data/train.csv", b"text,label\n")
    files.pipe_file("fleet/data/deep/test.csv", b"text,label\nx,y\n")
    lines = []
    folder = data_at("s3://fleet/data", tmp_path, bucket, lines.append)
    assert (folder / "deep" / "test.csv").read_text() == "text,label\nx,y\n"
    assert data_at("s3://fleet/data", tmp_path, bucket, lines.append) == folder
    assert len(lines) == 1
    files.pipe_file("fleet/data/train.csv", b"text,label\na,b\n")
    files.invalidate_cache()
    other = data_at("s3://fleet/data/", tmp_path, bucket, lines.append)
    assert other != folder
    assert (other / "train.csv").read_text() == "text,label\na,b\n"
    one = data_at("s3://fleet/data/train.csv", tmp_path, bucket, lines.append)
    assert one.name == "train.csv"
    assert one.is_file()


def test_a_model_of_a_bucket_that_lacks_a_file_is_refused(bucket, tmp_path):
    import s3fs

    s3fs.S3FileSystem(**bucket).pipe_file("fleet/model/config.json", b"{}")
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        model_at("s3://fleet/model", tmp_path, bucket, print)


def test_what_is_not_there_is_told_in_one_line(bucket, tmp_path):
    with pytest.raises(FrameError, match=r"nothing is there|no such bucket"):
        data_at("s3://fleet/nothing", tmp_path, bucket, print)
    with pytest.raises(FrameError, match="no such file or folder"):
        data_at(str(tmp_path / "none.csv"), tmp_path, {}, print)
    away = {**bucket, "endpoint_url": f"http://127.0.0.1:{free_port()}"}
    away["config_kwargs"] = {"retries": {"max_attempts": 1}, "connect_timeout": 2}
    with pytest.raises((ConnectionFailed, FrameError)):
        data_at("s3://fleet/data", tmp_path, away, print)


def test_a_place_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="is a file"):
        require_out(str(tmp_path / "file"), {})
    with pytest.raises(SettingsError):
        require_out("nokind://x/y", {})
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
