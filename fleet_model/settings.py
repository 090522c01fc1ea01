"""Settings files of robots and servers: one TOML file, variables of the environment over it.

A setting is written in one place, its pydantic field: type, range, default and description. From it
come what a wrong value is answered with, the commented first file, and the reference in docs.
"""

import difflib
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from fleet_model.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def _table(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return tomllib.loads(f"options = {value}")["options"]
    except tomllib.TOMLDecodeError:
        raise ValueError("expected a table as in the file: {name = value}") from None


# A variable of the environment holds a table as the file does, as text: {memory_mb = 8}.
Options = Annotated[dict[str, Any], BeforeValidator(_table)]
M = TypeVar("M", bound=BaseModel)
MAX_GOT = 60  # characters of a wrong value that are shown
COLUMNS = 96  # of a comment in the first file


class Section(BaseModel):
    """One [section] of a file, or the whole; unknown keys are refused: they are typing errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Expected:
    """In a field's Annotated: what a person may write, where the type does not tell."""

    words: str


@dataclass(frozen=True, slots=True)
class Former:
    """In a field's Annotated: it is read from old files, but not documented or written."""


Words = Annotated[dict[str, str], BeforeValidator(_table), Expected('e.g. {Brick = "brick"}')]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting, for people."""

    section: str  # "" for a key above all sections
    key: str
    expected: str  # type and range, in words
    default: str  # as TOML; "" if there is none
    description: str
    variable: str  # of the environment, that overrides it


def settings_of(model: type[BaseModel], prefix: str) -> list[Setting]:
    """Return every setting of a file, in its order; `prefix` begins the variables' names."""
    found = []
    for section, key, field in _fields(model):
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        found.append(
            Setting(
                section=section,
                key=key,
                expected=expected_of(field.annotation, field.metadata),
                default="" if default is None else toml_value(default),
                description=field.description or "",
                variable=prefix + "__".join(filter(None, (section, key))).upper(),
            )
        )
    return found


def read_toml(path: Path, *, hint: str = "") -> dict[str, Any]:
    """Read a TOML file; raises SettingsError, with the hint if there is none."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file{hint}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"{path}: not readable TOML ({error})") from None


def override(
    values: dict[str, Any], model: type[BaseModel], environment: Mapping[str, str], prefix: str
) -> None:
    """Put variables of the environment over the values of a file.

    Raises:
        SettingsError: a variable begins with the prefix and can name no setting.
    """
    for name, value in environment.items():
        if not name.startswith(prefix):
            continue
        *section, key = name.removeprefix(prefix).lower().split("__")
        field = model.model_fields.get(key)
        if not section and field is not None and _section(field) is None:
            values[key] = value
        elif len(section) == 1 and isinstance(values.setdefault(section[0], {}), dict):
            values[section[0]][key] = value
        else:
            raise SettingsError(f"{name}: no setting has this name; expected {prefix}SECTION__KEY")


def validate(
    values: dict[str, Any], model: type[M], path: Path, environment: Mapping[str, str], prefix: str
) -> M:
    """Return the settings; raises SettingsError that names the file or variable and the key."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        keys, words = explain(error, model)
        name = prefix + "__".join(keys[:2]).upper()
        variables = [v for v in environment if keys and (v == name or v.startswith(f"{name}__"))]
        where = [variables[0]] if variables else [str(path), ".".join(keys)]
        raise SettingsError(": ".join([*filter(None, where), words])) from None


def explain(
    error: ValidationError, model: type[BaseModel], *, show: bool = True
) -> tuple[list[str], str]:
    """Return where the first wrong value is, and what is wrong in plain words.

    Args:
        error: of validating values by `model`.
        model: its fields tell what is expected.
        show: whether the wrong value may be shown.
    """
    found = error.errors()
    # A key that is spelled wrongly is often missing, too: its own name says more.
    first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    inside, keys, field = _walk(model, first["loc"])
    got = f" (got {_shortened(first['input'])})" if show else ""
    if first["type"] == "extra_forbidden":
        kind = "section" if isinstance(first["input"], dict) else "key"
        return keys, f'unknown {kind} "{keys[-1]}"{_alike(keys[-1], inside)}'
    if first["type"] == "missing":
        wanted = f"expected {_expected(field)}" if field is not None else "expected a value"
        return keys, f"is missing; {wanted}"
    if first["type"] == "value_error":  # of our own validators, in our own words
        words = str(first["ctx"]["error"])
        of_many = isinstance(first["input"], Mapping)  # the words then name the keys
        return ([], words) if of_many else (keys, f"{words}{got}")
    if field is None:
        return keys, f"{first['msg']}{got}"
    return keys, f"expected {_expected(field)}{got}"


def expected_of(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return in words what a value of a type may be, e.g. "a whole number, at least 1"."""
    for one in metadata:
        if isinstance(one, Expected):
            return one.words
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return expected_of(arguments[0], [*arguments[1:], *metadata])
    if origin in (Union, UnionType):
        kinds = [one for one in arguments if one is not NoneType]
        return " or ".join(expected_of(one, metadata) for one in kinds)
    if origin is Literal:
        words = " or ".join(map(toml_value, arguments))
    elif origin in (tuple, list):
        words = f"a list; each: {expected_of(arguments[0])}"
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        words = "a section with keys"
    else:
        words = _WORDS.get(origin or annotation, "a value")
    bounds = [f"{word} {value:g}" for word, value in _bounds(metadata)]
    return f"{words}, {' and '.join(bounds)}" if bounds else words


def initial_toml(settings: BaseModel, head: str) -> str:
    """Return the commented first file with the values of `settings`.

    A setting that has no value is a comment, with the field's example.
    """
    lines, before = _comment(head), ""
    for name, key, field in _fields(type(settings)):
        if name != before or not name:
            lines.append("")
        if name != before:
            about = type(getattr(settings, name)).__doc__ or ""
            lines += [*_comment(about.partition("\n")[0]), f"[{name}]"]
        value = getattr(getattr(settings, name) if name else settings, key)
        lines += _entry(key, field, value)
        before = name
    return "\n".join([*lines, ""])


def toml_value(value: Any) -> str:
    """Return a value as TOML on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, Mapping):
        pairs = (f"{toml_value(key)} = {toml_value(one)}" for key, one in value.items())
        return f"{{{', '.join(pairs)}}}"
    # A TOML string is JSON's, except for one character.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


_WORDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    dict: "a table",
}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def _bounds(metadata: Sequence[Any]) -> Iterator[tuple[str, float]]:
    for one in metadata:
        for name, word in _BOUNDS.items():
            if (value := getattr(one, name, None)) is not None:
                yield word, value


def _expected(field: FieldInfo) -> str:
    return expected_of(field.annotation, field.metadata)


def _section(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, str, FieldInfo]]:
    """Yield section, key and field: first the keys above all sections, as TOML wants them."""
    sections = {name: _section(field) for name, field in model.model_fields.items()}
    for name, section in sections.items():
        if section is None:
            yield "", name, model.model_fields[name]
    for name, section in sections.items():
        for key, field in section.model_fields.items() if section is not None else ():
            if Former() not in field.metadata:
                yield name, key, field


def _walk(
    model: type[BaseModel], location: Sequence[int | str]
) -> tuple[type[BaseModel], list[str], FieldInfo | None]:
    """Return the model that a location leads into, the keys up to its field, and the field."""
    inside, keys, field = model, [], None
    for number, part in enumerate(location, 1):
        keys.append(str(part))
        if isinstance(part, int):  # one of a list of models
            continue
        field = inside.model_fields.get(part)
        below = None if field is None else _section(field) or _section_of_list(field)
        if below is None:
            break
        if number < len(location):
            inside = below
    return inside, keys, field


def _section_of_list(field: FieldInfo) -> type[BaseModel] | None:
    kind = next(iter(get_args(field.annotation)), None)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _alike(key: str, model: type[BaseModel]) -> str:
    names = [n for n, f in model.model_fields.items() if Former() not in f.metadata]
    close = difflib.get_close_matches(key, names, n=1)
    return f'; did you mean "{close[0]}"?' if close else f"; known are: {', '.join(names)}"


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_GOT else f"{text[:MAX_GOT]}..."


def _comment(words: str) -> list[str]:
    return [f"# {line}" for part in words.splitlines() for line in textwrap.wrap(part, COLUMNS)]


def _entry(key: str, field: FieldInfo, value: Any) -> list[str]:
    line = f"{key} = {toml_value(value)}"
    if value is None:
        line = f"# {key} = {toml_value((field.examples or [''])[0])}"
    return [*_comment(field.description or ""), line]
