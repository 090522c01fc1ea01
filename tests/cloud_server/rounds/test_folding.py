"""The end of a round: which lengths are folded in."""

import numpy as np
import pytest

from cloud_server.rounds.folding import judge
from cloud_server.rounds.reply_spool import Kept
from cloud_server.rounds.update_checks import NORMS, Checks
from fleet_model.protocol.outcome import ACCEPTED
from fleet_model.types import Checkpoint

CHECKS = Checks(max_examples_per_robot=100, max_update_mb=1.0, max_norm_ratio=10.0)


def kept(robot, norm):
    return Kept(ticket=f"t-{robot}", robot=robot, site="hall", round=1, verdict=ACCEPTED, norm=norm)


def judged(*norms, before=()):
    """Judge a round of robots r0, r1, ... with these lengths."""
    start = Checkpoint(
        version=1,
        weights={"w": np.ones(2, np.float32)},
        server_state={NORMS: np.array(before, np.float64)},
    )
    return judge([kept(f"r{n}", norm) for n, norm in enumerate(norms)], start, CHECKS)


@pytest.mark.parametrize(("length", "good"), [(19.8, True), (20.2, False)])
def test_a_length_is_good_up_to_ten_times_the_median(length, good):
    round_ = judged(2.0, 2.0, length)

    assert [one.robot for one in round_.accepted] == ["r0", "r1", "r2"][: 2 + good]
    assert [one.robot for one in round_.others] == ["r2"][good:]


def test_whoever_is_too_long_is_told_by_how_much():
    (other,) = judged(2.0, 2.0, 20.2).others

    assert other.verdict.text == (
        "refused: its length (L2) 20.2 is 10.1 times the median 2 of recent updates, "
        "expected at most 10 times (checks.max_norm_ratio)"
    )


def test_lengths_of_rounds_before_count_for_the_median():
    assert [one.robot for one in judged(19.8, 20.2, before=(2.0,) * 4).accepted] == ["r0"]
