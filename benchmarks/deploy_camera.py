"""A robot's own program: a camera of 30 frames a second, and a model that changes under it.

    python -m benchmarks.deploy_camera OUT follow STATE/models/current
    python -m benchmarks.deploy_camera OUT reopen MODEL.tflite LABEL,LABEL,...

`follow` uses FollowingEngine. `reopen` is written as LiteRT's documentation shows it: when the file
has changed, the interpreter is opened again. Both encode frames alike. A camera does not wait:
whoever is late gets the newest frame, and those before it are lost. Each answer is a line of OUT:

    DUE ANSWERED MODEL      seconds since boot, twice; which model answered
"""

import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measure import boot_time_s

PERIOD_S = 1 / 30


class Answered(NamedTuple):
    """One line."""

    due_s: float
    at_s: float
    model: str


def main() -> None:
    """Answer frames until the process is ended."""
    from fleet_model.workloads.image_classifier.calibration import calibration_frames

    out, how, model, *labels = sys.argv[1:]
    answer = following(Path(model)) if how == "follow" else reopening(Path(model), labels[0])
    frames = cycle(list(calibration_frames()))
    answer(next(frames))
    with Path(out).open("w") as stream:
        due_s = boot_time_s()
        while True:
            due_s += PERIOD_S * max(1, (boot_time_s() - due_s) // PERIOD_S)
            time.sleep(max(0.0, due_s - boot_time_s()))
            answered_by = answer(next(frames))
            stream.write(f"{due_s:.4f} {boot_time_s():.4f} {answered_by}\n")
            stream.flush()


def following(current: Path) -> Callable[[Any], str]:
    """Return a function that answers a frame and says which version did."""
    from fleet_model.following import FollowingEngine

    engine = FollowingEngine(current)

    def answer(frame: Any) -> str:
        version = engine.manifest.version
        engine.answer(frame)
        return str(version)

    return answer


def reopening(file: Path, labels: str) -> Callable[[Any], str]:
    """Return a function that answers a frame and says of when the file was."""
    from ai_edge_litert.interpreter import Interpreter

    from fleet_model.workloads.image_classifier.classifier import ImageClassifier

    workload = ImageClassifier(labels.split(","))
    seen, run, taken = 0, None, ""

    def answer(frame: Any) -> str:
        nonlocal seen, run, taken
        changed = file.stat().st_mtime_ns
        if run is None or changed != seen:
            seen, interpreter = changed, Interpreter(model_path=str(file), num_threads=2)
            run = interpreter.get_signature_runner()
            (taken,) = run.get_input_details()
        run(**{taken: workload.encode(frame).inputs["image"][None]})
        return str(seen)

    return answer


def read(out: Path) -> list[Answered]:
    """Return all whole lines."""
    if not out.exists():
        return []
    lines = out.read_text().rpartition("\n")[0].splitlines()
    rows = [line.split() for line in lines]
    return [Answered(float(due), float(at), model) for due, at, model in rows]


def lost(answers: Sequence[Answered], begin_s: float, end_s: float) -> int:
    """Return how many frames due between two moments nobody answered."""
    due = [a.due_s for a in answers if begin_s <= a.due_s <= end_s]
    return round((due[-1] - due[0]) / PERIOD_S) + 1 - len(due)


def longest_pause_s(answers: Sequence[Answered], begin_s: float, end_s: float) -> float:
    """Return the longest time without an answer between two moments."""
    at = [a.at_s for a in answers if begin_s <= a.due_s <= end_s]
    return max(after - before for before, after in pairwise(at))


if __name__ == "__main__":
    main()
