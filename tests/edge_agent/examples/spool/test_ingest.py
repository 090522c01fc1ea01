"""From the spool into the robot's store: each frame once, whatever happens meanwhile."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from rosbags.typesys import get_types_from_msg

from edge_agent.data.label_formats.vision_msgs import default_definitions
from edge_agent.examples.example_store import ExampleStore
from edge_agent.examples.spool import ingest
from edge_agent.examples.spool.ingest import ATTEMPTS, BUSY, Ingest, IngestJob
from edge_agent.examples.spool.kept_examples import KeptExamples
from edge_agent.examples.spool.ledger import Ledger, recording_id
from edge_agent.examples.spool.recordings import TOTALS, find_recordings
from fleet_model.errors import StorageError

pytestmark = pytest.mark.base

NOW_S = 1_760_000_000.0
SECOND = 10**9


def noise(seed, sharp=True):
    """Return a JPEG of about 1.5 kB that is like no other."""
    import cv2

    picture = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
    if not sharp:
        picture = cv2.GaussianBlur(picture, (0, 0), 12)
    return cv2.imencode(".jpg", picture)[1].tobytes()


@pytest.fixture
def record(bags, tmp_path):
    """Return a writer of spool/<name>: a label ("" for none) and a picture a second."""

    def write(name, labels, first=0, pictures=None, period_ns=SECOND, **options):
        messages = []
        for index, label in enumerate(labels):
            stamp = bags.START_NS + first * SECOND + index * period_ns
            content = pictures[index] if pictures else noise(first + index)
            messages.append((bags.CAMERA, stamp, bags.jpeg(stamp, content)))
            if label:
                messages.append((bags.LABELS, stamp + 1_000_000, bags.text(label)))
        (tmp_path / "spool").mkdir(exist_ok=True)
        return bags.write(tmp_path / "spool" / name, messages, **options)

    return write


@pytest.fixture
def job_of(bags, tmp_path):
    """Return a maker of jobs over everything in the spool."""

    def make(**options):
        (tmp_path / "store").mkdir(exist_ok=True)
        spool = tmp_path / "spool"
        defaults = {
            "spool": str(spool),
            "store": str(tmp_path / "store"),
            "recordings": [str(recording.path) for recording in find_recordings(spool)],
            "topic": "",
            "label_topic": bags.LABELS,
            "tolerance_s": 0.1,
            "rate_hz": 5.0,
            "min_sharpness": 20.0,
            "max_mb": 100.0,
            "max_age_days": 30.0,
        }
        return IngestJob(**(defaults | options))

    return make


@pytest.fixture
def take_in(job_of, tmp_path):
    """Return what runs once over the spool and returns the totals."""

    def run(now_s=NOW_S, **options):
        Ingest(job_of(**options), now_s=lambda: now_s).run()
        return json.loads((tmp_path / "store" / TOTALS).read_text())

    return run


def content_of(root):
    """Every file but the ledger, whose totals are compared by themselves."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith((".", "ledger"))
    }


def examples_of(tmp_path):
    store = ExampleStore((), "", "", ("star", "circle"), kept=tmp_path / "store")
    return list(store.examples())


def test_a_recording_becomes_examples_of_its_own_bytes(record, take_in, tmp_path):
    record("run", ["star"] * 3 + ["circle"] * 2)
    totals = take_in()
    assert (totals["recordings"], totals["frames"], totals["kept"]) == (1, 5, 5)
    assert totals["examples"] == 5
    assert totals["megabytes"] == pytest.approx(sum(len(noise(i)) for i in range(5)) / 1e6, rel=0.1)
    examples = examples_of(tmp_path)
    assert Counter(example.label for example in examples) == {"star": 3, "circle": 2}
    assert {bytes(example.raw.data) for example in examples} == {noise(i) for i in range(5)}
    assert examples[0].key.startswith("run/camera/image/compressed/17600000")


def test_frames_that_were_found_empty_are_kept_as_such(bags, take_in, tmp_path):
    name = "vision_msgs/msg/Detection2DArray"
    bags.store.register(get_types_from_msg(default_definitions(name)[0], name))
    messages = []
    for index in range(4):
        stamp = bags.START_NS + index * SECOND
        messages.append((bags.CAMERA, stamp, bags.jpeg(stamp, noise(index))))
        if index % 2:
            empty = bags.store.types[name](header=bags.header(stamp), detections=[])
            messages.append((bags.LABELS, stamp, empty))
    (tmp_path / "spool").mkdir()
    bags.write(tmp_path / "spool" / "run", messages)
    totals = take_in()
    assert totals["kept"] == 2
    assert totals["dropped"] == {"without a label": 2}
    store = ExampleStore((), "", "", ("star",), kept=tmp_path / "store", boxes=True)
    found = [(example.raw.stamp_ns - bags.START_NS) // SECOND for example in store.examples()]
    assert sorted(found) == [1, 3]
    assert store.left_out == {}


def test_the_recording_itself_is_not_touched(record, take_in, tmp_path):
    record("run", ["star"] * 3)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "spool").rglob("*.*")}
    take_in()
    after = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in (tmp_path / "spool").rglob("*.*")}
    assert after == before


def test_what_was_taken_in_is_not_taken_in_again(record, take_in, tmp_path):
    record("run", ["star"] * 3)
    first, content = take_in(), content_of(tmp_path / "store")
    assert take_in() == first
    record("later", ["star"] * 2, first=100)
    assert take_in()["kept"] == 5
    assert content.items() <= (content_of(tmp_path / "store") | {TOTALS: content[TOTALS]}).items()


def test_frames_that_teach_nothing_are_left_out_and_counted(record, take_in):
    pictures = [noise(0), noise(1, sharp=False), noise(2), noise(2), noise(3)[:-30], noise(4)]
    record("run", ["star", "star", "star", "star", "star", ""], pictures=pictures)
    totals = take_in()
    assert totals["kept"] == 2
    assert totals["dropped"] == {
        "blurred": 1,
        "near duplicate": 1,
        "cut jpeg": 1,
        "without a label": 1,
    }
    assert totals["frames"] == 6


def test_a_fast_camera_is_thinned_out(record, take_in):
    record("run", ["star"] * 60, period_ns=SECOND // 30)
    totals = take_in()
    assert totals["kept"] == 10  # two seconds at 5 Hz
    assert totals["dropped"]["rate"] == 50


def test_a_copy_of_a_recording_adds_nothing(record, take_in, tmp_path):
    record("run", ["star"] * 3)
    take_in()
    shutil.copytree(tmp_path / "spool" / "run", tmp_path / "spool" / "again")
    totals = take_in()
    assert (totals["recordings"], totals["kept"], totals["examples"]) == (2, 3, 3)
    assert totals["dropped"] == {"a copy of another frame": 3}


def test_a_recording_that_was_not_finished_is_taken_in_again_for_what_is_new(
    record, take_in, tmp_path
):
    whole = record("whole", ["star"] * 6)
    early = record("run", ["star"] * 4)
    shutil.move(whole, tmp_path / "whole")
    assert take_in()["kept"] == 4
    (early / "metadata.yaml").unlink()  # a repair adds and removes it: the bag stays the same one
    assert take_in()["recordings"] == 1
    (early / "run.mcap").write_bytes((tmp_path / "whole" / "whole.mcap").read_bytes())
    totals = take_in()
    assert (totals["recordings"], totals["kept"]) == (2, 6)
    assert totals["dropped"] == {"a copy of another frame": 4}


def test_a_damaged_recording_is_taken_in_as_far_as_it_goes(record, take_in):
    path = record("run", ["star"] * 40)
    (file,) = path.glob("*.mcap")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    totals = take_in()
    assert 10 < totals["kept"] < 30
    assert totals["damage"].keys() == {"cut file"}


def test_what_cannot_be_read_is_said_and_tried_again_with_other_settings(record, take_in, bags):
    record("run", ["star"] * 3)
    record("good", ["star"] * 2, first=100)
    totals = take_in(topic="/rear")
    assert (totals["recordings"], totals["unreadable"]) == (0, 2)
    assert "no camera topic /rear" in totals["error"]
    assert take_in(topic="/rear") == totals
    totals = take_in(topic=bags.CAMERA)
    assert (totals["recordings"], totals["kept"]) == (2, 5)


def test_a_bag_without_the_label_topic_is_named_and_its_frames_are_counted(record, take_in):
    record("good", ["star"] * 3)
    record("killed", [""] * 4, first=100)
    totals = take_in()
    assert (totals["recordings"], totals["unreadable"]) == (1, 1)
    assert (totals["frames"], totals["kept"]) == (7, 3)
    assert totals["dropped"] == {"no label topic": 4}
    assert totals["error"].startswith("killed: no label topic /camera/label; it has none")
    assert take_in() == totals


def test_a_long_recording_comes_in_parts_and_the_store_stays_within_its_limit(
    record, take_in, tmp_path, monkeypatch
):
    labels = ["star"] * 150 + ["circle"] * 50
    record("run", labels)
    picture = max(len(noise(i)) for i in range(200))
    limit_mb = 100 * picture / 1e6
    most = []
    evict = KeptExamples.evict

    def watched(self, *arguments):
        pictures = (tmp_path / "store").rglob("*.jpg")
        most.append(sum(path.stat().st_size for path in pictures))
        return evict(self, *arguments)

    monkeypatch.setattr(KeptExamples, "evict", watched)
    monkeypatch.setattr(ingest, "SMALLEST_PART", 5)
    totals = take_in(max_mb=limit_mb)
    assert totals["kept"] == 200
    assert max(most) <= limit_mb * 1e6
    assert len(most) > 10
    left = Counter(example.label for example in examples_of(tmp_path))
    assert left["star"] + left["circle"] > 80
    assert abs(left["star"] - left["circle"]) <= 12  # a part is the grain
    assert take_in(max_mb=limit_mb) == totals


def test_examples_grow_old_also_without_a_new_recording(record, take_in, tmp_path):
    record("run", ["star"] * 3)
    assert take_in(max_age_days=2)["examples"] == 3
    assert take_in(max_age_days=2, now_s=NOW_S + 3 * 86_400, recordings=[])["examples"] == 0
    assert take_in(max_age_days=2, now_s=NOW_S + 3 * 86_400)["recordings"] == 1
    assert KeptExamples(tmp_path / "store").batches() == []


def test_a_recording_that_kills_the_process_again_and_again_is_given_up(
    record, take_in, monkeypatch, tmp_path
):
    record("a-poison", ["star"] * 3)
    record("good", ["star"] * 2, first=100)
    original = ingest.extract

    def dies(options):
        if "poison" in options.out.name:
            raise KeyboardInterrupt  # stands for a crash in native code
        return original(options)

    monkeypatch.setattr(ingest, "extract", dies)
    for _ in range(ATTEMPTS):
        with pytest.raises(KeyboardInterrupt):
            take_in()
    totals = take_in()
    assert (totals["recordings"], totals["unreadable"], totals["kept"]) == (1, 1, 2)
    assert f"has failed {ATTEMPTS} times" in totals["error"]


def test_settings_that_change_in_the_middle_of_a_recording_begin_its_part_anew(
    record, take_in, job_of, monkeypatch
):
    record("run", ["star"] * 3)
    original = ingest.extract

    def dies_at_the_end(options):
        original(options)
        raise KeyboardInterrupt

    monkeypatch.setattr(ingest, "extract", dies_at_the_end)
    with pytest.raises(KeyboardInterrupt):
        take_in(min_sharpness=20.0)
    monkeypatch.setattr(ingest, "extract", original)
    assert take_in(min_sharpness=1e9)["kept"] == 0


def test_a_full_disk_is_said_and_the_next_run_goes_on(record, take_in, monkeypatch, tmp_path):
    record("run", ["star"] * 3)
    original = ingest.extract

    def full(options):
        raise StorageError("the disk is full")

    monkeypatch.setattr(ingest, "extract", full)
    with pytest.raises(StorageError):
        take_in()
    monkeypatch.setattr(ingest, "extract", original)
    assert take_in()["kept"] == 3


def test_a_ledger_that_cannot_be_read_costs_the_numbers_not_the_examples(
    record, take_in, tmp_path, caplog
):
    record("run", ["star"] * 3)
    take_in()
    (tmp_path / "store" / "ledger.json").write_text("{")
    assert take_in()["examples"] == 3
    assert len(examples_of(tmp_path)) == 3
    assert "it starts empty" in caplog.text


def test_a_recording_is_known_by_its_place_and_content(record, tmp_path):
    record("run", ["star"] * 3)
    (recording,) = find_recordings(tmp_path / "spool")
    name = recording_id(recording, tmp_path / "spool")
    os.utime(tmp_path / "spool" / "run" / "run.mcap", (1, 1))
    (recording,) = find_recordings(tmp_path / "spool")
    assert recording_id(recording, tmp_path / "spool") == name
    with (tmp_path / "spool" / "run" / "run.mcap").open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"\0")  # a recording of the same name and size
    (recording,) = find_recordings(tmp_path / "spool")
    assert recording_id(recording, tmp_path / "spool") != name


def test_the_ledger_forgets_the_oldest_recordings_at_last(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_agent.examples.spool.ledger.KEEP", 3)
    ledger = Ledger(tmp_path, "settings")
    for name in "abcde":
        ledger.finish(name)
    ledger = Ledger(tmp_path, "settings")
    assert [ledger.is_done(name) for name in "abcde"] == [False, False, True, True, True]
    assert ledger.totals.recordings == 5


# ------------------------------------------------------------------------------- as a process


def start(job):
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_agent.examples.spool.ingest"], stdin=subprocess.PIPE
    )
    process.stdin.write(job.as_json().encode())
    process.stdin.close()
    return process


def test_as_a_process_it_is_the_least_urgent_work_and_only_one(record, job_of, tmp_path):
    record("run", ["star"] * 3)
    (tmp_path / "store").mkdir()
    with (tmp_path / "store" / ".lock").open("w") as stream:
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX)
        assert start(job_of()).wait(240) == BUSY
    assert start(job_of()).wait(240) == 0
    assert len(examples_of(tmp_path)) == 3


# Sends itself a SIGTERM when it makes its 20th file: some of the pictures are written then.
TERMINATED = """
import itertools, os, signal, sys
from pathlib import Path
import cv2, numpy
from edge_agent.examples.spool import ingest

ledger, left = Path(sys.argv[1]), itertools.count(20, -1)

def hook(event, arguments):
    if event == "open" and (arguments[2] or 0) & os.O_CREAT and next(left) == 1:
        assert '"attempts": 1' in ledger.read_text()
        os.kill(os.getpid(), signal.SIGTERM)

sys.addaudithook(hook)
sys.exit(ingest.main())
"""


def test_sigterm_ends_it_at_once_and_is_no_failed_attempt(record, job_of, tmp_path):
    record("run", ["star"] * 60)
    ledger = tmp_path / "store" / "ledger.json"
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED, str(ledger)], input=job_of().as_json(), text=True
    )
    assert done.returncode == 128 + signal.SIGTERM  # it has not worked to its end
    assert '"attempts": 0' in ledger.read_text()


# Forks a process that has everything loaded and is killed in a change of the disk, a few changes
# later every time, and looks at the store.
KILLER = """
import json, os, sys
from collections import Counter
from itertools import count
import cv2, numpy
from edge_agent.data import labels
from edge_agent.data.extraction import extract
from edge_agent.data.frames import bag
from edge_agent.data.storage.mcap import file as mcap_file
from edge_agent.examples.spool import ingest
from edge_agent.examples.spool.kept_examples import KeptExamples

CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
ingest.ATTEMPTS = 10**9
job = ingest.IngestJob(**json.load(sys.stdin))
kept = KeptExamples(ingest.Path(job.store))

def kill_at(changes):
    left = count(changes, -1)
    def hook(event, arguments):
        reads = event == "open" and not (arguments[2] or 0) & os.O_CREAT
        if event in CHANGES and not reads and next(left) == 0:
            os.kill(os.getpid(), 9)
    sys.addaudithook(hook)

for kills in count():
    pid = os.fork()
    if pid == 0:
        kill_at(7 * kills)  # the last ones do enough to come to the end
        ingest.Ingest(job, now_s=lambda: 1_760_000_000.0).run()
        os._exit(0)
    _, code = os.waitpid(pid, 0)
    if code == 0:
        print(kills)
        sys.exit(0)
    assert os.waitstatus_to_exitcode(code) == -9
    names = Counter()
    for batch, row in kept.rows():  # what a training reads at this moment is whole, and there once
        content = (batch / row.file).read_bytes()
        assert content[:2] == b"\\xff\\xd8" and content[-2:] == b"\\xff\\xd9"
        names[row.source, row.stamp_ns] += 1
    assert not names or max(names.values()) == 1
"""


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_as_if_undisturbed(record, take_in, job_of, tmp_path):
    """Many processes, each killed by SIGKILL at another change of the disk; evictions included."""
    for index in range(6):
        labels = ["star"] * 40 + ["circle"] * 20 + [""] * 5
        record(f"run-{index:02d}", labels, first=100 * index)
    max_mb = 0.5  # so the first recordings are thinned out when the last ones come in
    expected = take_in(max_mb=max_mb)
    assert expected["examples"] < expected["kept"]
    (tmp_path / "store").rename(tmp_path / "undisturbed")
    job = job_of(max_mb=max_mb)
    done = subprocess.run(
        [sys.executable, "-c", KILLER], input=job.as_json(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10
    assert json.loads((tmp_path / "store" / TOTALS).read_text()) == expected
    mine, other = content_of(tmp_path / "store"), content_of(tmp_path / "undisturbed")
    assert mine.keys() == other.keys()
    assert mine == other
