from datetime import datetime
from types import SimpleNamespace

import pytest

from edge_agent.robot.power import Power
from edge_agent.robot.settings import load_settings
from edge_agent.robot.train_when import Gate, Machine, TrainWhen
from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base


def at(hour, minute=0):
    return Machine(now=lambda: datetime(2026, 1, 1, hour, minute))


def test_without_rules_a_robot_may_always_train():
    assert Gate(TrainWhen()).closed() == ""


@pytest.mark.parametrize(
    ("hours", "hour", "minute", "is_open"),
    [
        ("22:00-06:00", 23, 0, True),
        ("22:00-06:00", 5, 59, True),
        ("22:00-06:00", 6, 0, False),
        ("22:00-06:00", 21, 59, False),
        ("01:30-02:00", 1, 30, True),
        ("01:30-02:00", 2, 0, False),
    ],
)
def test_hours_hold_to_the_minute_over_midnight_too(hours, hour, minute, is_open):
    reason = Gate(TrainWhen(hours=hours), at(hour, minute)).closed()

    assert reason == ("" if is_open else f"it trains at {hours} only")


@pytest.mark.parametrize(
    ("rules", "power", "reason"),
    [
        ({"min_battery": 40}, Power(39.6), "battery 40 %, below 40 %"),
        ({"min_battery": 40}, Power(40.0), ""),
        ({"min_battery": 40}, Power(None, True), "its battery is not known"),
        ({"charging": True}, Power(90.0, True), ""),
        ({"charging": True}, Power(90.0, False), "it is not charging"),
        ({"charging": True}, Power(), "charging is not known"),
        ({"charging": True, "min_battery": 95}, Power(90.0, True), "battery 90 %, below 95 %"),
    ],
)
def test_power_that_does_not_suffice_or_is_not_known_closes_the_gate(rules, power, reason):
    gate = Gate(TrainWhen(**rules), Machine(power=lambda: power))

    assert gate.closed() == reason


def test_the_hottest_zone_that_can_be_read_counts(tmp_path):
    gate = Gate(TrainWhen(max_temperature_c=75), Machine(zones=tmp_path))
    assert gate.closed() == "its temperature is not known"
    for number, content in enumerate(("61000", "75000", "asleep")):
        (tmp_path / f"thermal_zone{number}").mkdir()
        (tmp_path / f"thermal_zone{number}" / "temp").write_text(content)
    assert gate.closed() == ""

    (tmp_path / "thermal_zone1" / "temp").write_text("75500\n")

    assert gate.closed() == "76 degrees C, above 75"


def test_other_work_counts_since_the_last_look_and_niced_work_does_not():
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    times = SimpleNamespace(**dict.fromkeys(names, 100.0))
    gate = Gate(TrainWhen(max_load=50), Machine(cpu_times=lambda: times))
    assert gate.closed() == ""  # nothing has passed

    times.nice += 9
    times.user += 1
    assert gate.closed() == ""

    times.user += 6
    times.idle += 4
    assert gate.closed() == "other work takes 60 % of its cores"

    times.idle += 10
    assert gate.closed() == ""


def test_a_gate_file_lies_where_agent_toml_says_and_its_path_is_not_told(tmp_path):
    text = '[server]\naddress = "localhost:1"\n[train_when]\nfile = "docked"\n'
    (tmp_path / "agent.toml").write_text(text)
    gate = Gate(load_settings(tmp_path, {}).train_when)

    assert gate.closed() == "its gate file is not there"
    (tmp_path / "docked").touch()
    assert gate.closed() == ""


@pytest.mark.parametrize("hours", ["22-6", "25:00-06:00", "always", "22:00-06:00 "])
def test_hours_that_are_none_are_refused_with_an_example(hours, tmp_path):
    text = f'[server]\naddress = "localhost:1"\n[train_when]\nhours = "{hours}"\n'
    (tmp_path / "agent.toml").write_text(text)

    with pytest.raises(
        SettingsError, match=r'train_when\.hours.*two times of a day, as "22:00-06:00"'
    ):
        load_settings(tmp_path, {})
