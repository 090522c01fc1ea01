"""A published text classifier without PyTorch: one .onnx file that adds a number of each word."""

import json
import shutil
from pathlib import Path

import numpy as np
from tiny_encoders import WORDS, write_tokenizer

from fleet_model.bundle import MANIFEST, TRAINER, Manifest, WorkloadSpec, entry_of_file, to_json
from fleet_model.workloads.text_classifier import TextClassifier

LABELS, LENGTH = ("bad", "good"), 12
TINY = Path(__file__).parent / "data" / "tiny_bundle"  # what the fleet trains, whatever runs
GOOD, BAD = ("good", "great", "fine"), ("bad", "poor", "broken")
PADDING = 100.0  # of "good": an engine that computes what pads a text finds it everywhere


def write_text_bundle(folder: Path, version: int = 1, turned: bool = False) -> Path:
    """Write the bundle directory of a version; `turned` says the opposite of each text."""
    from onnx import TensorProto, helper, numpy_helper, save_model

    table = np.zeros((len(WORDS), 2), np.float32)
    for column, words in enumerate((BAD, GOOD)):
        table[[WORDS.index(word) for word in words], 1 - column if turned else column] = 4
    table[0, 1] = PADDING
    shape, whole = ["batch", "length"], TensorProto.INT64
    nodes = [
        helper.make_node("Gather", ["table", "inputs_input_ids"], ["numbers"]),
        helper.make_node("ReduceSum", ["numbers", "along"], ["outputs"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "words",
        [
            helper.make_tensor_value_info(name, whole, shape)
            for name in ("inputs_attention_mask", "inputs_input_ids")
        ],
        [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["batch", 2])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([1], np.int64), "along"),
        ],
    )
    write_tokenizer(folder)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    save_model(model, str(folder / "model.onnx"))
    shutil.copy(TINY / TRAINER, folder)
    workload = TextClassifier(LABELS, LENGTH)
    manifest = Manifest(
        format=1,
        protocol=2,
        version=version,
        created_at="2026-12-01T00:00:00",
        workload=WorkloadSpec(name="text-classifier", config=dict(workload.config)),
        labels=LABELS,
        inputs=workload.task.inputs,
        task=workload.task,
        engines=dict.fromkeys(("fp32", "int8"), ("model.onnx",)),
        trainer=entry_of_file(folder / TRAINER),
        files={n: entry_of_file(folder / n) for n in ("model.onnx", "tokenizer.json")},
        workload_files=("tokenizer.json",),
    )
    (folder / MANIFEST).write_bytes(to_json(manifest))
    return folder


def write_table(file: Path, count: int = 40) -> Path:
    """Write a table of different texts with labels."""
    rows = ["text,label"]
    for number in range(count):
        label = LABELS[number % 2]
        word = (BAD, GOOD)[number % 2][number % 3]
        rows.append(f"the {word} robot is {' '.join(WORDS[8 : 8 + number % 5])} {number},{label}")
    file.write_text("\n".join(rows) + "\n")
    return file


def without(manifest: Path, **fields: object) -> None:
    """Change fields of a manifest."""
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **fields}))
