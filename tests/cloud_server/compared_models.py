"""What tests of the compare page share: pictures, and the page as a process of its own."""

import json
import shutil
import signal
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import httpx
import numpy as np
from foreign_models import LABELS, SIDE, write_yolox
from headless_browser import told_by
from tiny_versions import TINY

from cloud_server.models.imported.bundle import write_imported
from cloud_server.models.imported.engine_file import Wish, look_at
from cloud_server.state.model_store import DirectoryStore
from fleet_model.bundle import MANIFEST
from fleet_model.workloads.object_detector.imported import ImportedDetector

VISIT = Path(__file__).parent / "console" / "compare" / "visit_compare.py"


def picture(suffix=".png", side=64, seed=0):
    """Return the bytes of an image file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def detectors(folder, **shifts):
    """Return bundles of a detector of another tool, whose boxes are off by so many cells."""
    made = []
    for name, shift in shifts.items():
        file = write_yolox(folder / f"{name}.onnx", shift=shift)
        reading = look_at(file, Wish(), 2).reading.model_copy(update={"classes": (0, 1)})
        workload = ImportedDetector(LABELS, SIDE, reading.model_dump(mode="json"))
        made.append(folder / name)
        made[-1].mkdir()
        write_imported(file, workload, TINY, 1, "2026-12-01T10:00:00+00:00", made[-1])
    return made


def shape(label, seed):
    """Return the bytes of a JPEG with a circle, a square or a star on a plain ground."""
    rng = np.random.default_rng(seed)
    ground, color = (tuple(int(one) for one in rng.integers(0, 256, 3)) for _ in range(2))
    picture = np.full((240, 320, 3), ground, np.uint8)
    center, size = rng.integers(90, 150, 2), int(rng.integers(40, 80))
    turns = {"circle": 60, "square": 4, "star": 10}[label]
    angles = np.arange(turns) * 2 * np.pi / turns + rng.uniform(0, 6)
    reach = size * np.where((np.arange(turns) % 2 == 1) & (label == "star"), 0.4, 1.0)
    corners = center + np.stack([np.cos(angles) * reach, np.sin(angles) * reach], 1)
    cv2.fillPoly(picture, [corners.astype(np.int32)], color, cv2.LINE_AA)
    return cv2.imencode(".jpg", picture)[1].tobytes()


def bomb(side):
    """Return a valid gray PNG of side x side pixels in a few kilobytes."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    packed = zlib.compressobj(9)
    row = b"\0" * (side // 8 + 2)
    data = b"".join(packed.compress(row) for _ in range(side)) + packed.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def publish(server_dir, bundle, version, folder):
    """Keep a bundle as a version of the server's store."""
    made = shutil.copytree(bundle, folder / str(version))
    manifest = json.loads((made / MANIFEST).read_text()) | {"version": version}
    (made / MANIFEST).write_text(json.dumps(manifest))
    DirectoryStore(server_dir.store).add(made, made)


def visit(what, url, *words):
    """Return what visit_compare.py tells; the page is usable, and asks for nothing elsewhere."""
    told, origin = told_by(VISIT, what, url, *words), "/".join(url.split("/")[:3])
    assert all(url.startswith(f"{origin}/") for url in told["asked"])
    assert not any(told["axe"].values()), told["axe"]
    assert all(wide <= 0 for wide in told["too wide"].values()), told["too wide"]
    return told


class Page:
    """The page, and a client that has opened it."""

    def __init__(self, *words):
        command = [sys.executable, "-m", "cloud_server", "compare", *words, "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        told = json.loads(self.process.stdout.readline())
        self.url, self.models = told["url"], told["models"]
        self.origin = self.url.partition("/compare")[0]
        self.client = httpx.Client(base_url=self.origin, timeout=60)
        self.path = self.url.removeprefix(self.origin).partition("?")[0]
        text = self.client.get(self.url).text
        self.token = text.partition('data-token="')[2].partition('"')[0]

    def post(self, what, content, **headers):
        known = {"origin": self.origin, "x-form-token": self.token}
        return self.client.post(self.path + what, content=content, headers=known | headers)

    def head_alone(self, what, length):
        """Return the answer to a request whose body never comes: who waits for it never answers."""
        cookie = "; ".join(f"{one.name}={one.value}" for one in self.client.cookies.jar)
        host = self.origin.removeprefix("http://")
        lines = [
            f"POST {self.path}{what} HTTP/1.1", f"host: {host}", f"origin: {self.origin}",
            f"cookie: {cookie}", f"x-form-token: {self.token}", f"content-length: {length}",
        ]  # fmt: skip
        with socket.create_connection(("127.0.0.1", int(host.partition(":")[2]))) as client:
            client.settimeout(20)
            client.sendall("\r\n".join([*lines, "", ""]).encode())
            answer = b""
            while piece := client.recv(4096):  # it closes the connection
                answer += piece
        return answer

    def end(self):
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)
