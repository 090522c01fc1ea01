"""An installed workload of texts, on the small LiteRT files of tests/data/tiny_bundle.

A text is drawn as a picture of its letters, so the real engine answers it with logits of its own.
"""

import json
import shutil
from pathlib import Path

import numpy as np

from fleet_model.bundle import Task, TensorSpec
from fleet_model.errors import FrameError
from fleet_model.types import Encoded, TrainConfig
from fleet_model.workloads.image_classifier import ImageClassifier

TINY = Path(__file__).parents[2] / "data" / "tiny_bundle"
SIDE = 32


class Letters:
    classes_setting = "labels"

    def __init__(self, labels):
        self.labels = list(labels)
        self._classes = ImageClassifier(self.labels, image_size=SIDE)

    @property
    def task(self):
        return Task(
            inputs={"image": TensorSpec(shape=(SIDE, SIDE, 3))},
            targets={"class": TensorSpec(shape=(), dtype="int32")},
            outputs={"logits": TensorSpec(shape=(len(self.labels),))},
            measures={"accuracy": "higher", "loss": "lower"},
            answer="class",
            classes=self.labels,
        )

    @property
    def config(self):
        return {"labels": self.labels}

    @property
    def training(self):
        return TrainConfig()

    def encode(self, raw):
        if not isinstance(raw, str):
            raise FrameError(f"a {type(raw).__name__}, expected a text")
        picture = np.zeros(SIDE * SIDE * 3, np.float32)
        letters = np.frombuffer(raw.encode()[: picture.size], np.uint8)
        picture[: letters.size] = letters
        return Encoded(inputs={"image": picture.reshape(SIDE, SIDE, 3) / 255})

    def target(self, example):
        return self._classes.target(example)

    def samples(self, folder):
        yield from ()

    def decode(self, outputs, context):
        return self._classes.decode(outputs, context)

    def measure(self, outputs, targets):
        return self._classes.measure(outputs, targets)


def install(site, bundle, labels=("billing", "repair", "other")):
    """Make a folder that, on sys.path, is an installed package, and a bundle of its workload."""
    package = site / "letters-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: letters\nVersion: 1.0\n")
    points = "[fleetlearn.workloads]\nletters = letters_workload:Letters\n"
    (package / "entry_points.txt").write_text(points)
    shutil.copy(__file__, site)
    shutil.copytree(TINY, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["workload"] = {"name": "letters", "config": {"labels": list(labels)}}
    manifest["labels"] = list(labels)
    manifest["task"] = Letters(labels).task.model_dump(mode="json")
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle
