"""How the file of another tool is given a picture, and which of its tensors say what."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet_model.errors import SettingsError

MAX_SIDE = 4096  # pixels
Fit = Literal["letterbox", "corner", "stretch"]
Color = Literal["rgb", "bgr"]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Reading(BaseModel):
    """All of it; JSON values, for it is part of what a manifest says of the workload."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: Annotated[str, Field(max_length=40)]  # a key of layouts.LAYOUTS
    width: Side  # of the input, pixels
    height: Side
    image: Name  # the input that takes the picture
    channels_first: bool  # (1, 3, height, width), not (1, height, width, 3)
    dtype: str = "float32"  # of the input
    scale: Finite = 0.0  # of a quantized input, see foreign.Port; 0: it is none
    zero: int = 0
    color: Color = "rgb"
    mean: tuple[Finite, Finite, Finite] = (0.0, 0.0, 0.0)  # of R, G, B in 0..255 (B, G, R of "bgr")
    std: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)
    fit: Fit = "letterbox"
    gray: int = Field(default=114, ge=0, le=255)  # of what the frame leaves free
    size_input: str = ""  # an input that takes (width, height) of the input; "": there is none
    outputs: dict[str, Name]  # role in the layout -> output
    shares: bool = False  # boxes are shares of the input, 0..1, and not pixels
    overlap: float = Field(default=0.5, gt=0, le=1)  # IoU from which the worse of two boxes goes
    classes: tuple[int, ...] = Field(min_length=1)  # the file's class -> index in labels; -1: none


def read_reading(fields: Any) -> Reading:
    """Return it; raises SettingsError for what it cannot be."""
    try:
        return Reading.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "all of it"
        raise SettingsError(f"reading: {where}: {first['msg']}") from None
