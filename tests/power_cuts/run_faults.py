"""Kill scenarios, or let their disk be full: python tests/power_cuts/run_faults.py [NAME ...].

Exit codes as of run_scenarios.py; a line about a wrong state says at which operation it was.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the packages beside these tests

from faults import KILL, KINDS, disturb_everywhere
from run_scenarios import SCENARIOS, load, tell

# Each try makes keys of its own, so what one has made cannot be compared with what another has.
AT_RANDOM = {"enroll", "renew"}
COMPARED = [name for name in SCENARIOS if name not in AT_RANDOM]
# What these keep is worth less than what goes on beside it. A full disk is told in a line of the
# log, and what could not be written comes back with the next update, answer, or look at the model.
TOLD_ONLY = {"offenses", "last-seen", "move", "trained-moments", "models-on-trial"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"all, or some of: {', '.join(COMPARED)}")
    parser.add_argument("--kind", action="append", choices=KINDS, help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=10**6, help="points of each kind")
    given = parser.parse_args()

    def run(name: str) -> str:
        began = time.monotonic()
        kinds = [KILL] if name in TOLD_ONLY else given.kind or KINDS
        points = disturb_everywhere(load(name), kinds=kinds, seed=given.seed, most=given.most)
        told = ", ".join(f"{kind} at {number} operations" for kind, number in points.items())
        return f"{name}: right, {told}, {time.monotonic() - began:.1f} s"

    return tell(given.names or COMPARED, run)


if __name__ == "__main__":
    sys.exit(main())
