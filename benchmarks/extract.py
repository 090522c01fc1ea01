"""Camera bags: frames per second and memory of our reader and of two that are written by hand.

All arms do the same work on the same bags of 640x480 frames, in one environment, one process each,
arms in turn; imports and a first reading of the bag, which warms the disk cache, are not counted.

  ours     edge_agent: extraction.extract, frames.bag, ahead, as the commands use them
  rosbags  AnyReader + cv2, as its documentation shows it; only kept frames are deserialized
  mcap     mcap + mcap-ros2-support + cv2, as its documentation shows it: iter_decoded_messages,
           which decodes every message (no .db3)

  jpeg_passthrough  a JPEG bag becomes a folder of images: ours writes the bytes through, journal,
                    manifest and sync included; the others decode and cv2.imwrite
  raw_mcap_1_in_5   every fifth frame of a raw bag as an array
  raw_db3_1_in_5    the same from sqlite3
  decode_batch      a JPEG bag as batches of 32 x 224 x 224 x 3 float32: decode, cut, scale; ours
                    decodes at half the size, within a tested tolerance of the whole picture
  coco_to_yolo      a COCO data set of 400,000 boxes in 4,000 small pictures becomes YOLO; the peer
                    is commit 87262d4, checked out beside this tree. Both write the same files

Images go to memory (/dev/shm, where there is room), or making 2,000 files would be measured: ext4
takes 0.1 ms for one, and 0.7 ms within minutes of many deletions. The figure
jpeg_passthrough_disk_ratio is the same comparison on the disk, once.

A ratio is that of the faster peer. share_of_limit_X is the time of reading the needed bytes from
the cached file, as a share of ours. peak_mb is the largest resident size while ours extracts a JPEG
bag ten times as large. --quick: a quarter of the frames, 20,000 boxes, one turn.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bag_readers import JPEG, RAW, TASKS
from benchmarks.environments import ROOT, environment
from benchmarks.measure import Comparison, Limit, Result, arguments, median, report, say
from benchmarks.older_tree import checkout, run

WORK = ROOT / "build" / "bench" / "extract"
FRAMES, BOXES = 2_000, 400_000
ROOM_BYTES = 2_000_000_000
ALL = ("ours", "rosbags", "mcap")
REQUIRED = {
    "jpeg_passthrough": 12.0,
    "raw_mcap_1_in_5": 8.0,
    "raw_db3_1_in_5": 4.0,
    "decode_batch": 3.0,
    "coco_to_yolo": 3.0,
}
PEERS = {task: ("rosbags",) if "db3" in task else ("rosbags", "mcap") for task in TASKS}
BAGS = {
    "jpeg_passthrough": "jpeg_mcap",
    "raw_mcap_1_in_5": "raw_mcap",
    "raw_db3_1_in_5": "raw_db3",
    "decode_batch": "jpeg_mcap",
}


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, quick="a quarter of the frames, 20,000 boxes, one turn")
    frames, boxes, turns = (FRAMES // 4, BOXES // 20, 1) if options.quick else (FRAMES, BOXES, 3)
    shutil.rmtree(WORK, ignore_errors=True)
    try:
        for name, count in (
            ("raw_mcap", frames), ("raw_db3", frames),
            ("jpeg_mcap", frames), ("jpeg_mcap_large", 10 * frames),
        ):  # fmt: skip
            _worker("write", RAW if name.startswith("raw") else JPEG, WORK / name, str(count))
        with _fast_folder() as fast:
            seconds = measure(turns, fast)
            seconds |= measure_coco(turns, boxes, fast)
        on_disk = {arm: _took(arm, "jpeg_passthrough", WORK / f"disk-{arm}") for arm in ALL}
        peak = _worker("ours", "jpeg_passthrough", WORK / "jpeg_mcap_large", WORK / "large")
        figures = {
            "peak_mb": peak["peak_mb"],
            "frames": float(frames),
            "jpeg_passthrough_disk_ratio": min(on_disk[p] for p in ALL[1:]) / on_disk["ours"],
        }
        report(result(seconds, figures), as_json=options.json)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


@contextmanager
def _fast_folder() -> Iterator[Path]:
    """Give a folder in memory if there is one with room, else on the disk."""
    memory = Path("/dev/shm")  # noqa: S108  (a folder of our own is made in it)
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > ROOM_BYTES
    with tempfile.TemporaryDirectory(dir=memory if has_room else WORK) as folder:
        yield Path(folder)


def measure(turns: int, fast: Path) -> dict[tuple[str, str], list[float]]:
    """Return (task, arm) -> seconds of each turn."""
    seconds: dict[tuple[str, str], list[float]] = {}
    for turn in range(turns):
        for task in TASKS:
            for arm in ("limit", "ours", *PEERS[task]):
                out = fast / f"{task}-{arm}-{turn}"
                seconds.setdefault((task, arm), []).append(_took(arm, task, out))
                shutil.rmtree(out, ignore_errors=True)
        say(f"extract: turn {turn + 1} of {turns}")
    return seconds


def measure_coco(turns: int, boxes: int, fast: Path) -> dict[tuple[str, str], list[float]]:
    """Return ("coco_to_yolo", side) -> seconds of each turn; raises where the sides differ."""
    trees = {"ours": ROOT, "peer": checkout(WORK / "older")}
    script, source = Path(__file__).with_name("coco_to_yolo.py"), fast / "coco"
    python = environment("bags").bin / "python"
    run(ROOT, [script, "make", source, boxes], python)
    seconds: dict[tuple[str, str], list[float]] = {}
    for turn in range(turns):
        written = set[str]()
        for side, tree in trees.items():
            out = fast / f"yolo-{side}"
            done = json.loads(run(tree, [script, "convert", source, out], python))
            shutil.rmtree(out)
            seconds.setdefault(("coco_to_yolo", side), []).append(done["seconds"])
            written.add(done["digest"])
            if done["boxes"] != boxes or len(written) > 1:
                raise RuntimeError(f"{side} wrote {done['boxes']} of {boxes} boxes, or other ones")
        say(f"extract: COCO, turn {turn + 1} of {turns}")
    return seconds


def result(seconds: Mapping[tuple[str, str], list[float]], figures: dict[str, float]) -> Result:
    """Return medians, ratios and shares, added to `figures`."""
    took = {key: median(values) for key, values in seconds.items()}
    comparisons = []
    for task in TASKS:
        ours, fastest = took[task, "ours"], min(took[task, peer] for peer in PEERS[task])
        comparisons.append(Comparison(task, "s", ours, fastest, REQUIRED[task]))
        figures[f"share_of_limit_{task}"] = took[task, "limit"] / ours
        figures |= {f"{task}_{arm}_s": took[task, arm] for arm in ("ours", *PEERS[task])}
    coco = "coco_to_yolo"
    ours, peer = took[coco, "ours"], took[coco, "peer"]
    comparisons.append(Comparison(coco, "s", ours, peer, REQUIRED[coco]))
    figures |= {f"{coco}_ours_s": ours, f"{coco}_peer_s": peer}
    return Result(
        benchmark="extract",
        comparisons=comparisons,
        figures=figures,
        limits=[Limit("peak_mb", 150)],
    )


def _took(arm: str, task: str, out: Path) -> float:
    return _worker(arm, task, WORK / BAGS[task], out)["seconds"]


def _worker(*command: object) -> dict[str, float]:
    """Run one arm in a process of its own; its last line is what it measured."""
    python = environment("bags").bin / "python"
    parts = [str(python), "-m", "benchmarks.bag_readers", *map(str, command)]
    done = subprocess.run(parts, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


if __name__ == "__main__":
    main()
