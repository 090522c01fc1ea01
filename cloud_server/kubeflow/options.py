"""What the pipeline is asked for."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet_model.errors import SettingsError

WORKLOADS = ("causal-lm",)


class FleetOptions(BaseModel):
    """How departments learn; every component gets all of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workload: str = "causal-lm"
    config: dict[str, Any] = {}  # keyword arguments of the workload
    sites: int | None = Field(default=None, ge=1, le=1000)  # where one table is dealt out
    clients: int = Field(default=2, ge=1, le=1000)  # of each site
    rounds: int = Field(default=3, ge=1)
    epochs: int | None = Field(default=None, ge=1)
    learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_records: int = Field(default=0, ge=0)  # rows that a client learns from; 0: all
    rank: int | None = Field(default=None, ge=1)
    rule: str | None = None  # of aggregation
    mixing: float | None = Field(default=None, ge=0, le=1)  # a model for each site
    threads: int = Field(default=2, ge=1, le=64)
    device: str = "auto"


class FleetJob(BaseModel):
    """A whole call, as the command line hands it to its child process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: Path  # run: folder of the new fleet; compile: YAML file
    compiled: bool  # write YAML, run nothing
    data: str = ""  # table, folder of tables, or bucket
    model: str = ""  # folder or bucket
    options: FleetOptions = FleetOptions()
    image: str = ""  # of all components
    gpus: int = Field(default=0, ge=0, le=8)  # of the components that load the model
    work: Path = Path(".kubeflow")  # folder of what the components write


def fleet_options(**given: Any) -> FleetOptions:
    """Return checked options; SettingsError names the flag of the first wrong one."""
    try:
        options = FleetOptions(**given)
    except ValidationError as error:
        wrong = error.errors()[0]
        flag = str(wrong["loc"][0]).replace("_", "-")
        raise SettingsError(f"--{flag} {wrong['input']}: {wrong['msg'].lower()}") from None
    if options.workload not in WORKLOADS:
        raise SettingsError(
            f"--workload {options.workload}: the Kubeflow pipeline trains {', '.join(WORKLOADS)} "
            "alone; other workloads learn by `cloud-server train`"
        )
    return options
