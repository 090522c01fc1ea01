"""The demo's report: one page, honest numbers, nothing loaded from elsewhere."""

import importlib
import math
import random
from pathlib import Path

import numpy as np
import pytest

DEMO = Path(__file__).parents[2] / "deploy" / "demo"
LABELS = ["circle", "square", "star", "triangle"]
TRAINING = {
    "hall-1-r1": "hall-1",
    "hall-1-r2": "hall-1",
    "hall-2-r1": "hall-2",
    "hall-2-r2": "hall-2",
}
UNSEEN = {"hall-1-r3": "hall-1", "hall-2-r3": "hall-2", "hall-3-r1": "hall-3"}
COUNTS = dict(
    zip(
        TRAINING,
        ((100, 20, 90, 30), (15, 150, 40, 35), (60, 4, 6, 170), (25, 88, 110, 17)),
        strict=True,
    )
)
VOID = {"meta", "img"}


@pytest.fixture
def write_report(monkeypatch):
    monkeypatch.syspath_prepend(str(DEMO))  # as demo.py finds it
    return importlib.import_module("report").write_report


@pytest.fixture
def data():
    return made_up_data()


@pytest.fixture
def page_of(write_report, tmp_path):
    def page(data, frames_dir=tmp_path / "frames"):
        write_report(data, frames_dir, tmp_path / "report.html")
        return (tmp_path / "report.html").read_text()

    return page


def made_up_data(rounds=5):
    """Return what the demo hands over, with invented numbers."""
    draw = random.Random(7)
    robots = [made_up_robot(draw, n, s, n in TRAINING) for n, s in (TRAINING | UNSEEN).items()]
    return {
        "summary": {
            "rounds": rounds,
            "seconds": 118.4,
            "robots": robots,
            "unseen": {
                "robots": list(UNSEEN),
                "accuracy_before": 0.2472,
                "accuracy_after": 0.9183,
                "single_robot_mean": 0.6814,
            },
            "published_version": rounds,
        },
        "history": [made_up_round(draw, number + 1) for number in range(rounds)],
        "labels": LABELS,
        "label_counts": {n: dict(zip(LABELS, c, strict=True)) for n, c in COUNTS.items()},
        "predictions": {
            name: {"before": made_up_answers(draw, 0.25), "after": made_up_answers(draw, 0.92)}
            for name in UNSEEN
        },
        "single_robot": {
            n: {other: round(draw.uniform(0.55, 0.8), 4) for other in UNSEEN} for n in TRAINING
        },
        "frame_bytes": {name: 2_150_000 + 37_000 * i for i, name in enumerate(TRAINING | UNSEEN)},
        "commands": [
            "python datasets/robot_camera.py build/demo/bags --robots hall-1/r1,hall-1/r2 --seed 2",
            "cloud-server init build/demo/server --workload image-classifier --labels a,b",
            "cloud-server start build/demo/server &",
            "edge-agent enroll build/demo/server/kit --dir robots/hall-1-r1 --examples bags/r1",
            "edge-agent run --config build/demo/robots/hall-1-r1/agent.toml &",
            "cloud-server train build/demo/server --rounds 5 --json",
        ],
        "about": {
            "fleetlearn": "0.1.0",
            "flwr": "1.41.0",
            "python": "3.11.7",
            "seed": 7,
            "date": "2026-11-22",
            "backbone": "efficientnet-lite0",
            "image_size": 128,
        },
    }


def made_up_robot(draw, name, site, trains):
    return {
        "name": name,
        "site": site,
        "trains": trains,
        "examples": 192 if trains else 0,
        "accuracy_before": round(draw.uniform(0.2, 0.35), 4),
        "accuracy_after": round(draw.uniform(0.88, 0.96), 4),
        "active_version": 5,
        "idle_mb": round(draw.uniform(95, 105), 1),
        "peak_rss_mb": round(draw.uniform(230, 250) if trains else draw.uniform(130, 140), 1),
        "bytes_up_per_round": draw.randint(24_500, 24_900) if trains else 0,
        "bytes_down_per_publish": draw.randint(30_500, 31_500),
        "bytes_down_first": 15_000_000,
        "tensorflow_loaded": False,
    }


def made_up_round(draw, number):
    robots = []
    for rank, (name, site) in enumerate(TRAINING.items()):
        before = 0.93 - 0.62 * math.exp(-0.9 * (number - 1)) + (0.03 * rank - 0.06)
        after = min(1.0, before + 0.5 * math.exp(-0.8 * number) + 0.03)
        metrics = {
            "loss_before": 1.4 * math.exp(-0.42 * (number - 1)) + 0.12 * rank,
            "loss_after": 0.95 * math.exp(-0.4 * (number - 1)) + 0.08 * rank,
            "accuracy_before": before,
            "accuracy_after": after,
            "train_loss": 0.7,
            "held_out": 48,
            "encode_s": 1.9 if number == 1 else 0.0,
            "train_s": 0.12,
        }
        robots.append(
            {
                "name": name,
                "site": site,
                "outcome": "accepted",
                "num_examples": 192,
                "num_steps": 12,
                "update_bytes": 20496,
                "metrics": metrics,
            }
        )
    names = "loss_before", "loss_after", "accuracy_before", "accuracy_after"
    means = {m: sum(r["metrics"][m] for r in robots) / len(robots) for m in names}
    return {
        "run": "20261122-002221",
        "round": number,
        "version": number,
        "seconds": 2.3,
        "robots": robots,
        "metrics": means,
    }


def made_up_answers(draw, accuracy, frames=120):
    matrix = np.zeros((4, 4), int)
    predictions = []
    for index in range(frames):
        truth = index * 4 // frames
        said = truth if draw.random() < accuracy else draw.randrange(4)
        matrix[truth, said] += 1
        predictions.append(
            {
                "file": "r3",
                "topic": "/camera/image/compressed",
                "stamp_ns": 1_760_000_000_000_000_000 + index,
                "label": LABELS[said],
                "score": round(draw.uniform(0.5, 1), 4),
                "truth": LABELS[truth],
            }
        )
    summary = {
        "frames": frames,
        "labelled": frames,
        "accuracy": float(np.trace(matrix) / frames),
        "macro_f1": 0.91,
        "confusion": {"labels": LABELS, "matrix": matrix.tolist()},
        "model_version": 5,
        "milliseconds_per_frame": 6.1,
        "skipped": {},
    }
    return {"summary": summary, "predictions": predictions}
