"""A sample of the fuzz runs of .db3 and .bag files; for a million inputs run the scripts."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import damaging
import fuzz_db3
import fuzz_ros1

from edge_agent.data.storage.db3.file import Db3File
from edge_agent.data.storage.ros1.file import Ros1File

pytestmark = [pytest.mark.base, pytest.mark.slow]


@pytest.mark.parametrize("fuzz", [(Db3File, fuzz_db3), (Ros1File, fuzz_ros1)])
def test_damaged_files_lose_messages_and_never_invent_them(fuzz, capsys):
    kind, module = fuzz
    assert damaging.main(kind, module.seeds, module.check, ["--inputs", "800"]) == 0
    assert '"failures": 0' in capsys.readouterr().out


def test_each_message_is_looked_for_as_it_is_before_one_that_is_nearly_alike():
    damaging.check_each_was_written([b"ab", b"ca"], [b"aa", b"ab"], most=1)


@pytest.mark.parametrize("found", [[b"aa", b"aa"], [b"ab", b"cc"], [b"aa", b"ab", b"ab"]])
def test_a_message_that_comes_twice_or_was_never_written_fails_the_run(found):
    with pytest.raises(AssertionError, match="never written, or twice"):
        damaging.check_each_was_written(found, [b"aa", b"ab"], most=0)
