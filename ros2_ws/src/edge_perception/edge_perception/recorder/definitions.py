"""Find the definition of a message type, which a bag carries so that it can be read anywhere."""

import os
import re
from pathlib import Path

# type name -> first word of a field's line, without a bound, an array or a string's length
_FIELD = re.compile(r"^\s*([a-zA-Z][\w/]*)(?:<=\d+)?(?:\[[^\]]*\])?\s+[a-zA-Z]\w*\s*(?:[^=]|$)")
_BUILT_IN = {
    "bool", "byte", "char", "float32", "float64", "string", "wstring",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}  # fmt: skip
_LINE = "=" * 80


def definition_of(type_name: str) -> str:
    """Return the definition of "package/msg/Name" with those that it uses, as rosbag2 writes it.

    Of each the installed .msg file counts, of the packages on AMENT_PREFIX_PATH; else what rosbags
    knows of ROS 2 Humble. "" if one of them is unknown: readers then need it themselves.
    """
    texts: dict[str, str] = {}
    wanted = [type_name]
    while wanted:
        name = wanted.pop(0)
        if name in texts:
            continue
        text = _installed(name) or _known_to_rosbags(name)
        if text is None:
            return ""
        texts[name] = text
        wanted += _used_by(text, package=name.split("/")[0])
    first, *others = texts.items()
    parts = [first[1], *(f"{_LINE}\nMSG: {_short(name)}\n{text}" for name, text in others)]
    return "\n".join(parts)


def _installed(type_name: str) -> str | None:
    package, kind, name = type_name.split("/")
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        path = Path(prefix, "share", package, kind, f"{name}.msg")
        if path.is_file():
            return path.read_text(encoding="utf-8")
    return None


def _known_to_rosbags(type_name: str) -> str | None:
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    if type_name not in store.types:
        return None
    return store.generate_msgdef(type_name, ros_version=2)[0].partition(_LINE)[0]


def _used_by(text: str, package: str) -> list[str]:
    """Return the types of a definition's fields that have definitions of their own."""
    names = []
    for line in text.splitlines():
        field = _FIELD.match(line.split("#")[0])
        if not field or field[1] in _BUILT_IN:
            continue
        parts = field[1].split("/")
        owner = parts[0] if len(parts) > 1 else package
        names.append(f"{owner}/msg/{parts[-1]}")
    return names


def _short(type_name: str) -> str:
    package, _, name = type_name.split("/")
    return f"{package}/{name}"
