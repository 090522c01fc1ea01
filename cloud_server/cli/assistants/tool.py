"""One thing that an assistant can ask: its name, its arguments, the function that answers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet_model.errors import SettingsError
from fleet_model.settings import explain

Changes = Literal["nothing", "adds", "replaces"]


class Arguments(BaseModel):
    """What a tool takes; an argument that it does not know is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Page(Arguments):
    """Which part of a list."""

    offset: int = Field(default=0, ge=0, le=1_000_000, description="how many to skip")
    limit: int = Field(default=50, ge=1, le=200, description="how many at most")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """What `answer` gets is the server's directory, and arguments that are checked."""

    name: str
    about: str
    arguments: type[Arguments] = Arguments
    answer: Callable[[Path, Any], dict[str, Any]]
    changes: Changes = "nothing"
    repeats: bool = False  # a second call with the same arguments changes nothing more

    def checked(self, given: dict[str, Any]) -> Arguments:
        """Return the arguments; raises SettingsError that names the wrong one."""
        try:
            return self.arguments.model_validate(given)
        except ValidationError as error:
            keys, words = explain(error, self.arguments)
            first = error.errors()[0]["type"]
            if any(one["type"] == "extra_forbidden" for one in error.errors()):
                known = ", ".join(self.arguments.model_fields) or "none"
                words = f"{words.replace('unknown key', 'unknown argument', 1)}; it takes: {known}"
            elif first == "missing":
                words = f"the argument {words}"
            where = ".".join(one for one in keys if one)
            raise SettingsError(f"{self.name}: {where}: {words}") from None
