"""What a request to the served model costs: `edge-agent serve` beside KServe's Python server.

Both serve the same small model (tests/data/tiny_bundle: 32 x 32 x 3 float32 in, three logits out,
two .tflite stages, one thread) on loopback TCP, over REST with JSON, REST with bytes (binary tensor
extension) and gRPC. One client for both keeps one connection open and sends bytes that it has made
before; it asks one server and then the other, in turns. Every answer is compared with that of the
model without a server.

What is told is the cost beyond the bare inference: the median time of a request, less that of the
engine's `run` (of the peer: of LiteRT's Interpreter on the same two files) in this process.

Ratios: `serve_overhead` is of REST with bytes; `serve_overhead_json` and `serve_overhead_grpc`.
`engine_latency` is of the engine alone, beside LiteRT's Interpreter on the same files: a model as
robots have it (EfficientNet-Lite0 at 128 pixels, float32, one thread); `engine_latency_int8`.
Figures `metadata_kb_1000` (at most 20) and `refresh_ms`: what a robot reads to know which of 1,000
versions is signed for it (benchmarks/signed_refresh.py).
--quick: two short turns.
"""

import http.client
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.bare_inference import (
    Ask,
    by_engine,
    by_interpreter,
    in_turns,
    require_same,
    stage_files,
    timed,
)
from benchmarks.environments import environment
from benchmarks.lite0 import lite0_bundle
from benchmarks.measure import Comparison, Result, arguments, median, report, say
from benchmarks.services import ROOT, Services
from benchmarks.signed_refresh import refresh_figures

WORK = ROOT / "build" / "bench" / "serving"
BUNDLE = ROOT / "tests" / "data" / "tiny_bundle"
ARMS, WIRES = ("ours", "kserve"), ("rest_binary", "rest_json", "grpc")
PORTS = {"ours": (18431, 18432), "kserve": (18433, 18434)}  # REST, gRPC
KEYS = {
    "rest_binary": ("serve_overhead", 3.0),
    "rest_json": ("serve_overhead_json", 0.0),
    "grpc": ("serve_overhead_grpc", 0.0),
}
INFERENCES = 125  # of the engine alone, in each turn
PATH = "/v2/models/model/infer"
METHOD = "/inference.GRPCInferenceService/ModelInfer"


class Size(NamedTuple):
    """How much is measured."""

    turns: int
    requests: int  # of each arm and wire, in each turn
    first: int  # requests before that, not measured


FULL, QUICK = Size(turns=5, requests=500, first=100), Size(turns=2, requests=100, first=30)


@dataclass(frozen=True, slots=True)
class Question:
    """One request, as bytes for each wire; both servers get the same ones."""

    image: Any  # (32, 32, 3) float32, 0 to 255

    def rest(self, *, binary: bool) -> tuple[bytes, dict[str, str]]:
        """Return body and headers."""
        batch = self.image[None]
        given: dict[str, Any] = {"name": "image", "shape": list(batch.shape), "datatype": "FP32"}
        if not binary:
            body = {"id": "1", "inputs": [{**given, "data": batch.ravel().tolist()}]}
            return json.dumps(body).encode(), {"Content-Type": "application/json"}
        given["parameters"] = {"binary_data_size": batch.nbytes}
        wanted = {"binary_data_output": True}
        head = json.dumps({"id": "1", "inputs": [given], "parameters": wanted}).encode()
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(head)),
        }
        return head + batch.tobytes(), headers

    def grpc(self) -> bytes:
        """Return a ModelInferRequest."""
        from edge_agent.serving.grpc_messages import message

        batch = self.image[None]
        asked = message("ModelInferRequest")(
            model_name="model", id="1", raw_input_contents=[batch.tobytes()]
        )
        asked.inputs.add(name="image", datatype="FP32", shape=batch.shape)
        content: bytes = asked.SerializeToString()
        return content


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, quick="two short turns")
    how = QUICK if options.quick else FULL
    question = Question(np.random.default_rng(0).random((32, 32, 3), np.float32) * 255)
    asks = {
        "ours": by_engine(BUNDLE, question.image),
        "kserve": by_interpreter(BUNDLE, question.image),
    }
    bare, expected = in_turns(asks, how.turns, how.first, how.requests), asks["kserve"]()
    engines = engine_latency(how)
    with Services(WORK / "logs") as services:
        start(services)
        clients = {arm: connect(arm, question) for arm in ARMS}
        for arm, wires in clients.items():
            for wire, ask in wires.items():
                require_same(f"{arm} {wire}", logits_of(wire, ask()), expected)
        seconds = measure(clients, how)
    report(result(seconds, bare, engines), as_json=options.json)


def engine_latency(how: Size) -> dict[tuple[str, str], float]:
    """Return the seconds of (engine or interpreter, precision) for a model as robots have it."""
    bundle = lite0_bundle(WORK / "lite0")
    image = np.random.default_rng(1).random((128, 128, 3), np.float32) * 255
    found = {}
    for precision in ("fp32", "int8"):
        asks = {
            "engine": by_engine(bundle, image, precision),
            "interpreter": by_interpreter(bundle, image, precision),
        }
        seconds = in_turns(asks, how.turns, 10, INFERENCES)
        found |= {(name, precision): value for name, value in seconds.items()}
    return found


def start(services: Services) -> None:
    """Start both servers and wait until they answer."""
    WORK.mkdir(parents=True, exist_ok=True)
    robot = WORK / "agent.toml"
    rest, rpc = PORTS["ours"]
    models = WORK / "state" / "models"
    models.mkdir(parents=True, exist_ok=True)
    (models / "current").unlink(missing_ok=True)
    (models / "current").symlink_to(BUNDLE)
    robot.write_text(
        f'[server]\naddress = "127.0.0.1:1"\n[serve]\nthreads = 1\n'
        f'rest = "127.0.0.1:{rest}"\ngrpc = "127.0.0.1:{rpc}"\n'
    )
    ours = environment("agent").bin / "edge-agent"
    services.start("ours", [ours, "serve", "--config", robot])
    peer = [environment("kserve").bin / "python", ROOT / "benchmarks" / "kserve_server.py"]
    services.start("kserve", [*peer, *PORTS["kserve"], *stage_files(BUNDLE)])
    for arm in ARMS:
        services.wait(f"{arm} answers", partial(answers, arm))


def answers(arm: str) -> bool:
    """Return whether a server is ready."""
    import grpc

    rest, rpc = PORTS[arm]
    link = http.client.HTTPConnection("127.0.0.1", rest, timeout=10)
    try:
        link.request("GET", "/v2/models/model/ready")
        with grpc.insecure_channel(f"127.0.0.1:{rpc}") as channel:
            grpc.channel_ready_future(channel).result(timeout=10)
        return link.getresponse().status == 200
    except (OSError, grpc.FutureTimeoutError, http.client.HTTPException):
        return False
    finally:
        link.close()


def connect(arm: str, question: Question) -> dict[str, Ask]:
    """Return what sends one request by each wire and returns the answer's bytes."""
    import grpc

    rest, rpc = PORTS[arm]
    link = http.client.HTTPConnection("127.0.0.1", rest, timeout=60)
    channel = grpc.insecure_channel(f"127.0.0.1:{rpc}")
    infer, content = channel.unary_unary(METHOD), question.grpc()

    def by_rest(body: bytes, headers: Mapping[str, str]) -> Ask:
        def ask() -> Any:
            link.request("POST", PATH, body, headers)
            answer = link.getresponse()
            told = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{arm}: {answer.status} {told[:300]!r}")
            return told, answer.headers.get("Inference-Header-Content-Length")

        return ask

    return {
        "rest_binary": by_rest(*question.rest(binary=True)),
        "rest_json": by_rest(*question.rest(binary=False)),
        "grpc": lambda: infer(content),
    }


def logits_of(wire: str, answer: Any) -> Any:
    """Return the logits of an answer."""
    from edge_agent.serving.grpc_messages import message

    if wire == "grpc":
        told = message("ModelInferResponse").FromString(answer)
        if told.raw_output_contents:
            return np.frombuffer(told.raw_output_contents[0], np.float32)
        return np.array(told.outputs[0].contents.fp32_contents, np.float32)
    content, length = answer
    if length is not None:
        return np.frombuffer(content[int(length) :], np.float32)
    return np.array(json.loads(content)["outputs"][0]["data"], np.float32).ravel()


def measure(clients: Mapping[str, Mapping[str, Ask]], how: Size) -> dict[tuple[str, str], float]:
    """Return the median over turns of the median seconds of each arm and wire."""
    found: dict[tuple[str, str], list[float]] = {}
    for turn in range(how.turns):
        for wire in WIRES:
            for arm in ARMS if turn % 2 else ARMS[::-1]:
                seconds = timed(clients[arm][wire], how.first, how.requests)
                found.setdefault((arm, wire), []).append(median(seconds))
        say(f"serving: turn {turn + 1} of {how.turns}")
    return {key: median(values) for key, values in found.items()}


def result(
    seconds: Mapping[tuple[str, str], float],
    bare: Mapping[str, float],
    engines: Mapping[tuple[str, str], float],
) -> Result:
    """Return overheads in milliseconds, and what they are made of; the engine by itself."""
    over = {key: 1e3 * (value - bare[key[0]]) for key, value in seconds.items()}
    comparisons = [
        Comparison(key, "ms", over["ours", wire], over["kserve", wire], required)
        for wire, (key, required) in KEYS.items()
    ]
    for precision, key, required in (
        ("fp32", "engine_latency", 0.97),
        ("int8", "engine_latency_int8", 0.0),
    ):
        times = [1e3 * engines[arm, precision] for arm in ("engine", "interpreter")]
        comparisons.append(Comparison(key, "ms", *times, required))
    figures = {f"{arm}_bare_ms": 1e3 * value for arm, value in bare.items()}
    figures |= {f"{arm}_{wire}_ms": 1e3 * value for (arm, wire), value in sorted(seconds.items())}
    figures |= {f"{arm}_{precision}_ms": 1e3 * value for (arm, precision), value in engines.items()}
    return Result(
        benchmark="serving",
        comparisons=comparisons,
        figures={
            **figures,
            **refresh_figures(WORK / "signed", BUNDLE),
            "load_average": os.getloadavg()[0],
        },
    )


if __name__ == "__main__":
    main()
