import os
import sqlite3
import struct
import subprocess
import sys
import threading
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from edge_agent.data.storage import Topic
from edge_agent.data.storage.db3 import positions as db3_positions
from edge_agent.data.storage.db3.file import Db3File
from fleet_model.errors import FrameError
from fleet_model.files.damage import Damage, DamageLog

pytestmark = pytest.mark.base

T0 = 1_760_000_000_000_000_000
CAMERA, CHATTER = "/camera/image_raw", "/chatter"
SCHEMA = """
CREATE TABLE topics(id INTEGER PRIMARY KEY,name TEXT NOT NULL,type TEXT NOT NULL,
                    serialization_format TEXT NOT NULL,offered_qos_profiles TEXT NOT NULL);
CREATE TABLE messages(id INTEGER PRIMARY KEY,topic_id INTEGER NOT NULL,timestamp INTEGER NOT NULL,
                      data BLOB NOT NULL);
CREATE INDEX timestamp_idx ON messages (timestamp ASC);
INSERT INTO topics VALUES(1,'/camera/image_raw','sensor_msgs/msg/Image','cdr','');
INSERT INTO topics VALUES(2,'/chatter','std_msgs/String','cdr','');
"""
NEWER = """
CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL,
    encoding TEXT NOT NULL, encoded_message_definition TEXT NOT NULL,
    type_description_hash TEXT NOT NULL);
CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL, metadata TEXT);
CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);
INSERT INTO message_definitions VALUES(1,'std_msgs/msg/String','ros2msg','string data','');
INSERT INTO message_definitions VALUES(2,'sensor_msgs/msg/Image','ros2idl','module x {}','');
"""


def payload(i, size):
    return (i.to_bytes(4, "little") * (size // 4 + 1))[:size]


def record(path, rows, *, page_size=4096, pragmas="", newer=False, synced=True):
    """Write rows of (topic id, stamp, data); without `synced` the log stays beside the file."""
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript(f"PRAGMA page_size={page_size};{pragmas}")
    db.executescript(SCHEMA + (NEWER if newer else ""))
    db.execute("BEGIN")
    db.executemany("INSERT INTO messages(topic_id, timestamp, data) VALUES(?, ?, ?)", rows)
    db.execute("COMMIT")
    if synced:
        db.close()
    return db


def drive(path, count=300, size=3000, **options):
    """Record `count` pictures, each followed by a text."""
    rows = []
    for i in range(count):
        rows.append((1, T0 + 10 * i, payload(i, size)))
        rows.append((2, T0 + 10 * i + 1, payload(i, 9)))
    record(path, rows, **options)
    return rows


def read(path, topics=(CAMERA, CHATTER)):
    """Return what loads as (topic, stamp, data), the reasons of what does not, and the damage."""
    damage = DamageLog()
    good, bad = [], []
    with Db3File(path) as file:
        for stored in file.messages(topics, damage):
            try:
                data = bytes(stored.load())
                good.append(((CAMERA, CHATTER).index(stored.topic.name) + 1, stored.bag_ns, data))
            except FrameError as error:
                bad.append(error.reason)
    return good, bad, damage.all()


def root_page(path, table):
    with sqlite3.connect(path) as db:
        ((page,),) = db.execute("SELECT rootpage FROM sqlite_master WHERE name=?", (table,))
    db.close()
    return page


def pages_of(path, kind, page_size=4096):
    """Return the offsets of the b-tree pages of a kind behind the first page."""
    data = path.read_bytes()
    return [at for at in range(page_size, len(data), page_size) if data[at] == kind]


def change(path, at, new):
    with path.open("r+b") as stream:
        stream.seek(at)
        stream.write(new)


def test_topics_come_with_type_encoding_definition_and_count(tmp_path):
    drive(tmp_path / "a.db3", 5, newer=True)
    with Db3File(tmp_path / "a.db3") as file:
        assert list(file.topics()) == [
            Topic(CAMERA, "sensor_msgs/Image", "cdr", "", 5),
            Topic(CHATTER, "std_msgs/String", "cdr", "string data", 5),
        ]


def test_messages_of_a_topic_come_by_time_whatever_the_order_of_the_rows(tmp_path):
    rows = [(1, T0 + 5, b"b"), (2, T0, b"x"), (1, T0 + 5, b"c"), (1, T0 - 7, b"a"), (1, 0, b"0")]
    record(tmp_path / "a.db3", rows)
    good, bad, damage = read(tmp_path / "a.db3", (CAMERA,))
    assert [data for _, _, data in good] == [b"0", b"a", b"b", b"c"]
    assert not bad
    assert not damage
    assert read(tmp_path / "a.db3", ("/other",)) == ([], [], ())


@pytest.mark.parametrize("storage_version", [8, 9])
def test_bags_of_other_writers_read_the_same(tmp_path, storage_version):
    store = get_typestore(Stores.ROS2_HUMBLE)
    path = tmp_path / "bag"
    with Writer(path, version=storage_version, storage_plugin=StoragePlugin.SQLITE3) as writer:
        text = writer.add_connection(CHATTER, "std_msgs/msg/String", typestore=store)
        for i in range(3):
            writer.write(text, T0 + i, payload(i, 50_000 * i))
    good, bad, damage = read(path / "bag.db3")
    assert [(stamp, data) for _, stamp, data in good] == [
        (T0 + i, payload(i, 50_000 * i)) for i in range(3)
    ]
    assert (bad, damage) == ([], ())


def test_only_load_reads_a_message_and_only_its_own_pages(tmp_path, monkeypatch):
    drive(tmp_path / "a.db3", 50, 100_000)
    counted = []
    real, real_vector = os.pread, os.preadv

    def pread(fd, size, at):
        counted.append(size)
        return real(fd, size, at)

    def preadv(fd, parts, at):
        size = real_vector(fd, parts, at)
        counted.append(size)
        return size

    monkeypatch.setattr(os, "pread", pread)
    monkeypatch.setattr(os, "preadv", preadv)
    with Db3File(tmp_path / "a.db3") as file:
        stored = list(file.messages((CAMERA,), DamageLog()))
        assert sum(counted) < 500_000
        counted.clear()
        assert bytes(stored[30].load()) == payload(30, 100_000)
        assert sum(counted) < 120_000


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    page_size=st.sampled_from([512, 1024, 4096, 65536]),
    sizes=st.lists(st.integers(1, 9000) | st.sampled_from([400, 473, 4061, 4062]), max_size=60),
    vacuum=st.sampled_from(["NONE", "FULL", "INCREMENTAL"]),
    encoding=st.sampled_from(["UTF-8", "UTF-16le", "UTF-16be"]),
    deleted=st.sets(st.integers(1, 60)),
    stamps=st.sampled_from([T0, 0, -5, 2**33, 100]),
)
def test_every_row_reads_as_sqlite_reads_it(
    tmp_path_factory, page_size, sizes, vacuum, encoding, deleted, stamps
):
    path = tmp_path_factory.mktemp("h") / "a.db3"
    rows = [(1 + i % 2, stamps + i, payload(i, size)) for i, size in enumerate(sizes)]
    pragmas = f"PRAGMA auto_vacuum={vacuum}; PRAGMA encoding='{encoding}';"
    record(path, rows, page_size=page_size, pragmas=pragmas)
    db = sqlite3.connect(path)
    db.executemany("DELETE FROM messages WHERE id=?", [(i,) for i in deleted])
    db.execute("INSERT INTO messages VALUES(?, 1, ?, ?)", (2**62, T0 + 10**6, payload(1, 5000)))
    db.commit()
    expected = db.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY 2, id")
    assert read(path) == (expected.fetchall(), [], ())
    db.close()


def test_a_million_rows_of_other_sensors_cost_little(tmp_path):
    rows = ((2, T0 + i, b"0123456789abcdef") for i in range(20_000))
    record(tmp_path / "a.db3", rows)
    good, bad, damage = read(tmp_path / "a.db3")
    assert [stamp for _, stamp, _ in good] == [T0 + i for i in range(20_000)]
    assert (bad, damage) == ([], ())


def test_what_is_only_in_the_log_of_a_killed_recorder_is_read_without_touching_it(tmp_path):
    script = f"""
import os, sqlite3
db = sqlite3.connect("a.db3", isolation_level=None)
db.executescript('PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;' + {SCHEMA!r})
for i in range(40):
    db.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES(1, ?, ?)",
               ({T0} + i, i.to_bytes(4, "little") * 5000))
db.execute("BEGIN")
db.execute("PRAGMA cache_spill=1")
db.execute("PRAGMA cache_size=5")
db.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES(1, 1, zeroblob(900000))")
os._exit(9)
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert len(before["a.db3-wal"]) > len(before["a.db3"])
    good, bad, damage = read(tmp_path / "a.db3")
    assert good == [(1, T0 + i, payload(i, 20_000)) for i in range(40)]
    assert bad == []
    assert [d.kind for d in damage] in ([], ["cut file"])  # the transaction that was under way
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_log_that_was_cut_gives_its_finished_transactions(tmp_path):
    db = sqlite3.connect(tmp_path / "a.db3", isolation_level=None)
    db.executescript("PRAGMA journal_mode=WAL;" + SCHEMA)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for i in range(20):
        db.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES(1,?,?)", (T0 + i, b"x"))
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "a.db3").write_bytes((tmp_path / "a.db3").read_bytes())
    log = (tmp_path / "a.db3-wal").read_bytes()
    db.close()
    seen = set()
    for size in range(0, len(log), 1111):
        (copy / "a.db3-wal").write_bytes(log[:size])
        good, bad, damage = read(copy / "a.db3")
        assert good == [(1, T0 + i, b"x") for i in range(len(good))]
        assert bad == []
        seen.add((len(good), bool(damage)))
    assert {count for count, _ in seen} == set(range(20))
    flipped = bytearray(log)
    flipped[len(log) // 2] ^= 1
    (copy / "a.db3-wal").write_bytes(flipped)
    good, _, damage = read(copy / "a.db3")
    assert 5 < len(good) < 15
    assert [d.kind for d in damage] == ["cut file"]
    (copy / "a.db3-wal").write_bytes(b"no log" * 100)
    good, _, damage = read(copy / "a.db3")
    assert good == []
    assert damage == (Damage("damaged file", 1, "a.db3-wal at byte 0"),)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("size", [300, 3000, 60_000])
def test_of_a_cut_file_everything_before_the_cut_is_read(tmp_path, share, size):
    count = 2000 if size == 300 else 300
    rows = drive(tmp_path / "a.db3", count, size)
    data = (tmp_path / "a.db3").read_bytes()
    (tmp_path / "a.db3").write_bytes(data[: int(len(data) * share)])
    good, bad, damage = read(tmp_path / "a.db3")
    read_ones = set(good)
    assert good == [row for row in rows if row in read_ones]
    assert len(good) > 2 * count * (share - 0.04) - 4
    assert set(bad) <= {"cut file"}
    assert {d.kind for d in damage} | set(bad) == {"cut file"}
    # The recorder's ids have no gaps: every message is read, fails, or is counted as lost.
    lost = sum(d.count for d in damage)
    assert len(good) + len(bad) + lost <= 2 * count
    if share > 0.5:
        assert len(good) + len(bad) + lost >= 2 * count - 20


def test_messages_below_a_lost_interior_page_are_found_all_the_same(tmp_path):
    rows = drive(tmp_path / "a.db3", 1000, 300, page_size=512)
    interiors = pages_of(tmp_path / "a.db3", 0x05, 512)
    assert len(interiors) > 5
    for at in interiors:
        change(tmp_path / "a.db3", at, bytes(512))
    good, bad, damage = read(tmp_path / "a.db3")
    assert good == rows
    assert bad == []
    assert [d.kind for d in damage] == ["damaged file"]


def test_a_lost_leaf_page_costs_its_own_messages_and_they_are_counted(tmp_path):
    rows = drive(tmp_path / "a.db3", 300, 3000)
    leaves = pages_of(tmp_path / "a.db3", 0x0D)
    change(tmp_path / "a.db3", leaves[50], b"\xff" * 100)
    good, bad, ((kind, count, begins),) = as_tuples(read(tmp_path / "a.db3"))
    assert kind == "damaged file"
    assert begins == f"a.db3 at byte {leaves[50]}"
    assert len(good) == 600 - count
    assert 1 <= count < 10
    assert set(good) < set(rows)
    assert bad == []


def test_a_page_that_hides_rows_is_noticed(tmp_path):
    drive(tmp_path / "a.db3", 300, 300)
    leaf = pages_of(tmp_path / "a.db3", 0x0D)[20]
    change(tmp_path / "a.db3", leaf + 3, struct.pack(">H", 3))
    good, _, damage = read(tmp_path / "a.db3")
    assert len(good) < 600
    assert damage == (Damage("damaged file", 1, f"a.db3 at byte {leaf}"),)
    interior = pages_of(tmp_path / "a.db3", 0x05)[0]
    change(tmp_path / "a.db3", interior + 3, struct.pack(">H", 3))
    again, _, damage = read(tmp_path / "a.db3")
    assert again == good
    assert [d.kind for d in damage] == ["damaged file"]


def test_a_broken_link_inside_a_message_fails_its_load_and_shifts_nothing(tmp_path):
    rows = drive(tmp_path / "a.db3", 40, 60_000)
    data = (tmp_path / "a.db3").read_bytes()
    overflow = [
        at
        for at in range(4096, len(data), 4096)
        if struct.unpack_from(">I", data, at)[0] == at // 4096 + 2
    ]
    for wrong in (0, 3, 10**6, struct.unpack_from(">I", data, overflow[200])[0]):
        change(tmp_path / "a.db3", overflow[100], struct.pack(">I", wrong))
        good, bad, damage = read(tmp_path / "a.db3")
        assert len(good) == 79
        assert set(good) < set(rows)
        assert bad in (["damaged file"], ["cut file"])
        assert damage == ()


def test_two_messages_that_claim_the_same_pages_both_fail(tmp_path):
    rows = drive(tmp_path / "a.db3", 40, 60_000)
    data = (tmp_path / "a.db3").read_bytes()
    links = [data.index(struct.pack(">I", page)) for page in first_pages(data)]
    change(tmp_path / "a.db3", links[7], data[links[9] : links[9] + 4])
    good, bad, damage = read(tmp_path / "a.db3")
    assert len(set(rows) - set(good)) == 2
    assert bad == ["damaged file"] * 2
    assert damage == ()


def first_pages(data):
    """Return the pages at which messages go on: the second page of a chain follows, no link leads
    there, and the first bytes of the page before are no link."""
    links = [struct.unpack_from(">I", data, at)[0] for at in range(0, len(data), 4096)]
    linked = set(links)
    return [
        page for page in range(2, len(links)) if links[page - 1] == page + 1 and page not in linked
    ]


def test_a_table_that_begins_at_a_wrong_page_is_noticed_by_its_index(tmp_path):
    rows = drive(tmp_path / "a.db3", 100, 3000)
    root = root_page(tmp_path / "a.db3", "messages")
    data = (tmp_path / "a.db3").read_bytes()
    child = pages_of(tmp_path / "a.db3", 0x0D)[5] // 4096 + 1
    at = data.index(b"messages" + bytes([root]) + b"CREATE") + len("messages")
    change(tmp_path / "a.db3", at, bytes([child]))
    good, bad, damage = read(tmp_path / "a.db3")
    assert good == rows
    assert bad == []
    assert damage == ()


def test_without_the_table_of_tables_topics_and_messages_are_found(tmp_path):
    rows = drive(tmp_path / "a.db3", 100, 3000)
    change(tmp_path / "a.db3", 0, bytes(4096))
    good, bad, damage = read(tmp_path / "a.db3")
    assert good == rows
    assert bad == []
    assert {d.kind for d in damage} == {"damaged file"}


def test_files_that_hold_nothing_say_what_they_are(tmp_path):
    (tmp_path / "empty.db3").touch()
    with pytest.raises(FrameError, match=r"^empty.db3: has 0 bytes") as caught:
        Db3File(tmp_path / "empty.db3")
    assert caught.value.reason == "cut file"
    (tmp_path / "noise.db3").write_bytes(os.urandom(50_000))
    with pytest.raises(FrameError, match=r"^noise.db3: has no topics; is it a rosbag2 file"):
        Db3File(tmp_path / "noise.db3")
    with pytest.raises(FrameError, match=r"^none.db3: No such file"):
        Db3File(tmp_path / "none.db3")
    (tmp_path / "folder.db3").mkdir()
    with pytest.raises(FrameError, match=r"^folder.db3: Is a directory"):
        Db3File(tmp_path / "folder.db3")
    other = sqlite3.connect(tmp_path / "other.db3")
    other.execute("CREATE TABLE people(id INTEGER PRIMARY KEY, name TEXT)")
    other.commit()
    other.close()
    with pytest.raises(FrameError, match=r"^other.db3: has no topics"):
        Db3File(tmp_path / "other.db3")


def test_views_and_triggers_are_not_run(tmp_path):
    drive(tmp_path / "a.db3", 3)
    db = sqlite3.connect(tmp_path / "a.db3")
    db.executescript("""
        ALTER TABLE messages RENAME TO kept;
        CREATE VIEW messages AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n)
            SELECT i AS id, 1 AS topic_id, i AS timestamp, zeroblob(1000000000) AS data FROM n;
    """)
    db.close()
    good, _, damage = read(tmp_path / "a.db3")
    assert len(good) == 6  # by their shape
    assert [d.kind for d in damage] == ["damaged file"]


def test_a_file_that_shrinks_or_closes_while_it_is_read_fails_by_message(tmp_path):
    drive(tmp_path / "a.db3", 10, 60_000)
    with Db3File(tmp_path / "a.db3") as file:
        stored = list(file.messages((CAMERA,), DamageLog()))
        assert len(stored[9].load()) == 60_000
        os.truncate(tmp_path / "a.db3", 200_000)
        assert len(stored[0].load()) == 60_000
        with pytest.raises(FrameError, match=r"^a.db3 at byte \d+: it became shorter"):
            stored[9].load()
    with pytest.raises(FrameError, match=r"Bad file descriptor"):
        stored[0].load()


def test_memory_does_not_grow_with_the_messages_of_other_topics(tmp_path):
    rows = [(1 if i % 2000 == 0 else 2, T0 + i, bytes(100)) for i in range(200_000)]
    record(tmp_path / "a.db3", rows)
    tracemalloc.start()
    try:
        with Db3File(tmp_path / "a.db3") as file:
            assert [topic.messages for topic in file.topics()] == [100, 199_900]
            assert sum(1 for _ in file.messages((CAMERA,), DamageLog())) == 100
            now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert now < 1e6  # bytes
    assert peak < 10e6


@pytest.mark.parametrize("spare", [0, 2000, 2**21])
@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("late", [0, 25])
def test_topics_may_be_asked_for_one_after_the_other(tmp_path, monkeypatch, spare, damaged, late):
    """Places that nobody asked for are kept while there is room, else found again."""
    monkeypatch.setattr(db3_positions, "_SPARE_BYTES", spare)
    path = tmp_path / "a.db3"
    rows = [
        (1 + i % 2, T0 + 10 * i - late * (i % 3), payload(i, 900 if i % 4 else 9000))
        for i in range(300)
    ]
    record(path, rows)
    if damaged:
        change(path, pages_of(path, 0x0D)[7], b"\0")
    with Db3File(path) as file:
        counts = [topic.messages for topic in file.topics()]
        first, second, both = DamageLog(), DamageLog(), DamageLog()
        texts = list(file.messages((CHATTER,), first))
        pictures = list(file.messages((CAMERA,), second))
        everything = list(file.messages((CAMERA, CHATTER), both))
        found = {
            name: [s for s in everything if s.topic.name == name] for name in (CAMERA, CHATTER)
        }
        for part, name in ((pictures, CAMERA), (texts, CHATTER)):
            assert [s.bag_ns for s in part] == [s.bag_ns for s in found[name]]
            assert [bytes(s.load()) for s in part] == [bytes(s.load()) for s in found[name]]
        assert counts == [len(pictures), len(texts)]
        written = [(stamp, topic, data) for topic, stamp, data in rows]
        written.sort(key=lambda row: row[0])  # those of equal time stay in the order of rows
        read = [(s.bag_ns, 1 + (s.topic.name == CHATTER), bytes(s.load())) for s in everything]
        assert first.all() == second.all() == both.all()
        if damaged:
            assert set(read) < set(written)
            assert sum(loss.count for loss in both.all()) == len(written) - len(read)
        else:
            assert read == written
            assert not both


def test_threads_can_load_at_the_same_time(tmp_path):
    drive(tmp_path / "a.db3", 60, 100_000)
    wrong = []
    with Db3File(tmp_path / "a.db3") as file:
        stored = list(file.messages((CAMERA,), DamageLog()))

        def load(offset):
            numbers = range(offset, 60)
            wrong.extend(i for i in numbers if bytes(stored[i].load()) != payload(i, 100_000))

        threads = [threading.Thread(target=load, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def as_tuples(outcome):
    good, bad, damage = outcome
    return good, bad, tuple((d.kind, d.count, d.begins) for d in damage)
