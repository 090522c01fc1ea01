"""Damage small .db3 files in a million ways and read each: python fuzz_db3.py --inputs N --seed S.

Fails on any exception but FrameError, on an input that takes longer than two seconds, after a cut
or one flipped bit on a message that was not written so (but for that bit) or comes twice, and on a
message that is lost without a word. `--only INPUT` repeats one input of a run.
"""

import sqlite3
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent))
import damaging

from edge_agent.data.storage.db3 import positions as db3_positions
from edge_agent.data.storage.db3.file import Db3File

T0 = 1_760_000_000_000_000_000
USUAL = "id INTEGER PRIMARY KEY,topic_id INTEGER,timestamp INTEGER,data BLOB"
COLUMNS = {"no id": "topic_id INT,timestamp INT,data BLOB", "more columns": f"{USUAL},note TEXT"}
SCHEMA = """
CREATE TABLE topics(id INTEGER PRIMARY KEY,name TEXT,type TEXT,serialization_format TEXT,q TEXT);
CREATE TABLE messages({columns});
CREATE INDEX timestamp_idx ON messages (timestamp ASC);
INSERT INTO topics VALUES(1,'/camera','sensor_msgs/msg/Image','cdr','');
INSERT INTO topics VALUES(2,'/chatter','std_msgs/msg/String','cdr','');
CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT, encoding TEXT,
    encoded_message_definition TEXT, type_description_hash TEXT);
INSERT INTO message_definitions VALUES(1,'std_msgs/msg/String','ros2msg','string data','');
"""


def seeds():
    """Return files of small and large messages on small and usual pages."""
    shapes = {
        "small pages": (512, 16, (30, 700)),
        "equal chains": (512, 12, (4000, 4000)),
        "usual pages": (4096, 12, (20, 900)),
        "deep": (512, 60, (200, 10)),
        "long": (1024, 8, (9000, 20)),
        "vacuum": (512, 12, (600, 1500)),
        "no id": (512, 12, (30, 700)),
        "more columns": (512, 12, (30, 700)),
    }
    return {name: record(name, *shape) for name, shape in shapes.items()}


def record(name, page_size, count, sizes):
    with TemporaryDirectory() as folder:
        db = sqlite3.connect(f"{folder}/a.db3", isolation_level=None)
        vacuum = "FULL" if name == "vacuum" else "NONE"
        db.executescript(f"PRAGMA auto_vacuum={vacuum};PRAGMA page_size={page_size};")
        db.executescript(SCHEMA.format(columns=COLUMNS.get(name, USUAL)))
        for i in range(count):
            data = b"%08d" % (i * 7919) * (sizes[i % 2] // 8 + 1)
            row = (1 + i % 2, T0 + i, data[: sizes[i % 2]])
            db.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES(?,?,?)", row)
        db.close()
        return Path(folder, "a.db3").read_bytes()


def check(name, mutate, messages, written, losses):
    if mutate in (damaging.flip, damaging.cut):
        damaging.check_each_was_written(messages, written, int(mutate is damaging.flip))
        assert losses or len(messages) == len(written), f"{name}: messages are lost without a word"


if __name__ == "__main__":
    db3_positions._SPARE_BYTES = 300  # so that the longer files are read in two passes
    sys.exit(damaging.main(Db3File, seeds, check))
