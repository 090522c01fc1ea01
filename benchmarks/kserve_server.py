"""KServe's Python server around .tflite stages, written the obvious way; for benchmarks.serving.

usage: python kserve_server.py REST_PORT GRPC_PORT STAGE.tflite...   (in the environment "kserve")

It runs one thread of LiteRT, and answers bytes where bytes are asked for. KServe listens on all
interfaces and has no option for that: here both of its servers are bound to 127.0.0.1.
"""

import sys
from typing import Any

import grpc.aio._server
import numpy as np
import uvicorn
from ai_edge_litert.interpreter import Interpreter
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class PlainModel(Model):
    """Stages in a row; KServe calls `predict` in its event loop."""

    def __init__(self, files: list[str]) -> None:
        super().__init__("model")
        self.files = files

    def load(self) -> bool:
        """Load the stages."""
        self.stages = []
        for file in self.files:
            interpreter = Interpreter(file, num_threads=1)
            interpreter.allocate_tensors()
            self.stages.append(interpreter)
        self.ready = True
        return True

    async def predict(
        self, payload: InferRequest, headers: Any = None, response_headers: Any = None
    ) -> InferResponse:
        """Run the model on the first input."""
        value = payload.inputs[0].as_numpy().astype(np.float32)
        for stage in self.stages:
            stage.set_tensor(stage.get_input_details()[0]["index"], value)
            stage.invoke()
            value = stage.get_tensor(stage.get_output_details()[0]["index"])
        output = InferOutput("logits", list(value.shape), "FP32")
        binary = bool((payload.parameters or {}).get("binary_data_output", False))
        output.set_data_from_numpy(value, binary_data=binary)
        return InferResponse(payload.id or "", self.name, [output])


def listen_on_loopback() -> None:
    """Bind both servers to 127.0.0.1."""
    patched: Any = uvicorn.Config
    configure, add_port = uvicorn.Config.__init__, grpc.aio._server.Server.add_insecure_port

    def configured(self: Any, app: Any, host: str = "", **options: Any) -> None:
        configure(self, app, host="127.0.0.1", **options)

    def added(self: Any, address: str) -> int:
        return int(add_port(self, address.replace("[::]", "127.0.0.1")))

    patched.__init__ = configured
    grpc.aio._server.Server.add_insecure_port = added


def main() -> None:
    """Serve until a signal comes."""
    rest, rpc, *files = sys.argv[1:]
    listen_on_loopback()
    model = PlainModel(files)
    model.load()
    ports = {"http_port": int(rest), "grpc_port": int(rpc)}
    ModelServer(**ports, enable_grpc=True, enable_docs_url=False, workers=1).start([model])


if __name__ == "__main__":
    main()
