"""What benchmarks.ros_latency counts, where a mistake would flatter one side."""

import pytest

from benchmarks import ros_latency
from benchmarks.ros_camera import Look
from benchmarks.ros_latency import HD, VGA, Case


def a_look(latency_ms, cpu_share=0.5):
    return Look(30.0, 30.0, cpu_share, list(latency_ms))


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        (range(1, 101), 99, 99),
        (range(1, 101), 50, 50),
        ([5.0], 99, 5.0),
        ([3, 1, 2], 50, 2),
        ([3, 1, 2, 9], 99, 9),
    ],
)
def test_a_percentile_is_a_measured_value_and_never_too_small(values, percent, expected):
    assert ros_latency.percentile(list(values), percent) == expected


def test_a_node_that_answers_nothing_is_not_the_fastest():
    with pytest.raises(SystemExit, match="a node answered nothing"):
        ros_latency.percentile([], 99)


def test_ratios_are_the_peers_over_ours_and_named_by_what_was_sent():
    looks = {}
    for arm, factor in (("ours", 1), ("plain", 3)):
        for transport, size, load in (
            ("compressed", HD, "30hz"),
            ("compressed", HD, "overload"),
            ("compressed", VGA, "overload"),
            ("raw", HD, "30hz"),
        ):
            turns = [a_look([factor * ms], 0.1 * factor) for ms in (10, 30, 20)]
            looks[Case(arm, transport, size, load)] = turns
    answer = ros_latency.result(looks, {HD: [50.0, 70.0, 60.0]})
    ratios = {c.key: (c.ours, round(c.ratio, 6), c.required) for c in answer.comparisons}
    assert ratios == {
        "cpu_30hz": (0.1, 3, 1.2),
        "p99_30hz": (20, 3, 0),
        "p99_overload": (20, 3, 4),
        "p99_overload_640": (20, 3, 0),
        "cpu_30hz_raw": (0.1, 3, 0),
        "p99_30hz_raw": (20, 3, 0),
    }
    assert answer.figures["sustained_1280x720_hz"] == 60
    assert answer.figures["ours_compressed_640x480_overload_p95_ms"] == 20
