"""The recorder sees what libraries do; the replays find what is known to be wrong."""

import pytest


@pytest.mark.parametrize(
    "statement",
    [
        'open(root / "a", "wb").write(content)',
        'os.pwrite(os.open(root / "a", os.O_WRONLY | os.O_CREAT), content, 7)',
        'os.writev(os.open(root / "a", os.O_WRONLY | os.O_CREAT), [content, content])',
        '(root / "a").write_bytes(content); open(root / "a", "ab").write(content)',
        '(root / "a").write_bytes(content); shutil.copyfile(root / "a", root / "b")',
        '(root / "a").write_bytes(content); shutil.move(root / "a", root / "b")',
        'import numpy; numpy.save(root / "a.npy", numpy.arange(5000))',
        'import cv2, numpy; cv2.imwrite(str(root / "a.png"), numpy.ones((90, 90), "uint8"))',
        'import numpy, safetensors.numpy as s; s.save_file({"a": numpy.ones(9)}, root / "a")',
        'subprocess.run(["sh", "-c", f"echo hello > {root}/a; ln -s a {root}/b"], check=True)',
        "t = threading.Thread(target=(root / 'a').write_text, args='x'); t.start(); t.join()",
        'os.chdir(root); os.mkdir("d"); open("d/a", "w"); os.rename("d", "e"); os.link("e/a", "b")',
        '(root / "a").write_bytes(content); os.truncate(root / "a", 3)',
        'os.posix_fallocate(os.open(root / "a", os.O_WRONLY | os.O_CREAT), 0, 5000)',
        '(root / "a").touch(); (root / "a").unlink(); (root / "a").mkdir(); (root / "a").rmdir()',
    ],
)
def test_no_change_is_missed_whoever_makes_it(run, statement):
    """`record` compares the folder with the sum of the operations, and raises if they differ."""
    lines = run(f"""
        content = os.urandom(3000)
        def work():
            {statement}
        for operation in record(root, work).operations:
            print(type(operation).__name__)
    """)
    assert set(lines) & {"Write", "Resize", "Create"}


def test_a_mapping_that_writes_past_the_recorder_is_refused(run):
    lines = run("""
        import mmap
        (root / "a").write_bytes(bytes(4096))
        def work():
            with open(root / "a", "r+b") as stream:
                mmap.mmap(stream.fileno(), 4096)[0] = 1
        try:
            record(root, work)
        except TracingError as error:
            print(error)
    """)
    assert lines[0].endswith("a shared writable mapping")


def test_an_exception_of_the_recorded_work_is_no_result(run):
    lines = run("""
        try:
            record(root, lambda: 1 / 0)
        except TracingError as error:
            print(error)
    """)
    assert lines == ["the recorded process failed; its traceback is above"]


def test_syncs_and_marks_are_recorded_in_their_order(run):
    lines = run("""
        from fleet_model.durable import sync_file_system, write_durably
        def work():
            write_durably(root / "a", "text")
            mark()
            sync_file_system(root)
        print(*(type(o).__name__ for o in record(root, work).operations))
    """)
    assert lines == ["Create Write SyncFile Rename SyncFolder Mark SyncAll"]


SQLITE = """
    def rows(root):
        database = sqlite3.connect(root / "db")
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = database.execute("SELECT count(*) FROM t").fetchone()[0]
        database.close()
        return found
    def insert(root, synchronous):
        database = sqlite3.connect(root / "db")
        database.execute(f"PRAGMA synchronous={{synchronous}}")
        database.execute("PRAGMA cache_size=2")
        database.executemany("INSERT INTO t VALUES (?)", [(os.urandom(900),) for _ in range(20)])
        database.commit()
        database.close()
        mark()
    def prepare(root):
        database = sqlite3.connect(root / "db")
        database.execute("CREATE TABLE t (a)")
        database.executemany("INSERT INTO t VALUES (?)", [(os.urandom(900),) for _ in range(20)])
        database.commit()
        database.close()
    scenario = Scenario(
        prepare=prepare, act=lambda root: insert(root, {mode!r}), observe=rows,
        resume=lambda root: None, settled=lambda root: 0,
    )
    try:
        cut_everywhere(scenario, most=150)
        print("right")
    except WrongStateError as error:
        print("wrong")
"""


@pytest.mark.parametrize(("mode", "verdict"), [("EXTRA", "right"), ("OFF", "wrong")])
def test_the_replays_agree_with_what_sqlite_says_of_itself(run, mode, verdict):
    """With synchronous=EXTRA its transactions survive power cuts, with OFF databases break."""
    assert run(SQLITE.format(mode=mode)) == [verdict]


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ('write_durably(root / "a", "new")', "right"),
        ('(root / "a").write_text("new")', "wrong"),
        ('(root / "b").write_text("new"); (root / "b").replace(root / "a")', "wrong"),
        ('write_durably(root / "d" / "a", "x"); write_durably(root / "a", "new")', "right"),
        ('(root / "a").unlink(); write_durably(root / "a", "new")', "wrong"),
    ],
)
def test_the_replays_tell_a_durable_replacement_from_others(run, body, verdict):
    lines = run(f"""
        from fleet_model.durable import write_durably
        def act(root):
            {body}
            mark()
        scenario = Scenario(
            prepare=lambda root: (root / "a").write_text("old"), act=act,
            observe=lambda root: (root / "a").read_text(), resume=act,
        )
        try:
            cut_everywhere(scenario)
            print("right")
        except WrongStateError:
            print("wrong")
    """)
    assert lines == [verdict]
