"""What the process that computes is told when it starts."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class EngineJob(BaseModel):
    """Load this base."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Path  # directory of the trainer's files
    batch: int  # texts that go on at once
    context: int  # tokens of a text with what it goes on with
    threads: int
    device: str = "auto"
    adapters_mb: float = 0.0  # of all departments
