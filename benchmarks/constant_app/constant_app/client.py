"""ClientApp: add a constant to every tensor; a constant is also what evaluation answers."""

import time

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Add 1, after train-s seconds."""
    time.sleep(float(context.run_config["train-s"]))
    arrays = [array + 1 for array in message.content["arrays"].to_numpy_ndarrays()]
    metrics = MetricRecord({"num-examples": 1})
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, _: Context) -> Message:
    """Answer a constant."""
    metrics = MetricRecord({"num-examples": 1, "accuracy": 0.5})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)
