"""Generate one camera bag per robot: signs on a wall, seen through that robot's own camera.

A robot drives past signs (circle, square, star or triangle), each in view for one to two seconds.
Its site decides the walls and the lamps, its camera gain, noise, blur and JPEG quality, and its
route which signs it meets (Dirichlet prior: not IID). Everything follows from the seed and the
robot's name, so adding a robot changes no other bag. OUT_DIR/hall-1/r1 becomes a rosbag2 folder:

    python datasets/robot_camera.py OUT_DIR --robots hall-1/r1,hall-2/r1 --contact-sheet look.png
"""

import argparse
import json
import re
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LABELS = ("circle", "square", "star", "triangle")
IMAGE_TOPIC, LABEL_TOPIC = "/camera/image/compressed", "/camera/label"
# QVGA is 4:3, as robot cameras are, so a square model input costs something; 9 kB, 15 ms a frame.
WIDTH, HEIGHT = 320, 240
START_NS, PERIOD_NS = 1_760_000_000 * 10**9, 500_000_000  # 9 October 2025; 2 Hz
Image = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]

# Photographs in scikit-image's wheel; licences are in README.md
PHOTOS = "astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "rocket"
TINTS = {"brick": (1.15, 0.88, 0.76), "coins": (1, 0.93, 0.8), "grass": (0.85, 1.1, 0.62)}  # RGB


@dataclass(frozen=True, eq=False)
class Look:
    """How one robot sees the world; ranges are in `robot_look`."""

    photos: tuple[str, ...]
    light: Floats  # (3,) factor per B, G, R: lamps, gain and white balance together
    vignette: float  # share of light lost in the corners
    blur_px: float  # standard deviation of the lens blur
    motion_px: float  # longest streak that driving draws into a frame
    noise: float  # standard deviation at mid gray, of 255
    jpeg_quality: int
    radius: float  # mean radius of a sign, share of HEIGHT
    prior: Floats  # (4,) share of the signs on this robot's route, by LABELS


@dataclass(frozen=True, eq=False)
class Shot:
    """One frame as recorded; the stamps are nanoseconds since 1970."""

    label: str
    jpeg: Image  # (bytes,)
    header_ns: int  # exposure
    bag_ns: int  # arrival at the recorder
    label_ns: int  # arrival of the annotator's answer


def generator(*key: int | str) -> np.random.Generator:
    """Return a random stream that only the key decides (`hash()` changes with every process)."""
    return np.random.default_rng([k if isinstance(k, int) else zlib.crc32(k.encode()) for k in key])


def robot_look(robot: str, seed: int, prior: str = "dirichlet") -> Look:
    """Draw the look of `site/name`; robots of one site share lamps and a pool of five walls."""
    site = generator(seed, "site", robot.partition("/")[0])
    pool, lamps = site.choice(PHOTOS, 5, replace=False), site.uniform(0.88, 1.12, 3)
    r = generator(seed, "look", robot)
    return Look(
        photos=tuple(str(p) for p in r.choice(pool, 3, replace=False)),
        light=lamps * r.uniform(0.85, 1.15, 3) * r.uniform(0.5, 1.25),
        vignette=r.uniform(0, 0.5),
        blur_px=r.uniform(0, 1.7),
        motion_px=r.uniform(0, 9),
        noise=r.uniform(2, 13),
        jpeg_quality=int(r.integers(35, 95)),
        radius=r.uniform(0.2, 0.34),
        # arXiv:1909.06335 draws label shares this way; 0.5 leaves one or two common labels
        prior=np.full(4, 0.25) if prior == "uniform" else r.dirichlet(np.full(4, 0.5)),
    )


def deal_labels(prior: Floats, count: int, rng: np.random.Generator) -> list[str]:
    """Shuffle `count` labels with the prior's shares; from four on, every label occurs."""
    counts = np.full(len(prior), int(count >= len(prior)))
    while counts.sum() < count:
        counts[np.argmax(prior * count - counts)] += 1
    return [LABELS[i] for i in rng.permutation(np.repeat(np.arange(len(prior)), counts))]


def outline(label: str) -> Floats:
    """Return the corners of a sign of radius about 1 as (n, 2); y points up."""
    corners, size, first = {
        "circle": (72, 1.0, 0.0),
        "square": (4, 1.15, np.pi / 4),
        "star": (10, 1.25, np.pi / 2),
        "triangle": (3, 1.25, np.pi / 2),
    }[label]
    angle = first + np.arange(corners) * 2 * np.pi / corners
    length = size * np.where((label == "star") & (np.arange(corners) % 2 == 1), 0.42, 1.0)
    return np.asarray(np.stack([np.cos(angle), np.sin(angle)], 1) * length[:, None])


def project(points: Floats, roll: float, yaw: float, pitch: float) -> Floats:
    """Turn flat points (n, 2) by radians and look at them from 5 radii away; y points down."""
    x = points[:, 0] * np.cos(roll) - points[:, 1] * np.sin(roll)
    y = points[:, 0] * np.sin(roll) + points[:, 1] * np.cos(roll)
    depth = 5 + x * np.sin(yaw) + y * np.sin(pitch)
    return np.asarray(np.stack([x * np.cos(yaw), -y * np.cos(pitch)], 1) * 5 / depth[:, None])


@cache
def wall(name: str) -> Image:
    """Return one photograph, tinted, as BGR (height, width, 3)."""
    from skimage import data

    photo = getattr(data, name)()
    rgb = np.repeat(photo[..., None], 3, 2) if photo.ndim == 2 else photo[..., :3]
    return np.clip(rgb * TINTS.get(name, (1, 1, 1)), 0, 255).astype(np.uint8)[..., ::-1].copy()


class Encounter:
    """One sign on one wall; `scene(t)` is the view after `t` frames of driving."""

    def __init__(self, look: Look, label: str, rng: np.random.Generator) -> None:
        """Draw pose, paint and drift once, so that neighbouring frames look alike."""
        self.photo = wall(str(rng.choice(look.photos)))
        high, wide = self.photo.shape[:2]
        self.crop_px = rng.uniform(0.4, 0.85) * min(high, wide * HEIGHT / WIDTH)  # height
        self.eye = rng.uniform(0, 1, 2)  # x, y share of the free play of the crop
        self.eye_drift = rng.normal(0, 0.03, 2)
        self.flat = outline(label)
        self.turn = rng.normal(0, (0.35, 0.3, 0.2))  # roll, yaw, pitch in radians
        self.turn_drift = rng.normal(0, 0.05, 3)
        self.radius_px = HEIGHT * look.radius * rng.uniform(0.75, 1.2)
        self.zoom = rng.normal(1, 0.04)  # per frame: approaching or leaving
        self.centre = rng.uniform(0.35, 0.65, 2) * (WIDTH, HEIGHT)
        self.centre_drift = rng.normal(0, 8, 2)
        self.paint = rng.uniform(20, 235, 3).astype(np.float32)
        self.rim = np.clip(self.paint * rng.uniform(0.3, 1.6), 0, 255).astype(np.float32)
        behind = self._wall(0)[fill(self._corners(0)) > 0.5].mean(0)
        if np.abs(self.paint - behind).sum() < 120:  # nobody could see this sign
            self.paint = (self.paint + 128) % 256

    def scene(self, t: int) -> Floats:
        """Render the light that reaches the lens as BGR (HEIGHT, WIDTH, 3), 0..255."""
        image, corners = self._wall(t), self._corners(t)
        shadow = cv2.GaussianBlur(fill(corners + np.array([4, 5])), (0, 0), 4)
        image = image * (1 - 0.5 * shadow[..., None])
        middle = corners.mean(0)
        for paint, share in ((self.rim, 1.0), (self.paint, 0.86)):
            image += (paint - image) * fill((corners - middle) * share + middle)[..., None]
        return image

    def _corners(self, t: int) -> Floats:
        """Return the sign's corners in pixels as (n, 2); most of the sign stays in view."""
        radius = self.radius_px * self.zoom**t
        rest = np.array([WIDTH, HEIGHT]) - 0.8 * radius
        centre = np.clip(self.centre + self.centre_drift * t, 0.8 * radius, rest)
        return project(self.flat, *(self.turn + self.turn_drift * t)) * radius + centre

    def _wall(self, t: int) -> Floats:
        play = np.array(self.photo.shape[1::-1]) - self.crop_px * np.array([WIDTH / HEIGHT, 1])
        left, top = np.clip(self.eye + self.eye_drift * t, 0, 1) * play
        scale = self.crop_px / HEIGHT
        view = np.array([[scale, 0, left], [0, scale, top]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(self.photo, view, (WIDTH, HEIGHT), flags=flags).astype(np.float32)


def fill(corners: Floats) -> Floats:
    """Return the coverage 0..1 of a polygon as (HEIGHT, WIDTH), with smooth edges."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(mask, [np.round(corners * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask / np.float32(255)


def expose(scene: Floats, look: Look, rng: np.random.Generator) -> Image:
    """Take a picture: motion, lens, light, sensor noise and JPEG, in that order; JPEG bytes."""
    half = round(look.motion_px * rng.uniform(0, 1) / 2)
    if half:
        angle, streak = rng.uniform(-0.4, 0.4), np.zeros((2 * half + 1,) * 2)
        x, y = round(half * np.cos(angle)), round(half * np.sin(angle))
        cv2.line(streak, (half - x, half - y), (half + x, half + y), 1.0)
        scene = np.asarray(cv2.filter2D(scene, -1, streak / streak.sum()), np.float32)
    if look.blur_px > 0.3:
        scene = np.asarray(cv2.GaussianBlur(scene, (0, 0), look.blur_px), np.float32)
    down, right = np.linspace(-1, 1, HEIGHT)[:, None], np.linspace(-1, 1, WIDTH)
    lens = (1 - look.vignette * (right**2 + down**2) / 2).astype(np.float32)  # (HEIGHT, WIDTH)
    light = look.light * rng.uniform(0.93, 1.07)  # mains flicker and auto exposure
    scene = scene * lens[..., None] * light.astype(np.float32)
    sigma = look.noise * np.sqrt(0.3 + 0.7 * scene / 128)  # read noise and shot noise
    scene = scene + sigma * rng.standard_normal(scene.shape, np.float32)
    picture = np.clip(scene, 0, 255).astype(np.uint8)
    _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, look.jpeg_quality])
    return np.asarray(jpeg, np.uint8).reshape(-1)


def shots(robot: str, look: Look, frames: int, seed: int) -> Iterator[Shot]:
    """Yield `frames` shots in time order; a sign stays for two to four frames."""
    rng = generator(seed, "drive", robot)
    stays: list[int] = []
    while sum(stays) < frames:
        stays.append(int(rng.integers(2, 5)))
    exposure = START_NS + int(rng.integers(0, 3600 * 10**9))
    for label, stay in zip(deal_labels(look.prior, len(stays), rng), stays, strict=True):
        encounter = Encounter(look, label, rng)
        for t in range(min(stay, frames)):
            header = exposure + int(rng.integers(0, 4 * 10**6))  # the camera's clock jitters
            bag = header + int(rng.integers(6 * 10**6, 15 * 10**6))
            answer = bag + int(rng.integers(2 * 10**6, 8 * 10**6))
            jpeg = expose(encounter.scene(t), look, rng)
            yield Shot(label, jpeg, header, bag, answer)
            exposure += PERIOD_NS
        frames -= stay


def write_bag(path: Path, robot: str, recorded: list[Shot]) -> None:
    """Write a new rosbag2 folder (mcap, version 9); it gets its name only when it is complete."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    path.parent.mkdir(parents=True, exist_ok=True)
    store = get_typestore(Stores.ROS2_HUMBLE)
    image_type, label_type = "sensor_msgs/msg/CompressedImage", "std_msgs/msg/String"
    time, header = store.types["builtin_interfaces/msg/Time"], store.types["std_msgs/msg/Header"]
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as aside:
        bag = Path(aside) / path.name  # the mcap file takes its name from the folder
        with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            camera = writer.add_connection(IMAGE_TOPIC, image_type, typestore=store)
            annotator = writer.add_connection(LABEL_TOPIC, label_type, typestore=store)
            for shot in recorded:
                head = header(time(*divmod(shot.header_ns, 10**9)), f"{robot}/camera_optical_frame")
                picture = store.types[image_type](head, "bgr8; jpeg compressed bgr8", shot.jpeg)
                writer.write(camera, shot.bag_ns, store.serialize_cdr(picture, image_type))
                answer = store.serialize_cdr(store.types[label_type](shot.label), label_type)
                writer.write(annotator, shot.label_ns, answer)
        bag.rename(path)


def contact_row(recorded: list[Shot], columns: int = 8) -> Image:
    """Lay evenly spaced frames side by side, named by label, as BGR."""
    row = []
    for shot in recorded[:: max(1, len(recorded) // columns)][:columns]:
        picture = np.asarray(cv2.imdecode(shot.jpeg, cv2.IMREAD_COLOR), np.uint8)
        for ink, thick in ((0, 4), (255, 1)):
            cv2.putText(
                picture, shot.label, (8, 230), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (ink,) * 3, thick
            )
        row.append(picture)
    return np.hstack(row)


def main(argv: list[str] | None = None) -> None:
    """Write every robot's bag; exit status 2 for a request that cannot be met."""
    ap = argparse.ArgumentParser(description="Generate one labelled camera bag per robot.")
    ap.add_argument("out", type=Path, metavar="OUT_DIR")
    ap.add_argument(
        "--robots", default="hall-1/r1,hall-1/r2,hall-2/r1,hall-2/r2", help="site/name,.."
    )
    ap.add_argument("--frames", type=int, default=240, help="per robot")
    ap.add_argument("--seed", type=int, default=2)
    ap.add_argument("--prior", choices=("dirichlet", "uniform"), default="dirichlet")
    ap.add_argument("--contact-sheet", type=Path, metavar="FILE.png", help="one row per robot")
    ap.add_argument("--json", action="store_true", help="print what was written")
    args = ap.parse_args(argv)
    robots = args.robots.split(",")
    for robot in robots:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", robot):
            ap.error(f"--robots: {robot!r} is not a robot's name, expected site/name: hall-1/r1")
        if (args.out / robot).exists():
            ap.error(f"{args.out / robot} exists; remove it or choose another OUT_DIR")
    if args.frames < 1 or args.seed < 0:
        ap.error("--frames must be at least 1, --seed at least 0")
    cv2.setNumThreads(1)
    written, rows = [], []
    for robot in robots:
        look, bag = robot_look(robot, args.seed, args.prior), args.out / robot
        recorded = list(shots(robot, look, args.frames, args.seed))
        write_bag(bag, robot, recorded)
        counts = dict(sorted(Counter(shot.label for shot in recorded).items()))
        written.append({"robot": robot, "bag": str(bag), "frames": len(recorded), "labels": counts})
        rows.append(contact_row(recorded))
        print(f"{bag}: {len(recorded)} frames, {counts}", file=sys.stderr)
    if args.contact_sheet and not cv2.imwrite(str(args.contact_sheet), np.vstack(rows)):
        ap.error(f"--contact-sheet: cannot write {args.contact_sheet}")
    if args.json:
        print(json.dumps({"image_topic": IMAGE_TOPIC, "label_topic": LABEL_TOPIC, "bags": written}))


if __name__ == "__main__":
    main()
