"""Batteries as Linux shows them."""

import pytest

from edge_agent.robot.power import Power, read_power

pytestmark = pytest.mark.base

PACK = {"type": "Battery", "scope": "System"}


@pytest.fixture
def supplies(tmp_path):
    """Return a writer of a folder like /sys/class/power_supply."""

    def write(*found):
        for number, words in enumerate(found):
            (tmp_path / f"supply{number}").mkdir()
            for name, word in words.items():
                (tmp_path / f"supply{number}" / name).write_text(f"{word}\n")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], Power()),
        ([{"type": "Mains", "online": 1}], Power()),
        ([PACK | {"capacity": 81, "status": "Discharging"}], Power(81.0, False)),
        ([PACK | {"capacity": 81, "status": "Charging"}], Power(81.0, True)),
        ([PACK | {"capacity": 100, "status": "Full"}], Power(100.0, True)),
        ([PACK | {"capacity": 104, "status": "Unknown"}], Power(100.0, None)),
        ([{"type": "Battery", "status": "Discharging"}], Power(None, False)),
        ([PACK | {"capacity": "?", "status": ""}], Power(None, None)),
        ([PACK | {"capacity": 80}, PACK | {"capacity": 40}], Power(60.0, None)),
        (  # on its dock, held at its level
            [
                PACK | {"capacity": 80, "status": "Not charging"},
                {"type": "USB", "online": 0},
                {"type": "Mains", "online": 1},
            ],
            Power(80.0, True),
        ),
        (  # a mouse
            [
                PACK | {"capacity": 80, "status": "Discharging"},
                PACK | {"scope": "Device", "capacity": 5, "status": "Charging"},
            ],
            Power(80.0, False),
        ),
    ],
)
def test_what_the_kernel_says(supplies, found, expected):
    assert read_power(supplies(*found)) == expected


def test_a_machine_without_such_a_folder_knows_nothing(tmp_path):
    assert read_power(tmp_path / "none") == Power()


def test_bytes_of_a_broken_driver_are_no_harm(supplies):
    folder = supplies(PACK | {"status": "Charging"})
    (folder / "supply0" / "capacity").write_bytes(b"\xff\xfe")
    assert read_power(folder) == Power(None, True)
