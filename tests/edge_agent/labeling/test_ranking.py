"""The thread over a real bag, with an engine whose answers are known."""

import time
from types import SimpleNamespace

import numpy as np
import pytest

from edge_agent.labeling.advice import Advised
from edge_agent.labeling.answer import SKIP, Answer
from edge_agent.labeling.frames import KeptFrames
from edge_agent.labeling.ranking import Ranking
from edge_agent.labeling.views import ROW, Sight
from fleet_model.errors import FrameError

pytestmark = pytest.mark.base
PATIENCE_S = 60.0


class Values:
    """Advice by the number of a frame; the fourth cannot be read."""

    problem = ""
    versions = (7,)

    def __init__(self, start_ns, values, degrees=None):
        self.start_ns, self.values, self.degrees = start_ns, values, degrees

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

    def make(values, answered=(), degrees=None, advice=Values):
        known = {listed[n].name: Answer(frame=listed[n].name, kind=SKIP) for n in answered}
        said = advice(bags.START_NS, values, degrees)
        ranking = Ranking(frames, said, known)
        rankings.append(ranking)
        ranking.start()
        end = time.monotonic() + PATIENCE_S
        while not (ranking.now.listed and ranking.now.looked_at == 6 - len(answered)):
            assert time.monotonic() < end, ranking.problems
            time.sleep(0.01)
        return ranking if advice is Values else (ranking, said)

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


class Sees(Values):
    """Also tells in which direction a model sees a frame, if it does; all questions are noted."""

    def __init__(self, *given):
        super().__init__(*given)
        self.versions, self.asked, self.is_newer, self.trial = (7,), [], False, ()

    def look(self):
        newer, self.is_newer = self.is_newer, False
        is_other = newer or self.versions[1:] != self.trial
        self.versions = (self.versions[0] + newer, *self.trial)
        return is_other

    def of(self, frame):
        number = (frame.stamp_ns - self.start_ns) // (60 * 10**9)
        self.asked.append((self.versions[0], number))
        sight = None
        if self.degrees is not None:
            row, turned = np.zeros(ROW, np.float32), np.radians(self.degrees[number])
            row[:2] = np.cos(turned), np.sin(turned)
            sight = Sight(row, np.ones(1, np.float32))
        return Advised((), self.versions[0], "class", self.values[number], sight)

    def wait(self, questions):
        """Wait until so many are asked, and none after these."""
        end = time.monotonic() + PATIENCE_S
        while len(self.asked) < questions:
            assert time.monotonic() < end, self.asked
            time.sleep(0.01)
        time.sleep(0.3)
        assert len(self.asked) == questions, self.asked


def test_frames_of_earlier_sessions_are_compared_by_what_the_model_sees_of_them(ranked):
    values, degrees = [0.0, 0.9, 0.8, 0.1, 0.15, 0.1], [0, 0, 90, 180, 180, 270]
    ranking, advice = ranked.make(values, (0,), degrees, Sees)
    advice.wait(6)
    assert advice.asked[-1] == (7, 0)  # after those that a person waits for
    assert ranked.numbers(ranking)[:2] == [2, 1]  # 1 is what 0 was


def test_a_model_that_tells_no_features_is_not_asked_about_frames_that_wait_no_more(
    ranked, monkeypatch
):
    monkeypatch.setattr("edge_agent.labeling.ranking.LOOK_S", 0.01)
    ranking, advice = ranked.make([0.5] * 6, (0, 4), None, Sees)
    advice.wait(4)
    assert {number for _, number in advice.asked} == {1, 2, 3, 5}
    ranking.take()
    advice.is_newer = True
    advice.wait(4 + 3)


def test_where_a_version_is_on_trial_both_are_asked_about_frames_that_wait(ranked, monkeypatch):
    monkeypatch.setattr("edge_agent.labeling.ranking.LOOK_S", 0.01)
    _, advice = ranked.make([0.5] * 6, (), None, Sees)
    advice.wait(6)
    advice.trial = (8,)
    advice.wait(6 + 6)
    advice.trial = ()
    advice.wait(6 + 6 + 6)


def test_a_newer_model_sees_taken_frames_anew_and_what_was_shown_of_them_stays(ranked, monkeypatch):
    monkeypatch.setattr("edge_agent.labeling.ranking.LOOK_S", 0.01)
    values, degrees = [0.1, 0.9, 0.3, 0.2, 0.8, 0.2], [0, 0, 90, 90, 180, 180]
    ranking, advice = ranked.make(values, (), degrees, Sees)
    advice.wait(6)
    first = ranking.take()
    advice.degrees = [90, 0, 90, 90, 0, 90]  # 4 is now what 1 is: (0 + 0 + 1) / 3 * .8
    advice.values = [0.1, 0.9, 0.6, 0.2, 0.8, 0.2]
    advice.is_newer = True
    advice.wait(12)
    assert sorted(number for version, number in advice.asked if version == 8) == list(range(6))
    assert ranking.advised(first.name).version == 7
    second = ranking.take()
    assert ranking.advised(second.name).version == 8
    assert ranked.numbers(ranking)[0] == 4
