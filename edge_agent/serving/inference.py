"""What both wires ask: the model of now, in its turn; and the counts of what was answered."""

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from edge_agent.serving.request import InferAnswer, InferRequest, RequestError
from edge_agent.serving.served import Served
from edge_agent.serving.turns import Turns
from fleet_model import __version__

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What clients may use."""

    max_body: int  # bytes of one request
    bodies: int  # of the longest size, in memory at once
    slow_s: float  # for a request to arrive whole, and for its answer to leave


@dataclass(slots=True)
class Inference:
    """The served model; `current` is replaced as a whole when another version takes over."""

    turns: Turns
    max_batch: int
    current: Served | None = None
    is_ending: bool = False
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # (wire, outcome)

    def is_ready(self) -> bool:
        """Return whether a request would be answered."""
        return self.current is not None and not self.is_ending

    def served(self) -> Served:
        """Return what is served now; raises RequestError if there is no model yet."""
        if self.current is None:
            raise RequestError("not ready", "no model is installed yet: `edge-agent run` does it")
        return self.current

    def infer(self, model: str, version: str, request: InferRequest) -> InferAnswer:
        """Answer with one version, whatever takes over meanwhile; a job of `run`."""
        return self.served().infer(model, version, request, self.max_batch)

    async def run(
        self, wire: str, client: Hashable, size: int, job: Callable[[], Answer]
    ) -> Answer:
        """Return what a job returns when it has had its turn; RequestError as `Turns.run`."""
        try:
            answer = await self.turns.run((wire, client), size, job)
        except RequestError as error:
            self.counts[wire, error.kind] += 1
            raise
        self.counts[wire, "answered"] += 1
        return answer

    def server_metadata(self) -> dict[str, Any]:
        """Return what is told of the server."""
        extensions = ["binary_tensor_data"]
        return {"name": "fleetlearn", "version": __version__, "extensions": extensions}

    def metrics(self) -> str:
        """Return the counts in the text format of Prometheus."""
        version = self.current.version if self.current else "none"
        runtime = self.current.runtime if self.current else "none"
        lines = [
            "# TYPE fleetlearn_serve_requests_total counter",
            *(
                f'fleetlearn_serve_requests_total{{wire="{wire}",outcome="{outcome}"}} {count}'
                for (wire, outcome), count in sorted(self.counts.items())
            ),
            "# TYPE fleetlearn_serve_waiting gauge",
            f"fleetlearn_serve_waiting {self.turns.waiting}",
            "# TYPE fleetlearn_serve_model_info gauge",
            f'fleetlearn_serve_model_info{{version="{version}",runtime="{runtime}"}} 1',
        ]
        return "\n".join([*lines, ""])
