"""Power cuts while data sets are written: extract in every format, the spool, kept examples."""

import hashlib
import json
import tempfile
from pathlib import Path

import cv2
import numpy as np
from power_cuts import Scenario
from recorder import mark

from edge_agent.data.extraction import output
from edge_agent.data.extraction.extract import ExtractOptions, extract
from edge_agent.data.extraction.index import FinishedMark
from edge_agent.data.manifest import MANIFEST, ManifestRow, write_manifest
from edge_agent.examples.example_store import ExampleStore
from edge_agent.examples.spool.ingest import Ingest, IngestJob
from edge_agent.examples.spool.kept_examples import BatchNote, KeptExamples
from edge_agent.examples.spool.ledger import Ledger
from edge_agent.examples.spool.recordings import TOTALS, find_recordings

NOW_S, SECOND = 1_760_000_000.0, 10**9
_SOURCES = Path(tempfile.mkdtemp(prefix="sources-"))


def _picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    return cv2.imencode(".jpg", noise)[1].tobytes()


def _image_folder() -> Path:
    folder = _SOURCES / "pictures"
    if not folder.exists():
        for number in range(5):
            file = folder / ("star" if number % 2 else "circle") / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_picture(number))
    return folder


def _with_boxes() -> Path:
    """Return a YOLO data set: only pictures that somebody has looked at have a file of boxes."""
    folder = _SOURCES / "boxes"
    if not folder.exists():
        for number in range(5):
            for part in ("images", "labels"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            (folder / "images" / f"{number}.jpg").write_bytes(_picture(number))
            (folder / "labels" / f"{number}.txt").write_text("0 0.5 0.5 0.25 0.5\n")
        (folder / "data.yaml").write_text("train: images\nval: images\nnames:\n  0: cup\n")
    return folder


def _extraction(format_name: str) -> Scenario:
    def act(root: Path) -> None:
        output._BATCH_FRAMES = 2  # several commits for few pictures
        out, boxes = root / "sets" / "monday", format_name in ("yolo", "coco")
        paths = (_with_boxes() if boxes else _image_folder(),)
        extract(ExtractOptions(paths=paths, out=out, format=format_name))
        mark()

    def observe(root: Path) -> str:
        """Return a digest of the data set if it counts as complete, else ""."""
        out, digest = root / "sets" / "monday", hashlib.sha256()
        if not out.is_dir() or not FinishedMark(out).is_intact():
            return ""
        for file in sorted(p for p in out.rglob("*") if p.is_file()):
            name = file.relative_to(out).as_posix()
            # The pictures of a TFDS are in its records: those that were waiting go again.
            if not name.startswith(".extract") and not (
                format_name == "tfds" and name.startswith("images/")
            ):
                digest.update(f"{name}\0".encode() + file.read_bytes())
        return digest.hexdigest()[:12]

    def settled(root: Path) -> list[tuple[str, bytes]]:
        out = root / "sets" / "monday"
        files = sorted(p for p in out.rglob("*") if p.is_file() and p.name != "journal")
        return [(file.relative_to(out).as_posix(), file.read_bytes()) for file in files]

    return Scenario(
        prepare=lambda root: None, act=act, observe=observe, resume=act, settled=settled
    )


FOLDER, YOLO, COCO, TFDS = map(_extraction, ("folder", "yolo", "coco", "tfds"))


def _store(root: Path) -> KeptExamples:
    return KeptExamples(root / "store")


def _put_together(root: Path, batch: str, labels: list[str], first_ns: int) -> None:
    """Write a batch as an extraction leaves it: safe on the disk."""
    inside, rows = _store(root).incoming(batch), []
    for index, label in enumerate(labels):
        file = f"{label}/{batch}-{index}.jpg"
        (inside / file).parent.mkdir(parents=True, exist_ok=True)
        (inside / file).write_bytes(b"p" * 1000)
        rows.append(
            ManifestRow(file=file, topic="/c", stamp_ns=first_ns + index, source=batch, label=label)
        )
    write_manifest(inside / MANIFEST, rows)
    (inside / ".extract").mkdir()
    (inside / ".extract" / "journal").write_text("of the extraction")


def _two_batches(root: Path) -> None:
    _put_together(root, "monday", ["star", "star", "circle"], 0)
    _store(root).accept("monday", BatchNote(NOW_S - 10, 3, 3, {}, {}))
    _put_together(root, "tuesday", ["star", "circle"], 100)


def _accept_and_evict(root: Path) -> None:
    store = _store(root)
    store.accept("tuesday", BatchNote(NOW_S, 2, 2, {}, {}))
    mark()
    store.evict(max_bytes=3000, max_age_days=1, now_s=NOW_S)  # two of the oldest
    store.evict(max_bytes=3000, max_age_days=5 / 86_400, now_s=NOW_S)  # all of monday
    mark()


def _examples(root: Path) -> list[str]:
    """Return what a reader gets: rows whose picture is there; each must be whole."""
    files = [(batch / row.file, row) for batch, row in _store(root).rows()]
    assert all(file.read_bytes() == b"p" * 1000 for file, _ in files if file.exists())
    return [row.file for file, row in files if file.exists()]


def _go_on_with_batches(root: Path) -> None:
    store = _store(root)
    store.repair({"tuesday"})
    if store.note("tuesday") is None:
        if not (store.incoming("tuesday") / MANIFEST).exists():
            _put_together(root, "tuesday", ["star", "circle"], 100)
        store.accept("tuesday", BatchNote(NOW_S, 2, 2, {}, {}))
    store.evict(max_bytes=3000, max_age_days=5 / 86_400, now_s=NOW_S)


def _everything(root: Path) -> list[str]:
    """Return every file of the store: nothing may stay that is in no manifest."""
    found = (p for p in (root / "store").rglob("*") if p.is_file() or not any(p.iterdir()))
    return sorted(p.relative_to(root).as_posix() for p in found)


def _fewer(states: list, step: int) -> list:
    """Examples leave in two steps, a batch each."""
    if step != 1:
        return []
    return [["star/monday-1.jpg", *states[1][-2:]], ["circle/monday-2.jpg", *states[1][-2:]]]


KEPT_EXAMPLES = Scenario(
    prepare=_two_batches,
    act=_accept_and_evict,
    observe=_examples,
    resume=_go_on_with_batches,
    settled=_everything,
    between=_fewer,
)


def _list_examples(root: Path) -> list[tuple[str, str, int]]:
    """Return what a training process would train on, as the index of frames knows it."""
    store = ExampleStore(
        (_image_folder(),), "", "", ("circle", "star"), index=root / "index", trained=root / "seen"
    )
    return [(e.key, str(e.label), len(e.raw.data)) for e in store.examples()]


def _list_and_mark(root: Path) -> None:
    _list_examples(root)
    mark()


# The index is not synced: it may be lost, and must never be wrong.
EXAMPLE_INDEX = Scenario(
    prepare=lambda root: None, act=_list_and_mark, observe=_list_examples, resume=_list_and_mark
)


def recording() -> Path:
    """Write a bag of six labelled pictures, once."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    spool = _SOURCES / "spool"
    if spool.exists():
        return spool
    spool.mkdir()
    store = get_typestore(Stores.ROS2_HUMBLE)
    types = store.types
    with Writer(spool / "monday", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        kinds = {"/camera": "sensor_msgs/msg/CompressedImage", "/label": "std_msgs/msg/String"}
        topics = {t: writer.add_connection(t, k, typestore=store) for t, k in kinds.items()}
        for number in range(6):
            stamp_ns = int(NOW_S) * SECOND + number * SECOND
            header = types["std_msgs/msg/Header"](
                types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, SECOND)), "camera"
            )
            data = np.frombuffer(_picture(number), np.uint8)
            messages = {
                "/camera": types[kinds["/camera"]](header, "jpeg", data),
                "/label": types[kinds["/label"]]("star" if number % 2 else "circle"),
            }
            for topic, message in messages.items():
                content = store.serialize_cdr(message, kinds[topic])
                writer.write(topics[topic], stamp_ns, content)
    return spool


def _take_in(root: Path) -> None:
    spool, store = recording(), root / "store"
    store.mkdir(exist_ok=True)
    job = IngestJob(
        spool=str(spool), store=str(store),
        recordings=[str(recording.path) for recording in find_recordings(spool)],
        topic="", label_topic="/label", tolerance_s=0.1, rate_hz=0.0, min_sharpness=0.0,
        max_mb=100.0, max_age_days=30.0,
    )  # fmt: skip
    Ingest(job, now_s=lambda: NOW_S).run()
    mark()


def _taken_in(root: Path) -> list[tuple[int, str, str]]:
    """Return stamp, label and digest of every example that a reader gets.

    The numbers that the agent shows are whole, too.
    """
    assert json.loads((root / "store" / TOTALS).read_text())["kept"] >= 40
    return sorted(
        (row.stamp_ns, row.label, hashlib.sha256((batch / row.file).read_bytes()).hexdigest()[:8])
        for batch, row in _store(root).rows()
    )


def _counted(root: Path) -> tuple[object, int, int, list[str]]:
    totals = Ledger(root / "store", json.dumps(None)).totals
    return _taken_in(root), totals.kept, totals.recordings, _everything(root)


def _taken_in_before(root: Path) -> None:
    """Let the ledger know of recordings that are gone: no other file remembers them."""
    ledger = Ledger(root / "store", json.dumps(None))
    ledger.totals.kept, ledger.totals.recordings = 40, 3
    ledger.save()


INGEST = Scenario(
    prepare=_taken_in_before,
    act=_take_in,
    observe=_taken_in,
    resume=_take_in,
    settled=_counted,
)
