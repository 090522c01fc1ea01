"""An installed workload that a bundle can tell to misbehave, and bundles that do.

Nothing here is a file that makes other software crash or hang: the workload does it itself.
"""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np

from fleet_model.bundle import MANIFEST, entry_of
from fleet_model.weights import read_weights
from fleet_model.workloads.image_classifier import ImageClassifier

TINY = Path(__file__).parents[2] / "data" / "tiny_bundle"
NOT_FASTER = {"accelerator": "cpu", "why": "it is not faster"}
ANSWER_S = 0.02  # a slow one takes five times as long


class Moody(ImageClassifier):
    def __init__(self, labels, backbone, image_size, mood=""):
        super().__init__(labels, backbone, image_size)
        self.mood, self.answers = mood, 0
        if mood == "crash at load":
            os.kill(os.getpid(), signal.SIGSEGV)

    @property
    def config(self):
        return {**super().config, "mood": self.mood}

    def decode(self, outputs, context):
        self.answers += 1
        waits = self.mood == "slow" or (self.mood == "waits for others" and self.answers % 3)
        time.sleep(5 * ANSWER_S if waits else ANSWER_S)
        if self.mood == "hang":
            time.sleep(10_000)
        if self.mood == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.mood == "raise":
            raise RuntimeError("what nobody expected")
        if self.mood == "eat":
            self.eaten = [np.ones(2_500_000) for _ in range(75)]  # 20 MB each
        return super().decode(outputs, context)


def site(folder):
    """Make a folder that, on sys.path, is an installed package with the workload."""
    package = folder / "moody-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: moody\nVersion: 1.0\n")
    points = "[fleetlearn.workloads]\nmoody = moody_workload:Moody\n"
    (package / "entry_points.txt").write_text(points)
    shutil.copy(__file__, folder)
    # As the copy looks for it.
    shutil.copytree(TINY, folder.parents[1] / "data" / "tiny_bundle", dirs_exist_ok=True)
    return folder


def bundle(folder, version, mood="", *, worse=False, times=1.0, **fields):
    """Make the tiny bundle with a mood; `worse` negates the weights of its head, `times` scales."""
    made = shutil.copytree(TINY, folder / f"bundle-{version}")
    factor = -times if worse else times
    if factor != 1:
        kernel = np.ascontiguousarray(read_weights(TINY / "weights.safetensors")["head/kernel"].T)
        content = (TINY / "head.tflite").read_bytes()
        assert content.count(kernel.tobytes()) == 1
        head = content.replace(kernel.tobytes(), np.float32(factor * kernel).tobytes())
        (made / "head.tflite").write_bytes(head)
    manifest = json.loads((made / MANIFEST).read_text())
    manifest |= {"version": version, **fields}
    manifest["workload"]["name"] = "moody"
    manifest["workload"]["config"]["mood"] = mood
    manifest["files"]["head.tflite"] = entry_of((made / "head.tflite").read_bytes()).model_dump()
    (made / MANIFEST).write_text(json.dumps(manifest))
    return made


def labelled_frames(folder, number):
    """Make a folder of pictures, each in the folder of the label that the tiny model answers."""
    import cv2

    from fleet_model.engine import TFLiteEngine

    engine, rng = TFLiteEngine(TINY), np.random.default_rng(0)
    for index in range(number):
        picture = rng.integers(0, 256, (32, 32, 3), np.uint8)
        logits = engine.run({"image": picture.astype(np.float32)})["logits"]
        label = engine.workload.labels[int(logits.argmax())]
        (folder / label).mkdir(parents=True, exist_ok=True)
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / label / f"{index:03d}.png"), bgr)
    return folder
