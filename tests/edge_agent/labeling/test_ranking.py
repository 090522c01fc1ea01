"""The thread over a real bag, with an engine whose answers are known."""

import time
from types import SimpleNamespace

import pytest

from edge_agent.labeling.advice import Advised
from edge_agent.labeling.answer import SKIP, Answer
from edge_agent.labeling.frames import KeptFrames
from edge_agent.labeling.ranking import Ranking
from fleet_model.errors import FrameError

pytestmark = pytest.mark.base
PATIENCE_S = 60.0


class Values:
    """Advice by the number of a frame; the fourth cannot be read."""

    problem = ""
    versions = (7,)

    def __init__(self, start_ns, values):
        self.start_ns, self.values = start_ns, values

    def look(self):
        return False

    def of(self, frame):
        number = (frame.stamp_ns - self.start_ns) // (60 * 10**9)
        if number == 3:
            raise FrameError("spoilt", "cut jpeg")
        return Advised((), 7, "class", self.values[number])


@pytest.fixture
def ranked(bags, tmp_path, robot):
    """Return a ranking that has looked at six frames, a minute apart from each other."""
    bag = bags.drive(tmp_path / "r1", [""] * 6, period_ns=60 * 10**9)
    frames = KeptFrames(robot(bag), tmp_path / "index", boxes=False)
    listed = list(frames.listed())
    rankings = []

    def make(values, answered=()):
        known = {listed[n].name: Answer(frame=listed[n].name, kind=SKIP) for n in answered}
        ranking = Ranking(frames, Values(bags.START_NS, values), known)
        rankings.append(ranking)
        ranking.start()
        end = time.monotonic() + PATIENCE_S
        while not (ranking.now.listed and ranking.now.looked_at == 6 - len(answered)):
            assert time.monotonic() < end, ranking.problems
            time.sleep(0.01)
        return ranking

    yield SimpleNamespace(make=make, numbers=lambda found: _numbers(found, bags.START_NS))
    for ranking in rankings:
        ranking.close()


def _numbers(ranking, start_ns):
    found = []
    while (candidate := ranking.take()) is not None:
        found.append((candidate.name.stamp_ns - start_ns) // (60 * 10**9))
    return found


def test_the_most_uncertain_frames_come_first_and_unreadable_ones_never(ranked):
    ranking = ranked.make([0.1, 0.9, 0.3, 1.0, 0.5, 0.2])
    assert (ranking.now.frames, ranking.now.waiting, ranking.now.unreadable) == (6, 5, 1)
    assert ranked.numbers(ranking) == [1, 4, 2, 5, 0]
    assert ranking.now.waiting == 0


def test_frames_that_were_answered_are_not_asked_about_again(ranked):
    ranking = ranked.make([0.1, 0.9, 0.3, 1.0, 0.5, 0.2], answered=(1, 4))
    assert ranking.now.frames == 4
    assert ranked.numbers(ranking) == [2, 5, 0]
