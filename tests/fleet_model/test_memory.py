import subprocess
import sys
import weakref

import pytest

from fleet_model.memory import FRAMEWORKS, framework_loaded, give_back

pytestmark = pytest.mark.base

# Blocks of C's heap, for larger objects are not Python's own. One lies above the others, so that
# the heap cannot shrink by itself.
HOLES = """
import psutil
from fleet_model.memory import FRAMEWORKS, framework_loaded, give_back
used = lambda: psutil.Process().memory_info().rss / 1e6
blocks = [bytes([1]) * 4000 for _ in range(25_000)]
last = blocks.pop()
del blocks
before = used()
give_back()
print(before - used())
"""


class Body:
    """Something that can be watched."""


def test_cycles_are_gone():
    body = Body()
    body.me, gone = body, weakref.ref(body)
    del body
    give_back()
    assert gone() is None


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_free_blocks_below_used_ones_go_back_to_the_system():
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 50  # of 100 MB


def test_a_framework_is_noticed_once_it_is_loaded(monkeypatch):
    for name in FRAMEWORKS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert not framework_loaded()
    monkeypatch.setitem(sys.modules, "torch", None)
    assert framework_loaded()
