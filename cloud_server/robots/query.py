"""A query over what is known of a robot: `battery >= 30 and "gpu" in labels`.

The text is the operator's, from server.toml. It is read as Python is, but only words of the tables
below are let through, and it is walked, never executed.
"""

import ast
import difflib
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from fleet_model.errors import SettingsError
from fleet_model.protocol.report import Fact, RobotReport

Known: TypeAlias = Fact | tuple[str, ...]  # a tuple: the labels
NAMES = (
    "name", "site", "labels", "online", "last_seen_s", "model_version", "busy", "battery",
    "charging", "free_disk_mb", "examples", "trainer", "software", "protocol",
)  # fmt: skip
MAX_CHARACTERS, MAX_DEPTH = 500, 20
MAX_TOLD = 200  # characters of a robot's own words in a reason
OWN_FACT = re.compile(r"[a-z][a-z0-9_]{0,31}")  # as RobotReport.facts
LIKE_A_TYPING_ERROR = 0.85  # batery : battery is 0.92, charger : charging 0.67
COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda item, within: item in within,
    ast.NotIn: lambda item, within: item not in within,
}
_ABSENT = object()


class Described(Protocol):
    """Whoever a query can be asked about: a Participant of a round."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def site(self) -> str: ...  # noqa: D102
    @property
    def labels(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def report(self) -> RobotReport | None: ...  # noqa: D102
    @property
    def last_seen_s(self) -> float | None: ...  # noqa: D102
    @property
    def protocol(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, eq=False, slots=True)
class Query:
    """A checked query; made by `parse_query`."""

    text: str
    names: tuple[str, ...]  # that it looks at, in order of appearance
    _tree: ast.expr | None

    def matches(self, facts: Mapping[str, Known]) -> bool:
        """Return whether it holds; a comparison with a fact that is absent does not."""
        return self._tree is None or _truth(self._tree, facts)

    def reason(self, facts: Mapping[str, Known]) -> str:
        """Return in a few words why a robot is left out by it."""
        absent = [name for name in self.names if name not in facts]
        told = [f"{name} = {facts[name]!r}" for name in self.names if name in facts]
        lacks = f", it does not report {', '.join(absent)}" if absent else ""
        known = ", ".join(told)[:MAX_TOLD] or "nothing is known"
        return f"rounds.query does not hold ({known}{lacks})"


def parse_query(text: str) -> Query:
    """Check a query; an empty one matches every robot.

    Raises:
        SettingsError: with the position in the text and the names there are.
    """
    text = text.replace("\n", " ").strip()
    if not text:
        return Query(text, (), None)
    if len(text) > MAX_CHARACTERS:
        raise SettingsError(
            f"rounds.query: {len(text)} characters, expected at most {MAX_CHARACTERS}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # '"\d"' is then wrong with its position
            tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        column = error.offset - 1 if error.offset else len(text)  # 0: the text ends too early
        raise _wrong(text, column, error.msg) from None
    except (ValueError, MemoryError, RecursionError):  # a null byte, too many parentheses
        raise _wrong(text, 0, "cannot be read") from None
    _require(tree, text, 0)
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    found = sorted(nodes, key=lambda node: node.col_offset)
    return Query(text, tuple(dict.fromkeys(node.id for node in found)), tree)


def facts_of(robot: Described, *, online: bool = True) -> Mapping[str, Known]:
    """Return what queries can ask of a robot; what it does not report is absent.

    The operator's own facts come last: none of them hides a name of ours.
    """
    facts: dict[str, Known] = {
        "name": robot.name, "site": robot.site, "labels": robot.labels, "online": online,
        "protocol": robot.protocol,
    }  # fmt: skip
    if robot.last_seen_s is not None:
        facts["last_seen_s"] = robot.last_seen_s
    if (report := robot.report) is None:
        return facts
    facts["busy"] = report.busy  # "" is an answer: not busy
    for name in ("model_version", "battery", "charging", "free_disk_mb", "examples"):
        if (value := getattr(report, name)) is not None:
            facts[name] = value
    facts |= {name: word for name in ("trainer", "software") if (word := getattr(report, name))}
    return {**report.facts, **facts}


def _require(node: ast.expr, text: str, depth: int) -> None:
    """Raise SettingsError at the first thing that a query cannot hold."""
    if depth > MAX_DEPTH:
        raise _wrong(text, _column(text, node), f"nested more than {MAX_DEPTH} deep")
    allowed = _PARTS.get(type(node))
    if allowed is None:
        raise _wrong(text, _column(text, node), f"{type(node).__name__} is not allowed here")
    for part in allowed(node, text):
        _require(part, text, depth + 1)


def _comparison(node: ast.Compare, text: str) -> list[ast.expr]:
    for sign in node.ops:
        if type(sign) not in COMPARISONS:
            raise _wrong(text, _column(text, node), "`is` is not allowed here, use ==")
    return [node.left, *node.comparators]


def _unary(node: ast.UnaryOp, text: str) -> list[ast.expr]:
    number = isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float)
    if not (isinstance(node.op, ast.Not) or (isinstance(node.op, ast.USub) and number)):
        raise _wrong(text, _column(text, node), "expected `not`, or - before a number")
    return [node.operand]


def _constant(node: ast.Constant, text: str) -> list[ast.expr]:
    if type(node.value) not in (bool, int, float, str):
        what = "expected a number, a string, True or False"
        raise _wrong(text, _column(text, node), what)
    return []


def _listed(node: ast.Tuple | ast.List, _: str) -> list[ast.expr]:
    return node.elts


def _name(node: ast.Name, text: str) -> list[ast.expr]:
    if node.id in NAMES:
        return []
    if near := difflib.get_close_matches(node.id, NAMES, 1, LIKE_A_TYPING_ERROR):
        raise _wrong(text, _column(text, node), f"no name {node.id}, did you mean {near[0]}?")
    if not OWN_FACT.fullmatch(node.id):
        raise _wrong(text, _column(text, node), f"no name {node.id}")
    return []


# What a query may hold: node -> check it and return its parts.
_PARTS: Mapping[type[ast.expr], Callable[[Any, str], list[ast.expr]]] = {
    ast.BoolOp: lambda node, _: node.values,
    ast.UnaryOp: _unary,
    ast.Compare: _comparison,
    ast.Constant: _constant,
    ast.Name: _name,
    ast.Tuple: _listed,
    ast.List: _listed,
}


def _value(node: ast.expr, facts: Mapping[str, Known]) -> Any:
    return _VALUES[type(node)](node, facts)


def _value_of_name(node: ast.Name, facts: Mapping[str, Known]) -> Any:
    return facts.get(node.id, _ABSENT)


def _truth(node: ast.expr, facts: Mapping[str, Known]) -> bool:
    value = _value(node, facts)
    return value is not _ABSENT and bool(value)


def _value_of_boolean(node: ast.BoolOp, facts: Mapping[str, Known]) -> bool:
    every = all if isinstance(node.op, ast.And) else any
    return every(_truth(part, facts) for part in node.values)


def _value_of_unary(node: ast.UnaryOp, facts: Mapping[str, Known]) -> Any:
    if isinstance(node.op, ast.Not):
        return not _truth(node.operand, facts)
    return -_value(node.operand, facts)


def _value_of_comparison(node: ast.Compare, facts: Mapping[str, Known]) -> bool:
    values = [_value(part, facts) for part in (node.left, *node.comparators)]
    return all(
        _holds(sign, left, right)
        for sign, left, right in zip(node.ops, values, values[1:], strict=False)
    )


def _holds(sign: ast.cmpop, left: Any, right: Any) -> bool:
    if left is _ABSENT or right is _ABSENT:
        return False
    try:
        return bool(COMPARISONS[type(sign)](left, right))
    except TypeError:  # a word against a number: robots report what they like
        return False


_VALUES: Mapping[type[ast.expr], Callable[[Any, Mapping[str, Known]], Any]] = {
    ast.BoolOp: _value_of_boolean,
    ast.UnaryOp: _value_of_unary,
    ast.Compare: _value_of_comparison,
    ast.Constant: lambda node, _: node.value,
    ast.Name: _value_of_name,
    ast.Tuple: lambda node, facts: [_value(part, facts) for part in node.elts],
    ast.List: lambda node, facts: [_value(part, facts) for part in node.elts],
}


def _column(text: str, node: ast.expr) -> int:
    """Return the position in characters: Python's is in bytes."""
    return len(text.encode()[: node.col_offset].decode(errors="ignore"))


def _wrong(text: str, column: int, what: str) -> SettingsError:
    return SettingsError(
        f"rounds.query: position {column + 1} of {text!r}: {what}; names: {', '.join(NAMES)} and "
        "the operator's own facts"
    )
