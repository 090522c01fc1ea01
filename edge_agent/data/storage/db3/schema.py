"""What a rosbag2 SQLite file declares: its topics, and where the messages' table begins.

    topics(id, name, type, serialization_format, ...)
    messages(id, topic_id, timestamp, data)
    message_definitions(id, topic_type, encoding, encoded_message_definition, ...)   since Iron

No version of rosbag2 ever had these columns in another order.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from edge_agent.data.storage import Topic
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


class Schema(NamedTuple):
    """What the file declares."""

    topics: Sequence[Topic]  # counts are 0
    topic_ids: dict[int, int]  # id in the file -> index into `topics`
    messages_root: int  # first page of the table of messages; 0 is unknown
    index_root: int  # first page of an index of it; 0: there is none
    whole: bool  # False: topics were searched in the whole file


def read_schema(pages: Pages) -> Schema:
    """Read the declarations; raises FrameError if there is not one topic.

    Where the table of tables is damaged, rows that look like topics are searched in the whole file.
    """
    roots: dict[str, int] = {}
    indexes: dict[str, int] = {}
    for _, values in table_rows(pages, SCHEMA_ROOT):
        if len(values) == 5 and isinstance(values[3], int) and values[0] == "table":
            roots[str(values[1])] = values[3]
        elif len(values) == 5 and isinstance(values[3], int) and values[0] == "index":
            indexes[str(values[2])] = values[3]
    found = list(_topics(table_rows(pages, roots["topics"]))) if "topics" in roots else []
    if not found:
        found = list(_topics(_orphan_rows(pages)))
    if not found and "topics" not in roots:
        raise FrameError(f"{pages.name}: has no topics; is it a rosbag2 file?", "damaged file")
    definitions = _definitions(pages, roots.get("message_definitions", 0))
    topics = [topic._replace(definition=definitions.get(topic.type, "")) for _, topic in found]
    ids = {topic_id: i for i, (topic_id, _) in enumerate(found)}
    whole = bool(found) or "topics" in roots
    return Schema(topics, ids, roots.get("messages", 0), indexes.get("messages", 0), whole)


def _topics(rows: Iterable[tuple[int, list[Value]]]) -> Iterator[tuple[int, Topic]]:
    """Yield (id, topic) of the rows that are topics."""
    for rowid, values in rows:
        texts = [value for value in values[1:4] if isinstance(value, str)]
        if len(texts) == 3 and "/" in texts[1] and texts[2].isalnum():
            yield rowid, Topic(texts[0], texts[1].replace("/msg/", "/"), texts[2], "", 0)


def _definitions(pages: Pages, root: int) -> dict[str, str]:
    """Return the message definitions by type name."""
    found = {}
    for _, values in table_rows(pages, root) if root else ():
        if len(values) >= 4 and values[2] == "ros2msg":
            found[str(values[1]).replace("/msg/", "/")] = str(values[3])
    return found


def _orphan_rows(pages: Pages) -> Iterator[tuple[int, list[Value]]]:
    leaves = orphan_leaves(pages, bytearray(pages.count + 1))
    return small_rows(pages, leaves, _may_be_a_topic)


def _may_be_a_topic(cell: Cell) -> bool:
    return len(cell.types) >= 4 and all(kind >= 13 and kind & 1 for kind in cell.types[1:4])
