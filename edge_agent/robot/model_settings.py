"""What runs the published model, and what it must show on this robot before it stays."""

from typing import Literal

from pydantic import Field, model_validator

from fleet_model.settings import Section


class EngineSettings(Section):
    """What runs the published model."""

    precision: Literal["fp32", "int8"] = Field(
        default="fp32", description="int8 is smaller and faster on most robots."
    )
    runtime: Literal["auto", "interpreter", "compiled"] = Field(
        default="auto",
        description="What of LiteRT runs it. auto: CompiledModel where it was faster when the "
        "model was installed, else the Interpreter; compiled: also where it is not faster. Never "
        "where it gives other answers.",
    )
    accelerator: Literal["cpu", "gpu"] = Field(
        default="cpu",
        description="gpu: CompiledModel on a GPU is tried first, in a process of its own.",
    )

    @model_validator(mode="after")
    def _require_one_that_has_it(self) -> "EngineSettings":
        if self.runtime == "interpreter" and self.accelerator == "gpu":
            raise ValueError('the Interpreter runs on no GPU: set runtime = "auto" or "compiled"')
        return self


class PersonalSettings(Section):
    """What of this robot's own runs with the published model; it never leaves this robot."""

    own_shares: bool = Field(
        default=False,
        description="true: how often each label was seen on this robot is added to the model's "
        "logits, where that is better on the robot's own held-out examples. For robots whose "
        "recordings have the labels as often as the robot will meet them.",
    )


class InstallSettings(Section):
    """What a published model must show on this robot before it stays."""

    examples: int = Field(
        default=200,
        ge=0,
        description="Held-out examples, at most, that a new model and the running one are both "
        "tried on; without labels as many frames; 0: none.",
    )
    worse_by: float = Field(
        default=0.03,
        ge=0,
        description="Refused: worse than the running model by more than this in the workload's "
        "first measure (0.03 of accuracy), if chance alone does that in fewer than 1 of 100 cases.",
    )
    max_fall: float = Field(
        default=0.1,
        ge=0,
        description="Refused: worse by more than this, and than chance, than the running model was "
        "on this robot when it was confirmed: labels or frames have changed. 1: not asked.",
    )
    agreement: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Without labels refused: the same answer as the running model on a smaller "
        "share of frames, in 99 of 100 cases. Not asked beside version 0, which is untrained.",
    )
    slower: float = Field(
        default=3.0,
        gt=1,
        description="Refused: so many times the running model's shortest time for an answer.",
    )
    memory_mb: float = Field(
        default=1000.0,
        gt=0,
        description="Refused: the process that tries it takes more, with both models and Python.",
    )
    timeout_s: float = Field(
        default=60.0, gt=0, description="Refused: it is not tried in this time, three times over."
    )
    probation_s: float = Field(
        default=60.0,
        ge=0,
        description="After the switch; then it is tried again, and is confirmed or given back.",
    )
    check: str = Field(
        default="",
        description="Your own check at the end of the probation, a command without a shell "
        "(systemctl is-active --quiet perception); the model is given back if it fails or takes "
        "over 10 s.",
    )
