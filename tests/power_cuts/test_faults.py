"""Killed at every operation on files, or without room there: the old or the new model is active.

Publishing by a run and by commands, pruning, and installing on a robot, until the next process has
healed all. `make test` draws eight operations of each scenario and kind, `make soak` has them all:
python tests/power_cuts/run_faults.py NAME
"""

import datetime
import os
import textwrap

import pytest
from outcomes import require_right
from run_faults import COMPARED
from run_scenarios import SCENARIOS

SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
SEED = str(datetime.date.today().toordinal()) if SOAK else "0"
MOST = "1000000" if SOAK else "8"
MODULES = "publishing_scenarios", "installing_scenarios", "server_scenarios", "robot_scenarios"
OLDER = MODULES[2:]  # their states are looked at by kills and power cuts of test_power_cuts.py


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.soak] if place.startswith(OLDER) else [])
        for name in COMPARED
        if (place := SCENARIOS[name]).startswith(MODULES)
    ],
)
def test_wherever_it_is_killed_or_finds_no_room_the_next_process_ends_it(name):
    require_right("run_faults.py", name, "--most", MOST, "--seed", SEED)


# ------------------------------------------------------------------- the disturbances themselves


OPERATIONS = """
def work():
    (root / "a").write_bytes(b"four")
    (root / "d").mkdir()
    (root / "a").rename(root / "b")
    os.link(root / "b", root / "c")
    (root / "s").symlink_to("b")
    with open(root / "b", "rb") as one, open(root / "d" / "e", "wb") as other:
        os.sendfile(other.fileno(), one.fileno(), 0, 4)
        os.fsync(other.fileno())
    os.truncate(root / "c", 2)
    (root / "c").unlink()
    shutil.rmtree(root / "d")
def again(kind, at):
    shutil.rmtree(root); root.mkdir()
    outcome = disturbed(root, work, kind, at)
    return outcome.code, outcome.faults.disturbed, outcome.said
"""
MET = [
    "openat a", "write a", "mkdirat d", "renameat b", "linkat c", "symlinkat s", "openat d/e",
    "sendfile d/e", "fsync d/e", "truncate c", "unlinkat c", "unlinkat d/e", "unlinkat d",
]  # fmt: skip


def test_each_operation_is_met_once_and_in_its_order(run):
    lines = run(
        OPERATIONS,
        """
        for at in range(1, 15):
            code, met, said = again("kill", at)
            print(code, met, *sorted(p.name for p in root.iterdir()))
    """,
    )
    assert [line.split()[:3] for line in lines[:-1]] == [["-9", *met.split()] for met in MET]
    assert [line.split()[3:] for line in lines] == [
        [], ["a"], ["a"], ["a", "d"], ["b", "d"], ["b", "c", "d"], *[["b", "c", "d", "s"]] * 5,
        *[["b", "d", "s"]] * 2, [],
    ]  # fmt: skip
    assert lines[-1].split() == ["0", "b", "s"]


def test_what_needs_room_finds_none_and_the_process_is_told(run):
    lines = run(
        OPERATIONS,
        """
        for at in range(1, 11):
            code, met, said = again("once", at)
            print(code, met, "No space left on device" in said)
    """,
    )
    assert lines == [*(f"12 {met} True" for met in MET[:9]), "0  False"]


def test_a_full_disk_takes_half_of_a_write_and_then_nothing_more(run):
    lines = run(
        OPERATIONS,
        """
        code, met, said = again("full", 2)
        print(code, met, (root / "a").read_bytes(), len(list(root.iterdir())))
    """,
    )
    assert lines == ["12 write a b'fo' 1"]


CASES = [  # (what a process does to replace "old" by "new", what is said of it)
    ('write_durably(root / "a", "new")', "right"),
    ('(root / "a").write_text("new")', "found ''"),
    ('(root / "a").unlink(); write_durably(root / "a", "new")', "FileNotFoundError"),
    ('with suppress(OSError): write_durably(root / "a", "new")', "found 'old'"),
    ('with mock.patch("os.fsync", careless): write_durably(root / "a", "new")', "found 'n'"),
    ('try: write_durably(root / "a", "new")\nexcept OSError: raise ValueError', "exit code 1"),
    ('try: write_durably(root / "a", "new")\nexcept OSError: raise StorageError("oh")', "oh"),
    ('(root / "b").write_text("new"); (root / "b").replace(root / "a"); mark(); 1 / 0', "failed"),
    ('b = root / str(os.getpid()); b.write_text("new"); b.replace(root / "a")', "healed to ['"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "verdict"), CASES)
def test_what_a_product_may_do_wrong_is_noticed(run, body, verdict):
    lines = run(
        """
        from contextlib import suppress
        from unittest import mock
        from fleet_model.durable import write_durably
        from fleet_model.errors import StorageError
        def careless(descriptor, sync=os.fsync):
            with suppress(OSError):
                sync(descriptor)
    """,
        f"def act(root):\n{textwrap.indent(body, '    ')}\n    mark()",
        """
        scenario = Scenario(
            prepare=lambda root: (root / "a").write_text("old"), act=act,
            observe=lambda root: (root / "a").read_text(), resume=act,
            settled=lambda root: sorted(path.name for path in root.glob("[!.]*")),
        )
        try:
            disturb_everywhere(scenario)
            print("right")
        except (WrongStateError, TracingError) as error:
            print(*str(error).split())
    """,
    )
    assert verdict in lines[-1]
