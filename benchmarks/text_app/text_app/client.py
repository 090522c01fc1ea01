"""ClientApp: a table of texts -> tokens -> epochs of AdamW."""

import csv
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch.utils.data import DataLoader, TensorDataset

from text_app.model import LABELS, arrays_of, build, set_arrays, tokenizer_of

app = ClientApp()


def stamper() -> Callable[[], None]:
    """Return what appends "PID START END" at the end of a step, as benchmarks/step_stamps does."""
    if "STEP_STAMPS" not in os.environ:
        return lambda: None
    file = os.open(os.environ["STEP_STAMPS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    who = f"{os.getpid()} {ticks / os.sysconf('SC_CLK_TCK'):.3f}"

    def stamp() -> None:
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        os.write(file, f"{who} {now:.6f}\n".encode())

    return stamp


def read_table(file: Path, encoder: Path, length: int) -> TensorDataset:
    """Return tokens, mask and class of each row of a CSV file with columns text and label."""
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    tokens = tokenizer_of(encoder)(
        [row["text"] for row in rows],
        padding="max_length", truncation=True, max_length=length, return_tensors="pt",
    )  # fmt: skip
    labels = torch.tensor([LABELS.index(row["label"]) for row in rows])
    return TensorDataset(tokens["input_ids"], tokens["attention_mask"], labels)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train what the server sends on this client's table."""
    node, run = context.node_config, context.run_config
    encoder, adapter = Path(str(node["encoder"])), bool(run["adapter"])
    data = read_table(Path(str(node["table"])), encoder, int(run["max-length"]))
    model = build(encoder, int(run["layers"]), adapter=adapter)
    set_arrays(model, message.content["arrays"], adapter=adapter)
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=float(run["learning-rate"]))
    loader = DataLoader(data, batch_size=int(run["batch-size"]), shuffle=True)
    stamp, total = stamper(), 0.0
    for _ in range(int(run["epochs"])):
        for ids, mask, labels in loader:
            loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            total += loss.item()
            stamp()
    arrays = arrays_of(model, adapter=adapter)
    metrics = {
        "num-examples": len(data),
        "loss": total,
        "array-bytes": sum(len(array.data) for array in arrays.values()),
    }
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=message)
