"""Make what aging.py measures with: run it with the modules of the older commit on PYTHONPATH.

The older commit's own classes write the server directory, so both sides get what a fleet of that
release has on disk after years. Nothing here is measured; fsync is left out to be done in a minute.
"""

import argparse
import os
from pathlib import Path

import numpy as np

START_NS = 1_760_000_000_000_000_000
PERIOD_NS = 500_000_000
LABELS = ("a", "b")
CAMERA, LABEL_TOPIC = "/camera/image/compressed", "/camera/label"
FRAMES_PER_BAG = 100
PARAMETERS = 1000  # of the one tensor: the number of checkpoints counts, not their size


def main() -> None:
    """Make a server directory, the keys of its robots, and a store of frames."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    for name in ("port", "robots", "checkpoints", "versions", "frames"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    os.fsync = lambda _: None
    make_server(options)
    make_frames(options.root / "frames", options.frames)


def make_server(options: argparse.Namespace) -> None:
    """Write a directory of `versions` closed rounds, the newest of which have checkpoints."""
    from cloud_server.checkpoints import Checkpoints
    from cloud_server.directory import ServerDirectory
    from fleet_model.proof import make_key

    from benchmarks.round_time import make_server as make
    from cloud_server.robots import Register
    from fleet_model.types import Checkpoint

    server_dir = ServerDirectory(options.root / "server")
    make(server_dir, options.port, PARAMETERS)
    register = Register(server_dir.robots)
    (options.root / "keys").mkdir()
    names = [f"r{number:03d}" for number in range(options.robots)]
    for name in names:
        register.add(name, "bench", make_key(options.root / "keys" / name))
    checkpoints = Checkpoints(server_dir.checkpoints)
    weights = {"tensor": np.zeros(PARAMETERS, np.float32)}
    for version in range(1, options.versions + 1):
        record = round_record(version, names)
        server_dir.append_history(record.as_json())
        if version > options.versions - options.checkpoints:
            checkpoints.save(Checkpoint(version=version, weights=weights), record)


def round_record(version: int, names: list[str]) -> "RoundRecord":  # noqa: F821
    """Return what a round of these robots leaves."""
    from cloud_server.round_record import RobotRecord, RoundRecord

    random = np.random.default_rng(version)
    measures = ("loss_before", "loss_after", "accuracy_before", "accuracy_after")
    robots = tuple(
        RobotRecord(
            name=name, site="bench", outcome="accepted", num_examples=200, num_steps=70,
            update_bytes=4 * PARAMETERS, norm=float(random.random()), weight=200,
            metrics={"held_out": 20.0, **{name: float(random.random()) for name in measures}},
        )
        for name in names
    )  # fmt: skip
    return RoundRecord(
        run=f"20260101-{version // 10:06d}", round=version % 10 + 1, version=version, seconds=61.5,
        robots=robots, metrics={"loss_after": 0.5}, asked=len(names),
    )  # fmt: skip


def make_frames(root: Path, count: int) -> None:
    """Write half of the frames as pictures in a folder per label, half into bags."""
    import cv2

    random = np.random.default_rng(0)
    contents = []
    for _ in range(count):
        picture = random.integers(0, 256, (120, 160, 3), np.uint8)
        contents.append(cv2.imencode(".jpg", picture)[1].tobytes())  # about 20 kB
    for number, content in enumerate(contents[: count // 2]):
        path = root / "pictures" / LABELS[number % 2] / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    rest = contents[count // 2 :]
    for begin in range(0, len(rest), FRAMES_PER_BAG):
        write_bag(root / "bags" / f"{begin:06d}", rest[begin : begin + FRAMES_PER_BAG], begin)


def write_bag(path: Path, contents: list[bytes], first: int) -> None:
    """Write pictures and a label for each into an mcap bag."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    image, text = store.types["sensor_msgs/msg/CompressedImage"], store.types["std_msgs/msg/String"]
    header, stamp = store.types["std_msgs/msg/Header"], store.types["builtin_interfaces/msg/Time"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        camera = writer.add_connection(CAMERA, image.__msgtype__, typestore=store)
        labels = writer.add_connection(LABEL_TOPIC, text.__msgtype__, typestore=store)
        for number, content in enumerate(contents, first):
            at = START_NS + number * PERIOD_NS
            about = header(stamp(*divmod(at, 10**9)), "camera")
            message = image(about, "jpeg", np.frombuffer(content, np.uint8))
            writer.write(camera, at, store.serialize_cdr(message, image.__msgtype__))
            label = text(LABELS[number % 2])
            writer.write(labels, at + 1_000_000, store.serialize_cdr(label, text.__msgtype__))


if __name__ == "__main__":
    main()
