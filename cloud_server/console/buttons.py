"""What a button is: words of what will happen, what is asked for, and the function that does it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cloud_server.console.desk import Desk
from fleet_model.errors import SettingsError

Given: TypeAlias = Mapping[str, str]  # what a link or a form has said


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """What a confirmation asks for."""

    name: str
    label: str
    value: str = ""
    kind: str = "text"  # of the input
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """What a person is told before it is done."""

    words: Sequence[str]
    fields: Sequence[Field] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One button."""

    title: str
    button: str
    back: str  # path to go to afterwards, and where nothing was done
    ask: Callable[[Desk, Given], Confirmation]  # raises FleetError if it cannot be done
    do: Callable[[Desk, Given], str]  # returns what was done; raises FleetError
    given: Sequence[str] = ()  # what the link has to say: kept in the form
    danger: bool = False


def number(given: Given, name: str, what: str, *, least: int, most: int) -> int:
    """Return a whole number that was given; raises SettingsError."""
    text = given.get(name, "").strip()
    if not (text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most):
        raise SettingsError(f"{name}: {text[:40]!r}, expected {what}, {least} to {most}")
    return int(text)
