"""Whatever a power cut leaves, the old or the new state is found, and the next run heals it.

`make test` looks at some states of each scenario, `make soak` at all that are generated. To see one
again: python tests/power_cuts/run_scenarios.py NAME --seed SEED
"""

import datetime
import os

import pytest
from outcomes import require_right
from run_scenarios import SCENARIOS

SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
# `make test` is the same every day; `make soak` mixes the losses in another way each day.
SEED = str(datetime.date.today().toordinal()) if SOAK else "0"
MOST = "100000" if SOAK else "50"
pytestmark = pytest.mark.slow


OF_FAULTS = "publishing_scenarios", "installing_scenarios"  # see test_faults.py


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.soak] if place.startswith(OF_FAULTS) else [])
        for name, place in SCENARIOS.items()
    ],
)
def test_the_old_or_the_new_state_is_found_after_a_power_cut(name):
    require_right("run_scenarios.py", name, "--most", MOST, "--seed", SEED)
