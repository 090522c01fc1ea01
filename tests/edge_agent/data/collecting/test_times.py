"""Moments as platforms write them."""

import time

import pytest

from edge_agent.data.collecting.times import moment_of


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1700000000, "2023-11-14T22:13:20Z"),
        ("1700000000123", "2023-11-14T22:13:20Z"),
        (1700000000123456, "2023-11-14T22:13:20Z"),
        (1700000000123456789, "2023-11-14T22:13:20Z"),
        ("2023-11-14", "2023-11-14T00:00:00Z"),
        ("2023-11-14T23:13:20+01:00", "2023-11-14T22:13:20Z"),
        ("2023-11-14T22:13:20.5Z", "2023-11-14T22:13:20Z"),
        ("Tue, 14 Nov 2023 22:13:20 GMT", "2023-11-14T22:13:20Z"),
        ("Tue Nov 14 22:13:20 +0000 2023", "2023-11-14T22:13:20Z"),
        *((nothing, "") for nothing in ("yesterday", "", None, -5, 0, "nan", "inf", 10**30)),
        ("20240115", "2024-01-15T00:00:00Z"),
        ("2024", ""),
        (2024, ""),
        ("9999-12-31T23:59:59-12:00", ""),
    ],
)
def test_a_moment_is_written_in_one_way(value, expected):
    assert moment_of(value) == expected


def test_a_moment_without_a_zone_is_in_utc_wherever_the_machine_stands(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert moment_of("2023-11-14T22:13:20") == "2023-11-14T22:13:20Z"
        assert moment_of(1700000000) == "2023-11-14T22:13:20Z"
    finally:
        monkeypatch.undo()
        time.tzset()
