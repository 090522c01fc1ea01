"""A grid of recipes, and the model that is picked of all that they leave."""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloud_server.compression.recipes.measure import Measure
from cloud_server.compression.recipes.recipe import Recipe, step_name
from fleet_model.errors import SettingsError, WithheldError
from fleet_model.settings import explain

MOST = 256  # recipes of a sweep
_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}


class Variant(NamedTuple):
    """One recipe of a sweep."""

    recipe: Recipe
    chosen: Mapping[int, str]  # step number (from 0) -> words of what was chosen there


class Limits(BaseModel):
    """What the picked model keeps; None: it may be anything."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_size: int | None = Field(default=None, ge=1)  # bytes of the file
    max_latency_ms: float | None = Field(default=None, gt=0)  # p50
    max_drop: float | None = Field(default=None, ge=0, le=1)  # accuracy below the teacher's

    @property
    def any(self) -> bool:
        """Say whether there is one."""
        return self != Limits()


def limits_of(*, max_size: str, **given: float | None) -> Limits:
    """Return the limits of a command line; raises SettingsError that names the flag."""
    size = re.fullmatch(r"([0-9.]+) *(|k|M|G)B?", max_size.strip(), re.IGNORECASE)
    try:
        if max_size and not size:
            raise ValueError
        count = round(float(size[1]) * _UNITS[size[2].lower()]) if size else None
    except (ValueError, OverflowError):
        raise SettingsError(
            f"--max-size {max_size[:40]}: expected a size as 2MB or 800kB"
        ) from None
    try:
        return Limits.model_validate({"max_size": count, **given})
    except ValidationError as error:
        keys, words = explain(error, Limits)
        raise SettingsError(f"--{keys[0].replace('_', '-')}: {words}") from None


def variants(recipe: Recipe, grid: Mapping[str, Sequence[Any]]) -> list[Variant]:
    """Return each combination of a grid; the recipe alone where there is none.

    Args:
        recipe: what is varied.
        grid: "STEP.KEY" -> its values; STEP is as tables name it: "distill", or of several
            "distill 2".

    Raises:
        SettingsError: there is no such step or key, a value does not fit, or there are too many.
    """
    found: list[Variant] = []
    count = 1
    for values in grid.values():
        count *= len(values)
    if count > MOST:
        raise SettingsError(f"sweep: has {count} combinations, expected {MOST} at most")
    for values in product(*grid.values()):
        steps, words = list(recipe.step), dict[int, list[str]]()
        for where, value in zip(grid, values, strict=True):
            number, key = _place(recipe, where)
            steps[number] = _changed(steps[number], key, value, where)
            words.setdefault(number, []).append(f"{key} {_shown(value)}")
        chosen = {number: ", ".join(said) for number, said in words.items()}
        found.append(Variant(recipe.model_copy(update={"step": tuple(steps)}), chosen))
    return found


def parsed(text: str) -> tuple[str, list[Any]]:
    """Return place and values of "STEP.KEY=VALUE,VALUE"; raises SettingsError."""
    where, equals, values = text.partition("=")
    if not equals or not values:
        raise SettingsError(
            f"--sweep {text}: expected STEP.KEY=VALUE,VALUE, as prune.share=0.3,0.5"
        )
    return where.strip(), [_value(one.strip()) for one in values.split(",")]


def picked(measures: Sequence[Measure], limits: Limits) -> int:
    """Return which model is picked of those that keep all limits.

    With `max_drop`, the smallest: how right it has to be is said. Without it, the most accurate.

    Raises:
        WithheldError: none keeps them.
    """
    least = measures[0].accuracy - (1 if limits.max_drop is None else limits.max_drop)
    keeping = [
        number
        for number, one in enumerate(measures)
        if (limits.max_size is None or one.size_bytes <= limits.max_size)
        and (limits.max_latency_ms is None or one.p50_ms <= limits.max_latency_ms)
        and one.accuracy >= least - 1e-9
    ]
    if not keeping:
        smallest = min(measures, key=lambda one: one.size_bytes)
        fastest = min(measures, key=lambda one: one.p50_ms)
        raise WithheldError(
            f"no model keeps {_said(limits)}: the smallest has {smallest.size_bytes} bytes "
            f"({smallest.name}, accuracy {smallest.accuracy:.3f}), the fastest takes "
            f"{fastest.p50_ms:.2f} ms ({fastest.name}, {fastest.accuracy:.3f}), the teacher's "
            f"accuracy is {measures[0].accuracy:.3f}"
        )
    if limits.max_drop is not None:
        return min(keeping, key=lambda n: (measures[n].size_bytes, -measures[n].accuracy))
    return min(keeping, key=lambda n: (-measures[n].accuracy, measures[n].size_bytes))


def _place(recipe: Recipe, where: str) -> tuple[int, str]:
    step, _, key = where.rpartition(".")
    names = [step_name(recipe.step, number) for number in range(len(recipe.step) - 1)]
    if step not in names:
        raise SettingsError(
            f"sweep: {where}: there is no step {step!r}; steps are {', '.join(names)}"
        )
    return names.index(step), key


def _changed(step: Any, key: str, value: Any, where: str) -> Any:
    try:
        return type(step).model_validate({**step.model_dump(), key: value})
    except ValidationError as error:
        keys, words = explain(error, type(step))
        raise SettingsError(": ".join(["sweep", where, *keys[:-1], words])) from None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _said(limits: Limits) -> str:
    words = {"max_size": "bytes", "max_latency_ms": "ms", "max_drop": "accuracy"}
    given = limits.model_dump(exclude_none=True)
    return ", ".join(f"--{n.replace('_', '-')} {v:g} {words[n]}" for n, v in given.items())
