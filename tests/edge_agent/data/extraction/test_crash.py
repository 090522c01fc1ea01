"""Killed at any moment, or on a full disk: the same command then gives the undisturbed data set."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.data.extraction import disk as extract_disk
from edge_agent.data.extraction import output as extract_output
from edge_agent.data.extraction.extract import ExtractOptions, extract
from edge_agent.data.labels import LabelSettings, labelled_frames
from edge_agent.data.manifest import DataSetManifest
from fleet_model.errors import LossError, StorageError
from fleet_model.files.damage import DamageLog

pytestmark = [pytest.mark.base, pytest.mark.slow]

T0 = 1_760_000_000_000_000_000
CAMERA = "/camera/image/compressed"
FORMATS = ["folder", "yolo", "coco", "tfds"]
LABELS = LabelSettings(label_topic="/camera/label")


class PowerCut(BaseException):
    """Ends the extraction as nothing in it expects."""


def tree(root):
    return {f.relative_to(root).as_posix(): f.read_bytes() for f in root.rglob("*") if f.is_file()}


def picture(seed):
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    large = cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_NEAREST)
    return cv2.imencode(".jpg", large)[1].tobytes()


@pytest.fixture
def bag(bags, tmp_path):
    """A bag with labels, damaged frames, near duplicates and equal stamps."""
    messages = []
    for index in range(24):
        content = picture(index if index % 5 else index + 1)
        content = content if index % 7 else content[:-9]
        stamp = T0 + index // 2 * 2_000_000
        messages.append((CAMERA, T0 + index * 1_000_000, bags.jpeg(stamp, content)))
        label = bags.text("star" if index % 3 else "circle")
        messages.append(("/camera/label", T0 + index * 1_000_000 + 10, label))
    return bags.write(tmp_path / "r1", messages)


def options(bag, out, form="folder"):
    return ExtractOptions(
        paths=(bag,), out=out, format=form, labels=LABELS, min_sharpness=0.0, drop_duplicates=True
    )


@pytest.fixture
def undisturbed(bag, tmp_path):
    def make(form):
        extract(options(bag, tmp_path / "undisturbed", form))
        return tree(tmp_path / "undisturbed")

    return make


@pytest.mark.parametrize("form", FORMATS)
def test_an_end_at_any_file_operation_is_made_good_by_the_same_command(
    bag, tmp_path, monkeypatch, undisturbed, form
):
    """Nothing is done from the n-th system call that changes a file, for every third n."""
    wanted, out = undisturbed(form), tmp_path / "out"
    monkeypatch.setattr(extract_output, "_BATCH_FRAMES", 4)
    calls = count_calls(monkeypatch, lambda: extract(options(bag, tmp_path / "count", form)))
    assert calls > 60
    for end in range(1, calls + 1, 3):
        here = out / str(end)
        with monkeypatch.context() as patch:
            end_at(patch, end)
            with pytest.raises(PowerCut):
                extract(options(bag, here, form))
        with monkeypatch.context() as patch:  # and once more in the second run
            end_at(patch, max(1, calls - end))
            with suppress(PowerCut):
                extract(options(bag, here, form))
        extract(options(bag, here, form))
        assert tree(here) == wanted, f"ended at call {end}"


CHANGES = ["write", "rename", "replace", "unlink", "fsync", "mkdir", "rmdir", "ftruncate", "open"]


def count_calls(monkeypatch, run):
    with monkeypatch.context() as patch:
        calls = end_at(patch, 10**9)
        run()
    return len(calls)


def end_at(patch, number):
    """Raise PowerCut instead of the number-th call, and in every later one."""
    calls = []

    def counting(function):
        def call(*arguments, **named):
            calls.append(function)
            if len(calls) >= number:
                raise PowerCut
            return function(*arguments, **named)

        return call

    for name in CHANGES:
        patch.setattr(os, name, counting(getattr(os, name)))
    return calls


def command(bag, out, form):
    words = ["extract", bag, "--out", out, "--labels", "/camera/label", "--format", form, "--json"]
    return [sys.executable, "-m", "edge_agent.cli", *map(str, words)]


@pytest.fixture
def long_bag(bags, tmp_path, picture_bytes):
    contents = [picture_bytes(i, shape=(120, 160, 3)) for i in range(64)]
    messages = [
        (CAMERA, T0 + i * 1000, bags.jpeg(T0 + i * 1000, contents[i % 64])) for i in range(1500)
    ]
    messages.append(("/camera/label", T0, bags.text("star")))
    return bags.write(tmp_path / "long", messages)


KILLED_AT_A_CALL = """
import os, signal, sys

last, calls, where = int(sys.argv.pop(1)), 0, sys.argv.pop(1)  # 0: never

def is_there(name, arguments):
    if not where:
        return True
    return name == "write" and os.readlink(f"/proc/self/fd/{arguments[0]}").endswith(where)

def counted(name, function):
    def call(*arguments, **named):
        global calls
        calls += 1
        if 0 < last <= calls and is_there(name, arguments):
            if name == "write":  # a part of what is to be written is there
                function(arguments[0], bytes(arguments[1])[: len(arguments[1]) * 2 // 3])
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call

for name in sys.argv.pop(1).split(","):
    setattr(os, name, counted(name, getattr(os, name)))
from edge_agent.cli import main
try:
    main()
finally:
    print(calls, file=sys.stderr)
"""


def killed(words, call=0, where=""):
    """Run a command, killed by SIGKILL in the call-th system call that changes a file.

    With `where`, in the next one from there on that writes to the file of this name.
    """
    head = [sys.executable, "-c", KILLED_AT_A_CALL, str(call), where, ",".join(CHANGES)]
    return subprocess.run([*head, *words[3:]], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    "form",
    [
        pytest.param(form, marks=() if form in ("folder", "tfds") else pytest.mark.soak)
        for form in FORMATS
    ],
)
def test_kill_9_at_counted_moments_again_and_again(long_bag, tmp_path, form):
    whole = killed(command(long_bag, tmp_path / "whole", form))
    wanted, calls = tree(tmp_path / "whole"), int(whole.stderr.split()[-1])
    # A resumed run has at most the calls that the one before had left: no kill comes too late.
    turns = (
        [(0.0, ""), (0.3, "journal"), (0.45, "")],
        [(0.5, ""), (0.05, "journal"), (0.05, "")],
        [(0.97, ""), (0.01, "")],
    )
    for turn, kills in enumerate(turns):
        out, lengths = tmp_path / f"out{turn}", [0]
        for share, where in kills:
            done = killed(command(long_bag, out, form), 1 + int(share * calls), where)
            assert done.returncode == -signal.SIGKILL, done.stderr
            journal = out / ".extract" / "journal"
            lengths.append(journal.stat().st_size if journal.exists() else 0)
        assert lengths[-1] > 0
        done = extracted(command(long_bag, out, form))
        assert json.loads(done.stdout)["frames_written"] == 1500
        assert tree(out) == wanted


def check_part(out, undisturbed):
    """Hold what a full disk left against the data set that it should become."""
    rows = list(DataSetManifest(out / "manifest.csv"))
    names = {row.file for row in rows}
    there = {name for name in tree(out) if name.endswith(".jpg")}
    assert there in (names, set())  # TFDS may hold them in its shards
    for name in there & set(undisturbed):  # a whole TFDS has no image files
        assert undisturbed[name] == (out / name).read_bytes()
    damage = DamageLog()
    frames = list(labelled_frames(out, LabelSettings(), damage))
    assert [(f.frame.stamp_ns, f.label) for f in frames] == [(r.stamp_ns, r.label) for r in rows]
    assert not damage
    return len(rows)


@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk_leaves_a_valid_data_set_and_the_same_command_goes_on(
    bag, tmp_path, monkeypatch, undisturbed, form
):
    wanted, out = undisturbed(form), tmp_path / "out"
    monkeypatch.setattr(extract_output, "_BATCH_FRAMES", 4)
    counts = []
    for images in (5, 2, 0, 1, 6):
        with monkeypatch.context() as patch:
            patch.setattr(extract_disk.ImageDisk, "write", full_after(images))
            with pytest.raises(StorageError, match=r"No space left.*same command") as raised:
                extract(options(bag, out, form))
        assert "a valid data set" in str(raised.value)
        assert not (out / ".extract" / "reserve").exists()
        counts.append(check_part(out, wanted))
    assert counts == [5, 7, 7, 8, 14]
    extract(options(bag, out, form))
    assert tree(out) == wanted


def full_after(images):
    written = []
    write = extract_disk.ImageDisk.write

    def call(self, file, data):
        written.append(file)
        if len(written) > images:
            raise OSError(28, "No space left on device")
        return write(self, file, data)

    return call


def extracted(words):
    """Run to the end; 13: boxes are all that some formats hold, and these labels have none."""
    done = subprocess.run(words, capture_output=True, check=False)
    assert done.returncode in (0, LossError.exit_code), done.stderr
    return done


IN_TMPFS = """
set -e
mkdir -p {disk}
mount -t tmpfs -o size={small} tmpfs {disk}
set +e
{command} > {here}/first.json 2> {here}/first.txt
echo $? > {here}/first.code
cp -r {disk}/out {here}/part
set -e
mount -o remount,size=200m {disk}
{command} > {here}/second.json || test $? -eq 13
cp -r {disk}/out {here}/out
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("small", "form"),
    [
        pytest.param(small, form, marks=() if shown == form else pytest.mark.soak)
        for small, shown in (("900k", "tfds"), ("1500k", "yolo"), ("2500k", "folder"))
        for form in FORMATS
    ],
)
def test_a_disk_that_is_really_full(long_bag, tmp_path, form, small):
    whole = tmp_path / "whole"
    extracted(command(long_bag, whole, form))
    words = " ".join(command(long_bag, tmp_path / "disk" / "out", form))
    script = IN_TMPFS.format(disk=tmp_path / "disk", small=small, command=words, here=tmp_path)
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
        check=False,
    )
    if not (tmp_path / "first.code").exists():
        pytest.skip(f"no file system of one's own here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "first.txt").read_text()
    assert (tmp_path / "first.code").read_text() == "12\n", said
    assert "No space left" in said
    wanted = tree(whole)
    if "a valid data set" in said:
        count = check_part(tmp_path / "part", wanted)
        assert 0 < count < 1500
    assert tree(tmp_path / "out") == wanted
