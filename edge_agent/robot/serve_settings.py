"""How `edge-agent serve` serves the installed model: to programs on this machine."""

from typing import Annotated

from pydantic import AfterValidator, Field

from edge_agent.robot.local_address import parse_address
from fleet_model.settings import Expected, Section


def _address(text: str) -> str:
    if text:
        parse_address(text)
    return text


LocalAddress = Annotated[str, AfterValidator(_address)]


class ServeSettings(Section):
    """`edge-agent serve`: the installed model over REST and gRPC, on this machine only."""

    name: Annotated[
        str,
        Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,49}$"),
        Expected("letters, digits, _ and -, at most 50, a letter first"),
    ] = Field(default="model", description="What clients call the model.")
    rest: LocalAddress = Field(
        default="127.0.0.1:8000",
        description="A loopback port, or unix:/PATH; empty: no REST.",
        examples=["unix:/run/edge-agent-serve/rest"],
    )
    grpc: LocalAddress = Field(
        default="127.0.0.1:8001",
        description="A loopback port, or unix:/PATH; empty: no gRPC.",
        examples=["unix:/run/edge-agent-serve/grpc"],
    )
    threads: int = Field(default=2, ge=1, description="Processor threads of an answer.")
    max_batch: int = Field(default=8, ge=1, le=1024, description="Rows of a request, at most.")
    max_body_mb: float = Field(
        default=16, gt=0, le=1000, description="Of a request; longer ones are refused (413)."
    )
    max_waiting: int = Field(
        default=64,
        ge=1,
        le=4096,
        description="Requests that wait for the model; one connection may have half of them, more "
        "are refused (503).",
    )
    slow_s: float = Field(
        default=10, gt=0, description="For a request to arrive whole, and for its answer to leave."
    )
