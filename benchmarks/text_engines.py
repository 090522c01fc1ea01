"""One text through a published classifier, one thread: a client's engines, and PyTorch itself.

usage: python -m benchmarks.text_engines SERVER_DIR WEIGHTS SEED TESTS [TEXTS]

Publishes WEIGHTS as `cloud-server` does, then answers sentences of text_fleet.py:

    int8, fp32   the engine by ONNX Runtime, from the text to the label
    eager        the tokenizer and the module in PyTorch, float32, without padding and gradients

The last line is JSON: accuracy on all sentences, and milliseconds, the median over TEXTS of them,
all arms in one process and in turn.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.bare_inference import timed
from benchmarks.measure import median
from benchmarks.text_fleet import drawn
from cloud_server.models.adapters import merged_file
from cloud_server.models.export import BundleJob, run_export
from cloud_server.state.directory import ServerDirectory
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.engine import TFLiteEngine
from fleet_model.signatures import FROZEN
from fleet_model.torch.model import torch_model
from fleet_model.torch.tensors import slots
from fleet_model.types import Example
from fleet_model.weights import read_weights
from fleet_model.workload import rebuild

WARM = 5  # calls that are not measured
Answer = Callable[[str], str]


def answers(model: Path, weights: Path, bundle: Path) -> dict[str, Answer]:
    """Return what names the label of a text, by arm.

    Args:
        model: the server's.
        weights: of a checkpoint.
        bundle: a new folder.
    """
    run_export(
        BundleJob(
            model=model, weights=weights, version=1, created_at="2026-12-02T00:00:00Z",
            directory=bundle,
        )
    )  # fmt: skip
    found: dict[str, Answer] = {"eager": eager(model, weights)}
    for precision in ("int8", "fp32"):
        engine = TFLiteEngine(bundle, precision, num_threads=1)
        found[precision] = lambda text, e=engine: e.predict(text)[0].label
    return found


def eager(model: Path, weights: Path) -> Answer:
    """Return what PyTorch answers with the same numbers."""
    import torch
    from tokenizers import Tokenizer

    torch.set_num_threads(1)
    spec = parse_trainer((model / TRAINER).read_bytes())
    workload = rebuild(spec.workload, model)
    definition = torch_model(spec.workload, workload)
    module = definition.build(model)
    with merged_file(spec, model, weights) as merged:
        tensors = {**read_weights(model / FROZEN), **read_weights(merged)}
    for path, slot in slots(module, definition.path).items():
        slot.assign(tensors[path])
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(int(spec.workload.config["max_length"]))
    labels = workload.task.classes

    def answer(text: str) -> str:
        encoded = tokenizer.encode(text)
        with torch.inference_mode():
            logits = module(
                input_ids=torch.tensor([encoded.ids]),
                attention_mask=torch.tensor([encoded.attention_mask]),
            ).logits
        return labels[int(logits[0].argmax())]

    return answer


def milliseconds(arms: dict[str, Answer], texts: Sequence[str]) -> dict[str, float]:
    """Return the median of each arm; they are called one after the other, in turn."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    for number, text in enumerate(texts):
        for name in list(arms) if number % 2 else list(arms)[::-1]:
            (second,) = timed(partial(arms[name], text), 0, 1)
            if number >= WARM:
                found[name].append(second * 1e3)
    return {name: median(values) for name, values in found.items()}


def accuracy(answer: Answer, examples: Sequence[Example]) -> float:
    """Return the share of right labels."""
    return sum(answer(one.raw) == one.label for one in examples) / len(examples)


def main() -> None:
    """Print what was measured as a line of JSON."""
    server, weights, seed, tests, *count = sys.argv[1:]
    examples = drawn(int(seed), 1, int(tests)).test
    with tempfile.TemporaryDirectory() as folder:
        arms = answers(ServerDirectory(Path(server)).model, Path(weights), Path(folder, "bundle"))
        texts = [one.raw for one in examples][:: max(1, len(examples) // int(*count or ["200"]))]
        told = {
            "accuracy": {name: accuracy(arm, examples) for name, arm in arms.items()},
            "milliseconds": milliseconds(arms, texts),
        }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
