"""Tables that other programs wrote, or added columns to, are read as SQLite reads them."""

import sqlite3

import pytest

from edge_agent.data.storage.db3.file import Db3File
from edge_agent.data.storage.db3.rows import USUAL
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

pytestmark = pytest.mark.base

T0 = 1_760_000_000_000_000_000
CAMERA, CHATTER = "/camera/image_raw", "/chatter"
TOPICS = "CREATE TABLE topics(id INTEGER PRIMARY KEY,name TEXT,type TEXT,serialization_format TEXT)"
USUAL_TABLE = (
    "id INTEGER PRIMARY KEY,topic_id INTEGER NOT NULL,timestamp INTEGER NOT NULL,data BLOB"
)
TABLES = {
    "usual": (f"({USUAL_TABLE})", ()),
    "no id": ("(topic_id INTEGER, timestamp INTEGER, data BLOB)", ()),
    "an id of its own": ("(id INTEGER, topic_id INTEGER, timestamp INTEGER, data BLOB)", ("id",)),
    "an id that is no row id": ("(id INT PRIMARY KEY, topic_id INT, timestamp INT, data)", ("id",)),
    "more columns": (f"({USUAL_TABLE}, note TEXT, size DECIMAL(10, 2))", ("note", "size")),
    "a column between": (
        "(id INTEGER PRIMARY KEY, topic_id INTEGER, note VARCHAR(9), timestamp INTEGER, data BLOB)",
        ("note",),
    ),
    "another order": ("(timestamp INTEGER, topic_id INTEGER, data BLOB)", ()),
    "quoted names": (
        '("ID" INTEGER PRIMARY KEY, -- the row, as ever\n[topic_id] INT, `Timestamp` INT, '
        '"data" BLOB /* a, b */, CHECK (length(data) > 0), UNIQUE (topic_id, timestamp))',
        (),
    ),
}


def payload(i):
    return b"%05d" % i * (3 if i % 3 else 1 + i * 200)  # some need pages of their own


def record(path, table, extra, more=""):
    """Write 30 messages; return (stamp, topic, data) as SQLite has them."""
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript(f"PRAGMA page_size=512; {TOPICS}; CREATE TABLE messages{table};")
    db.execute(f"INSERT INTO topics VALUES(5,'{CAMERA}','sensor_msgs/msg/Image','cdr')")
    db.execute(f"INSERT INTO topics VALUES(300,'{CHATTER}','std_msgs/msg/String','cdr')")
    names = ("topic_id", "timestamp", "data", *extra)
    marks = ", ".join("?" * len(names))
    for i in range(30):
        stamp = T0 + i if i % 4 else i - 9  # also few bytes, and before 1970
        row = (5 if i % 2 else 300, stamp, payload(i), *[7000 + i] * len(extra))
        db.execute(f"INSERT INTO messages({', '.join(names)}) VALUES({marks})", row)
    db.executescript(more)
    rows = db.execute(
        "SELECT m.timestamp, t.name, m.data FROM messages m, topics t WHERE t.id = m.topic_id "
        "ORDER BY m.timestamp"
    ).fetchall()
    db.close()
    return rows


def read(path):
    damage = DamageLog()
    with Db3File(path) as file:
        stored = list(file.messages((CAMERA, CHATTER), damage))
        found = [(s.bag_ns, s.topic.name, bytes(s.load())) for s in stored]
        counts = [topic.messages for topic in file.topics()]
    assert not damage, damage.sentence()
    return found, counts


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_messages_is_read_by_the_names_of_its_columns(kind, tmp_path):
    rows = record(tmp_path / "a.db3", *TABLES[kind])
    assert len(rows) == 30
    assert read(tmp_path / "a.db3") == (rows, [15, 15])
    with Db3File(tmp_path / "a.db3") as file:
        assert (file._schema.columns == USUAL) == (kind in ("usual", "quoted names"))


def test_columns_that_were_added_later_change_nothing(tmp_path):
    more = (
        "ALTER TABLE messages ADD COLUMN note TEXT;"
        "ALTER TABLE messages ADD COLUMN number INTEGER DEFAULT 3;"
        f"INSERT INTO messages(topic_id, timestamp, data, note) VALUES(5, {T0 + 99}, x'0102', 'y');"
    )
    rows = record(tmp_path / "a.db3", *TABLES["usual"], more)
    assert read(tmp_path / "a.db3") == (rows, [16, 15])


def test_a_copy_by_create_table_as_is_read(tmp_path):
    more = (
        "CREATE TABLE copied AS SELECT * FROM messages; DROP TABLE messages;"
        "ALTER TABLE copied RENAME TO messages;"
        "CREATE TABLE t2 AS SELECT type, serialization_format, id, name FROM topics;"
        "DROP TABLE topics; ALTER TABLE t2 RENAME TO topics;"
    )
    rows = record(tmp_path / "a.db3", *TABLES["usual"], more)
    assert len(rows) == 30
    assert read(tmp_path / "a.db3") == (rows, [15, 15])


def test_a_definition_is_found_by_the_names_of_its_columns(tmp_path):
    more = (
        "CREATE TABLE message_definitions(encoding TEXT, encoded_message_definition TEXT, "
        "topic_type TEXT);"
        "INSERT INTO message_definitions VALUES('ros2msg', 'string data', 'std_msgs/msg/String');"
    )
    record(tmp_path / "a.db3", *TABLES["usual"], more)
    with Db3File(tmp_path / "a.db3") as file:
        assert [topic.definition for topic in file.topics()] == ["", "string data"]


def test_a_time_behind_the_data_is_refused_with_the_way_out(tmp_path):
    record(tmp_path / "a.db3", "(topic_id INT, data BLOB, timestamp INT)", ())
    with pytest.raises(FrameError, match=r"^a\.db3: .* copy it into a table with the columns id, "):
        Db3File(tmp_path / "a.db3")


@pytest.mark.parametrize("kind", ["no id", "more columns"])
def test_of_a_damaged_foreign_table_what_is_left_is_read_and_the_rest_is_told(kind, tmp_path):
    rows = record(tmp_path / "a.db3", *TABLES[kind])
    data = (tmp_path / "a.db3").read_bytes()
    (tmp_path / "a.db3").write_bytes(data[: len(data) // 1024 * 512])
    damage, found = DamageLog(), []
    with Db3File(tmp_path / "a.db3") as file:
        for stored in file.messages((CAMERA, CHATTER), damage):
            try:
                found.append((stored.bag_ns, stored.topic.name, bytes(stored.load())))
            except FrameError as error:
                damage.add(error.reason, str(error))
    assert 0 < len(found) < 30
    assert set(found) < set(rows)
    assert damage
