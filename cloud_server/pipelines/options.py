"""What a pipeline is asked for."""

from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fleet_model.errors import SettingsError

Strategy: TypeAlias = Literal["no", "epoch", "steps"]


class PipelineOptions(BaseModel):
    """How to read, tokenize, train and measure; all of it, with data and code, names a result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: tuple[str, ...] = ()  # columns; empty: found out
    label: str = ""  # column; "": found out
    labels: tuple[str, ...] = ()  # in the order of the model's outputs; empty: those of the data
    encoding: str = ""  # of text files; "": found out
    held_out: float = Field(default=0.2, gt=0, le=0.5)  # where the data have no validation part
    max_length: int = Field(default=128, ge=8, le=4096)  # tokens of a text
    epochs: int = Field(default=3, ge=1)
    batch_size: int = Field(default=16, ge=1)
    eval_batch_size: int = Field(default=64, ge=1)
    learning_rate: float = Field(default=5e-5, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    evaluate: Strategy = "epoch"  # when to measure while it trains; the end is always measured
    save: Strategy = "epoch"  # when to keep what a killed training resumes from
    every: int = Field(default=500, ge=1)  # steps, for the strategy "steps"
    seed: int = Field(default=0, ge=0)
    device: str = "auto"  # "cpu", "cuda", "cuda:1"; "auto": a GPU where there is one

    @model_validator(mode="after")
    def _several(self) -> "PipelineOptions":
        if self.labels and len(set(self.labels)) < max(2, len(self.labels)):
            raise ValueError("labels: expected at least two different names")
        return self


class PipelineJob(BaseModel):
    """A whole run, as the command line hands it to its child process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str  # file, folder, bucket, or a name on a hub
    model: str  # folder, bucket, or a name on a hub
    out: str  # folder or bucket
    work: Path  # folder of the steps' results
    bucket: dict[str, Any] = {}  # options of fsspec for buckets
    options: PipelineOptions = PipelineOptions()
    flyte: str | None = None  # run as tasks of Flyte: "local", or the file of a cluster


def pipeline_options(**given: Any) -> PipelineOptions:
    """Return checked options; SettingsError names the flag of the first wrong one."""
    try:
        return PipelineOptions(**given)
    except ValidationError as error:
        wrong = error.errors()[0]
        if not wrong["loc"]:
            raise SettingsError(str(wrong["ctx"]["error"])) from None
        flag = str(wrong["loc"][0]).replace("_", "-")
        raise SettingsError(f"--{flag} {wrong['input']}: {wrong['msg'].lower()}") from None
