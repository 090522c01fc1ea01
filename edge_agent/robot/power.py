"""The robot's battery, as the kernel reports it."""

from pathlib import Path
from typing import NamedTuple

SUPPLIES = Path("/sys/class/power_supply")


class Power(NamedTuple):
    """None is not known: many robots report nothing of their battery to the kernel."""

    battery: float | None = None  # percent, the mean of several
    charging: bool | None = None


def read_power(supplies: Path = SUPPLIES) -> Power:
    """Return what there is; costs a few reads of small files."""
    try:
        found = [_words(folder) for folder in sorted(supplies.iterdir())]
    except OSError:
        return Power()
    # A mouse has a battery, too: its scope is "Device".
    batteries = [w for w in found if w["type"] == "Battery" and w["scope"] != "Device"]
    levels = [float(w["capacity"]) for w in batteries if w["capacity"].isdigit()]
    if not batteries:
        return Power()
    states = {w["status"] for w in batteries}
    plugged = any(w["online"] == "1" for w in found if w["type"] != "Battery")
    charging = None
    if plugged or states & {"Charging", "Full"}:
        charging = True
    elif "Discharging" in states:
        charging = False
    mean = sum(min(level, 100.0) for level in levels) / len(levels) if levels else None
    return Power(mean, charging)


def _words(folder: Path) -> dict[str, str]:
    return {
        name: _word(folder / name) for name in ("type", "scope", "capacity", "status", "online")
    }


def _word(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:  # not every driver has every file, and a battery may be taken out
        return ""
