"""Objects of Kubernetes' own kinds, held against its schemas: unknown fields and other types."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fleet_model.errors import SettingsError

INSTALL = "pip install 'fleetlearn[kubernetes]'"
_TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "keys",
    "array": "a list",
}


def wrong_fields(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield field and words of what the newest known schema does not allow; the first only.

    A custom resource has no schema here: its cluster judges it.

    Raises:
        SettingsError: the schemas are not installed.
    """
    subject = f"{content['kind']} {content['metadata']['name']}"
    try:
        import kubernetes_validate as schemas
    except ImportError:
        raise SettingsError(
            f"{subject}: the schemas of Kubernetes are not installed; {INSTALL} brings them. "
            "RobotModels alone need none"
        ) from None
    try:
        schemas.validate(dict(content), schemas.latest_version(), strict=True)
    except schemas.SchemaNotFoundError:
        if "." not in str(content["apiVersion"]).partition("/")[0]:
            yield "apiVersion", f"Kubernetes has no {content['apiVersion']} {content['kind']}"
    except schemas.ValidationError as error:
        yield _field(error.absolute_path), _words(error)


def _field(path: Any) -> str:
    return "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in path).lstrip(".")


def _words(error: Any) -> str:
    kind, expected, got = error.validator, error.validator_value, error.instance
    if kind == "additionalProperties":
        known = sorted(error.schema.get("properties", ()))
        name = next(one for one in got if one not in known)
        close = difflib.get_close_matches(name, known, n=1)
        return f'unknown field "{name}"' + (f'; did you mean "{close[0]}"?' if close else "")
    if kind == "required":
        missing = ", ".join(one for one in expected if one not in got)
        return f"{missing} is missing"
    if kind == "type":
        return f"expected {_types([expected])} (got {got!r:.60})"
    if kind in ("oneOf", "anyOf"):
        return f"expected {_types([one.get('type') for one in expected])} (got {got!r:.60})"
    return str(error.message)[:200]


def _types(of: Sequence[Any]) -> str:
    """Return types of JSON Schema, each one name or several, in words."""
    names = [name for one in of for name in ([one] if isinstance(one, str) else one or ())]
    return " or ".join(dict.fromkeys(_TYPES.get(one, one) for one in names if one != "null"))
