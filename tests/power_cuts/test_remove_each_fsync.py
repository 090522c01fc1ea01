"""Removing any fsync is noticed. `make test` removes three drawn ones, `make soak` each of them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from remove_each_fsync import DURABLE, NEEDLESS, SYNCS, sites, syncing_functions
from run_scenarios import NOT_PERMITTED

HERE = Path(__file__).parent
SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"


@pytest.mark.slow
def test_removing_an_fsync_is_noticed_by_a_wrong_state():
    chosen = [] if SOAK else ["--draw", "3"]
    command = [sys.executable, HERE / "remove_each_fsync.py", *chosen]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == NOT_PERMITTED:
        pytest.skip("POWER CUTS ARE NOT TESTED: this machine does not permit ptrace")
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    noticed = [line for line in done.stdout.splitlines() if " s)" in line]
    assert len(noticed) == (len({s for s in sites() if s.name not in NEEDLESS}) if SOAK else 3)


def test_every_call_that_syncs_is_found():
    found = {site.name for site in sites()}
    assert f"{DURABLE}:writing:fsync" in found
    assert f"{DURABLE}:sync_file_system:syncfs" in found
    assert "cloud_server/state/checkpoints.py:Checkpoints.save:rename_durably" in found
    assert "edge_agent/models/deploy.py:Models._use:point_durably" in found


def test_what_needs_no_scenario_is_still_there():
    assert set(NEEDLESS) <= {site.name for site in sites()}


def test_functions_that_only_read_are_no_syncs():
    assert {"write_durably", "make_directory", "link_or_copy"} <= syncing_functions()
    assert "pointed" not in syncing_functions()


def test_files_are_synced_in_one_place():
    """One exception: the journal of an extraction syncs the descriptor that it holds open."""
    direct = {site.file for site in sites() if site.called in SYNCS}
    assert direct == {DURABLE, "edge_agent/data/extraction/journal.py"}
