"""When this robot may train: by its clock, other work, temperature, power, or a file."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from edge_agent.robot.power import Power, read_power
from fleet_model.settings import Expected, Section

ZONES = Path("/sys/class/thermal")


def _hours(text: str) -> str:
    if text and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", text):
        raise ValueError('expected two times of a day, as "22:00-06:00"')
    return text


def _no_value(value: Any) -> Any:
    return None if value == "" else value


class TrainWhen(Section):
    """When this robot may train: all that is set must hold, else a training stops in a second."""

    hours: Annotated[
        str, AfterValidator(_hours), Expected('two times of a day, as "22:00-06:00"')
    ] = Field(default="", description='By the robot\'s clock, e.g. "22:00-06:00"; empty: always.')
    max_load: float = Field(
        default=100,
        gt=0,
        le=100,
        description="Percent of all processor cores that other work may take. Niced work, as "
        "training itself, is not counted.",
    )
    max_temperature_c: Annotated[float | None, BeforeValidator(_no_value)] = Field(
        default=None, description="Of the hottest thermal zone.", examples=[75]
    )
    min_battery: float = Field(default=0, ge=0, le=100, description="Percent.")
    charging: bool = Field(default=False, description="true: only while charging or plugged in.")
    file: Annotated[Path | None, BeforeValidator(_no_value)] = Field(
        default=None,
        description="Only while this file is there, e.g. one that a docking node makes and "
        "removes.",
        examples=["/run/robot/docked"],
    )


@dataclass(slots=True)
class Machine:
    """What a gate looks at."""

    now: Callable[[], datetime] = datetime.now  # the robot's own time: people set `hours` by it
    power: Callable[[], Power] = read_power
    cpu_times: Callable[[], Any] | None = None  # of psutil
    zones: Path = ZONES


class Gate:
    """Tells why this robot may not train now; costs a few reads of small files."""

    def __init__(self, rules: TrainWhen, machine: Machine | None = None) -> None:
        """Look at nothing yet, but for the processor's counters."""
        self._rules, self._machine = rules, machine or Machine()
        self._before = (0.0, 0.0)
        if rules.max_load < 100:
            self._before = self._times()

    def closed(self) -> str:
        """Return the reason, a short line that may leave the robot; "" if it may train.

        What a rule needs and the robot does not know closes it, too.
        """
        rules, now = self._rules, self._machine.now
        if rules.hours and not _within(rules.hours, now().time()):
            return f"it trains at {rules.hours} only"
        if rules.file is not None and not rules.file.exists():
            return "its gate file is not there"
        return self._of_power() or self._of_heat() or self._of_load()

    def _of_power(self) -> str:
        rules = self._rules
        if not (rules.min_battery or rules.charging):
            return ""
        power = self._machine.power()
        if rules.charging and not power.charging:
            return "it is not charging" if power.charging is False else "charging is not known"
        if rules.min_battery and power.battery is None:
            return "its battery is not known"
        if power.battery is not None and power.battery < rules.min_battery:
            return f"battery {power.battery:.0f} %, below {rules.min_battery:g} %"
        return ""

    def _of_heat(self) -> str:
        most = self._rules.max_temperature_c
        if most is None:
            return ""
        hottest = _hottest_c(self._machine.zones)
        if hottest is None:
            return "its temperature is not known"
        return f"{hottest:.0f} degrees C, above {most:g}" if hottest > most else ""

    def _of_load(self) -> str:
        """Compare with the last look; the first one knows nothing."""
        most = self._rules.max_load
        if most >= 100:
            return ""
        before, self._before = self._before, self._times()
        work, total = (now - then for now, then in zip(self._before, before, strict=True))
        percent = 100 * work / total if total > 0 else 0.0
        return f"other work takes {percent:.0f} % of its cores" if percent > most else ""

    def _times(self) -> tuple[float, float]:
        """Return seconds of other work, and of all cores; guests are within the others' time."""
        import psutil

        times = (self._machine.cpu_times or psutil.cpu_times)()
        work = times.user + times.system + times.irq + times.softirq + times.steal
        return work, work + times.nice + times.idle + times.iowait


def _within(hours: str, now: time) -> bool:
    begin, end = map(time.fromisoformat, hours.split("-"))
    return begin <= now < end if begin < end else now >= begin or now < end


def _hottest_c(zones: Path) -> float | None:
    found = []
    for file in zones.glob("thermal_zone*/temp"):
        try:
            found.append(int(file.read_text()) / 1000)
        except (OSError, ValueError):  # a sensor that is asleep
            continue
    return max(found, default=None)
