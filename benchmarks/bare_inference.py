"""A model without a server: the engine, and LiteRT's Interpreter written the obvious way."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import median

Ask = Callable[[], Any]


def stage_files(bundle: Path, precision: str = "fp32") -> list[Path]:
    """Return the files of an engine in order."""
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    return [bundle / name for name in manifest["engines"][precision]]


def by_engine(bundle: Path, image: Any, precision: str = "fp32") -> Ask:
    """Return what runs the engine once, with one thread; it returns the logits."""
    from fleet_model.engine import TFLiteEngine

    engine = TFLiteEngine(bundle, precision, num_threads=1)
    return lambda: engine.run({"image": image})["logits"]


def by_interpreter(bundle: Path, image: Any, precision: str = "fp32") -> Ask:
    """Return what runs the same files in the same way as LiteRT's own examples do."""
    from ai_edge_litert.interpreter import Interpreter

    stages = []
    for file in stage_files(bundle, precision):
        interpreter = Interpreter(str(file), num_threads=1)
        interpreter.allocate_tensors()
        stages.append(interpreter)

    def run() -> Any:
        value = image[None]
        for stage in stages:
            given, told = stage.get_input_details()[0], stage.get_output_details()[0]
            stage.set_tensor(given["index"], _quantized(value, given))
            stage.invoke()
            value = _dequantized(stage.get_tensor(told["index"]), told)
        return value[0]

    return run


def require_same(whose: str, found: Any, expected: Any) -> None:
    """Raise RuntimeError unless the answer is the model's."""
    if np.shape(found) != np.shape(expected) or not np.allclose(found, expected, atol=1e-4):
        raise RuntimeError(f"{whose} answers {found}, expected {expected}")


def timed(ask: Ask, first: int, count: int) -> list[float]:
    """Return the seconds of each of `count` calls; those `first` are not measured."""
    seconds = []
    for number in range(first + count):
        before = time.perf_counter()
        ask()
        if number >= first:
            seconds.append(time.perf_counter() - before)
    return seconds


def in_turns(asks: Mapping[str, Ask], turns: int, first: int, count: int) -> dict[str, float]:
    """Return the median over turns of the median seconds of each.

    In a turn they are called one after the other, `count` times: a machine that is busy for a
    moment is busy for all of them.

    Raises:
        RuntimeError: they do not answer the same.
    """
    names: Sequence[str] = list(asks)
    answers = {name: ask() for name, ask in asks.items()}
    for name in names[1:]:
        require_same(name, answers[name], answers[names[0]])
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(turns):
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for number in range(first + count):
            for name in names if (turn + number) % 2 else names[::-1]:
                (second,) = timed(asks[name], 0, 1)
                if number >= first:
                    seconds[name].append(second)
        for name in names:
            found[name].append(median(seconds[name]))
    return {name: median(values) for name, values in found.items()}


def _quantized(value: Any, details: Mapping[str, Any]) -> Any:
    scale, zero = details["quantization"]
    if not scale:
        return value
    limits = np.iinfo(details["dtype"])
    return np.clip(np.rint(value / scale) + zero, limits.min, limits.max).astype(details["dtype"])


def _dequantized(value: Any, details: Mapping[str, Any]) -> Any:
    scale, zero = details["quantization"]
    return (value.astype(np.float32) - zero) * np.float32(scale) if scale else value
