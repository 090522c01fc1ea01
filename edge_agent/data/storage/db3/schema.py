"""What a rosbag2 SQLite file declares: its topics, and where the messages' table begins.

    topics(id, name, type, serialization_format, ...)
    messages(id, topic_id, timestamp, data)
    message_definitions(id, topic_type, encoding, encoded_message_definition, ...)   since Iron

No version of rosbag2 ever had these columns in another order. Other programs do, or add columns:
CREATE TABLE, which the file holds as text, tells where each is.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from edge_agent.data.storage import Topic
from edge_agent.data.storage.db3.rows import USUAL, Columns
from edge_agent.data.storage.sqlite.pages import Pages
from edge_agent.data.storage.sqlite.rows import (
    SCHEMA_ROOT,
    Cell,
    Value,
    orphan_leaves,
    small_rows,
    table_rows,
)
from fleet_model.errors import FrameError

_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_INNERMOST = re.compile(r"\([^()]*\)")
_NO_COLUMN = ("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN")
_TOPIC = {"id": 0, "name": 1, "type": 2, "serialization_format": 3}
_DEFINITION = {"topic_type": 1, "encoding": 2, "encoded_message_definition": 3}


class Schema(NamedTuple):
    """What the file declares."""

    topics: Sequence[Topic]  # counts are 0
    topic_ids: dict[int, int]  # id in the file -> index into `topics`
    messages_root: int  # first page of the table of messages; 0 is unknown
    index_root: int  # first page of an index of it; 0: there is none
    whole: bool  # False: topics were searched in the whole file
    columns: Columns  # of the table of messages


def read_schema(pages: Pages) -> Schema:
    """Read the declarations; raises FrameError if there is not one topic.

    Where the table of tables is damaged, rows that look like topics are searched in the whole file.
    """
    roots: dict[str, int] = {}
    indexes: dict[str, int] = {}
    declared: dict[str, dict[str, str]] = {}  # table -> column -> what it is declared as
    for _, values in table_rows(pages, SCHEMA_ROOT):
        if len(values) == 5 and isinstance(values[3], int) and values[0] == "table":
            name = str(values[1]).lower()
            roots[name], declared[name] = values[3], _columns(str(values[4]))
        elif len(values) == 5 and isinstance(values[3], int) and values[0] == "index":
            indexes[str(values[2]).lower()] = values[3]
    topic_places = _places(declared.get("topics"), _TOPIC)
    rows = table_rows(pages, roots["topics"]) if "topics" in roots else ()
    found = list(_topics(rows, topic_places)) or list(_topics(_orphan_rows(pages), topic_places))
    if not found and "topics" not in roots:
        raise FrameError(f"{pages.name}: has no topics; is it a rosbag2 file?", "damaged file")
    definition_places = _places(declared.get("message_definitions"), _DEFINITION)
    definitions = _definitions(pages, roots.get("message_definitions", 0), definition_places)
    topics = [topic._replace(definition=definitions.get(topic.type, "")) for _, topic in found]
    ids = {topic_id: i for i, (topic_id, _) in enumerate(found)}
    whole = bool(found) or "topics" in roots
    columns = _message_columns(declared.get("messages"), pages.name)
    root, index = roots.get("messages", 0), indexes.get("messages", 0)
    return Schema(topics, ids, root, index, whole, columns)


def _columns(sql: str) -> dict[str, str]:
    """Return the columns of CREATE TABLE in their order, in small letters, and their types."""
    text, before = _COMMENT.sub(" ", sql).partition("(")[2].rpartition(")")[0], ""
    while text != before:  # DECIMAL(10, 2), and checks
        text, before = _INNERMOST.sub(" ", text), text
    parts = [part.split() for part in text.split(",") if part.strip()]
    columns = (part for part in parts if part[0].upper() not in _NO_COLUMN)
    return {name.strip("\"'`[]").lower(): " ".join(kind).upper() for name, *kind in columns}


def _places(declared: dict[str, str] | None, usual: dict[str, int]) -> dict[str, int]:
    """Return the numbers of the columns; the usual ones where the table has not all of these."""
    numbers = {name: number for number, name in enumerate(declared or ())}
    return numbers if usual.keys() <= numbers.keys() else usual


def _message_columns(declared: dict[str, str] | None, name: str) -> Columns:
    """Return where the columns of messages are; raises FrameError if they cannot be read so."""
    usual = {"topic_id": USUAL.topic_id, "timestamp": USUAL.timestamp, "data": USUAL.data}
    places = _places(declared, usual)
    if declared is None or places is usual:
        return USUAL
    topic_id, timestamp, data = (places[column] for column in usual)
    if data < max(topic_id, timestamp):
        raise FrameError(
            f"{name}: its table of messages has the data before the time, which is not read; copy "
            "it into a table with the columns id, topic_id, timestamp, data"
        )
    is_empty = declared.get("id", "").startswith("INTEGER PRIMARY KEY")  # it is the row id
    return Columns(topic_id, timestamp, data, len(places), is_empty)


def _topics(
    rows: Iterable[tuple[int, list[Value]]], places: dict[str, int]
) -> Iterator[tuple[int, Topic]]:
    """Yield (id, topic) of the rows that are topics."""
    for rowid, values in rows:
        wanted = [values[places[name]] if places[name] < len(values) else None for name in _TOPIC]
        texts = [value for value in wanted[1:] if isinstance(value, str)]
        if len(texts) == 3 and "/" in texts[1] and texts[2].isalnum():
            number = wanted[0] if isinstance(wanted[0], int) else rowid
            yield number, Topic(texts[0], texts[1].replace("/msg/", "/"), texts[2], "", 0)


def _definitions(pages: Pages, root: int, places: dict[str, int]) -> dict[str, str]:
    """Return the message definitions by type name."""
    found = {}
    type_at, encoding_at, text_at = (places[name] for name in _DEFINITION)
    for _, values in table_rows(pages, root) if root else ():
        if len(values) > max(type_at, encoding_at, text_at) and values[encoding_at] == "ros2msg":
            found[str(values[type_at]).replace("/msg/", "/")] = str(values[text_at])
    return found


def _orphan_rows(pages: Pages) -> Iterator[tuple[int, list[Value]]]:
    leaves = orphan_leaves(pages, bytearray(pages.count + 1))
    return small_rows(pages, leaves, _may_be_a_topic)


def _may_be_a_topic(cell: Cell) -> bool:
    return len(cell.types) >= 4 and all(kind >= 13 and kind & 1 for kind in cell.types[1:4])
