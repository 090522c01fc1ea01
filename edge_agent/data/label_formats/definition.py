"""Read a serialized message field by field, as its definition says.

rosbags parses the definition; its own reader would run code made from it, so a bag could bring
code along. Here fields are walked, and every length is held against the bytes there are.
"""

import struct
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

from edge_agent.data.label_formats.vision_msgs import default_definitions
from fleet_model.errors import FrameError

_LONGEST_DEFINITION = 1 << 20  # characters
_DEEPEST = 32  # messages inside messages
_SPARE_FIELDS = 1000  # above one for each byte: a field may have no bytes at all
_FORMATS = {
    "bool": "?",
    "byte": "B",
    "char": "B",
    "octet": "B",
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
_BASIC = frozenset({*_FORMATS, "string"})
_IDL_STARTS = ("IDL:", "module ", "#include")
_BYTE_ORDERS = {0: ">", 1: "<", 6: ">", 7: "<"}  # second byte of the encapsulation
_PADDING = 4  # bytes, less one, that a recorder may leave behind a message
_XCDR2 = (6, 7)  # 8-byte numbers are aligned to 4 there


class Field(NamedTuple):
    """One field of a message type."""

    name: str
    kind: str  # a key of _FORMATS, "string", or the name of another message type
    length: int | None  # of an array; None: a sequence, its length comes first
    is_array: bool


class MessageReader:
    """Reads messages of one type."""

    def __init__(self, msgtype: str, definition: str, encoding: str) -> None:
        """Parse the definition.

        Args:
            msgtype: with or without "/msg/".
            definition: in .msg or IDL, with what it depends on; "" takes the version of vision_msgs
                whose layout uses up a message, which is tried for each.
            encoding: "cdr" or "ros1".

        Raises:
            FrameError: it cannot be parsed ("bad message").
        """
        self._name = msgtype.replace("/msg/", "/").replace("/", "/msg/")
        self._encoding = encoding
        try:
            texts = [definition] if definition else default_definitions(self._name)
            self._layouts = [_parse(self._name, text, encoding) for text in texts]
        except FrameError:
            raise
        except Exception as error:  # noqa: BLE001  (a parser's many ways to refuse)
            message = f"the definition of {msgtype} cannot be parsed: {error!s:.100}"
            raise FrameError(message, "bad message") from None
        self._is_guessed = not definition
        if not self._layouts:
            raise FrameError(f"no definition of {msgtype} is in the bag", "bad message")

    def read(self, data: bytes | memoryview) -> Any:
        """Return the message's fields as attributes.

        Raises:
            FrameError: it does not fit the definition ("bad message").
        """
        why = "no version of it that is known uses up these bytes"
        for layout in self._layouts:
            try:
                walk = _Walk(memoryview(data), layout, self._encoding, strictly=self._is_guessed)
                message = walk.message(self._name, 0)
            except (struct.error, IndexError, KeyError, ValueError) as error:
                why = str(error) if len(self._layouts) == 1 else why
                continue
            if not self._is_guessed or walk.is_at_end():
                self._layouts = [layout, *(other for other in self._layouts if other != layout)]
                return message
        raise FrameError(f"a message of {len(data)} bytes is no {self._name}: {why}", "bad message")


class _Walk:
    def __init__(
        self,
        view: memoryview,
        types: Mapping[str, tuple[Field, ...]],
        encoding: str,
        *,
        strictly: bool,
    ) -> None:
        self._view, self._types, self._strictly = view, types, strictly
        self._is_ros1 = encoding == "ros1"
        self._at = self._begin = 0 if self._is_ros1 else 4
        self._order = "<" if self._is_ros1 else _BYTE_ORDERS[view[1]]
        self._widest = 4 if not self._is_ros1 and view[1] in _XCDR2 else 8
        self._fields_left = len(view) + _SPARE_FIELDS

    def is_at_end(self) -> bool:
        """Return whether at most the padding of a message is left."""
        return len(self._view) - self._at < _PADDING

    def message(self, name: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        return SimpleNamespace(
            **{field.name: self._field(field, depth) for field in self._types[name]}
        )

    def _field(self, field: Field, depth: int) -> Any:
        if not field.is_array:
            return self._one(field.kind, depth)
        count = self._number("I") if field.length is None else field.length
        form = _FORMATS.get(field.kind)
        if form is None:
            return [self._one(field.kind, depth) for _ in range(self._allowed(count))]
        size = struct.calcsize(form)
        if count:
            self._align(size)
        begin, self._at = self._at, self._at + count * size
        if self._at > len(self._view):
            raise ValueError(f"{count} elements of {field.name} lead out of it")
        values = self._view[begin : self._at]
        if size == 1 or not count:
            return values
        return struct.unpack(f"{self._order}{count}{form}", values)

    def _one(self, kind: str, depth: int) -> Any:
        self._fields_left -= 1
        if self._fields_left < 0:
            raise ValueError("more fields than bytes")
        if kind in _FORMATS:
            return self._number(_FORMATS[kind])
        if kind == "string":
            return self._string()
        return self.message(kind, depth + 1)

    def _number(self, form: str) -> Any:
        size = struct.calcsize(form)
        self._align(size)
        (value,) = struct.unpack_from(self._order + form, self._view, self._at)
        self._at += size
        return value

    def _string(self) -> str:
        length = self._number("I")
        begin, self._at = self._at, self._at + length
        if self._at > len(self._view):
            raise ValueError("a text leads out of it")
        text = bytes(self._view[begin : self._at])
        if self._strictly and not self._is_ros1 and text.find(b"\0") != length - 1:
            raise ValueError("a text without its end")  # a number in another layout
        return text.rstrip(b"\0").decode("utf-8", "replace")

    def _align(self, size: int) -> None:
        if not self._is_ros1:
            size = min(size, self._widest)
            self._at += (self._begin - self._at) % size

    def _allowed(self, count: int) -> int:
        if count > self._fields_left:
            raise ValueError(f"{count} elements in {len(self._view)} bytes")
        return count


def _parse(name: str, definition: str, encoding: str) -> Mapping[str, tuple[Field, ...]]:
    """Return the fields of a message type and of all that it is made of."""
    from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

    if len(definition) > _LONGEST_DEFINITION:
        raise FrameError(
            f"the definition of {name} has {len(definition)} characters, "
            f"at most {_LONGEST_DEFINITION} are read",
            "bad message",
        )
    lines = definition.splitlines()
    if any(line.startswith(_IDL_STARTS) for line in lines):
        kept = [line for line in lines if not line.startswith(("IDL:", "=====", "#include"))]
        parsed = get_types_from_idl("\n".join(kept))
    else:
        parsed = get_types_from_msg(definition, name)
    known = get_typestore(Stores.ROS1_NOETIC if encoding == "ros1" else Stores.ROS2_HUMBLE)
    types: dict[str, tuple[Field, ...]] = {}
    missing = [name]
    while missing:
        wanted = missing.pop()
        if wanted not in types:
            _, listed = parsed.get(wanted) or known.fielddefs[wanted]
            types[wanted] = tuple(_fields(listed))
            missing += {field.kind for field in types[wanted]} - _BASIC
    return types


def _fields(listed: Any) -> Iterator[Field]:
    from rosbags.interfaces import Nodetype

    for name, (node, content) in listed:
        if node in (Nodetype.ARRAY, Nodetype.SEQUENCE):
            (_, inner), count = content
            kind = inner if isinstance(inner, str) else inner[0]
            yield Field(name, kind, count if node == Nodetype.ARRAY else None, True)
        else:
            yield Field(name, content if isinstance(content, str) else content[0], 1, False)
