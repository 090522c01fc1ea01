"""What is said of an agent, by value."""

import pytest

from edge_agent.kubernetes.observed import Observed
from edge_agent.kubernetes.reconcile import Said, status_object, status_of
from fleet_model.kubernetes.robot_model import TriedVersion

NOW, BEFORE = "2026-01-01T00:00:10Z", "2026-01-01T00:00:00Z"
ROLLED = {
    "metadata": {"generation": 2},
    "status": {"observedGeneration": 2, "desiredNumberScheduled": 1, "updatedNumberScheduled": 1,
               "numberReady": 1},
}  # fmt: skip
APPLIED = Said("True", "Applied", "EDGE_AGENT_SERVER__CHANNEL=stable")
FINE = {"state": "idle", "channel": "stable", "active_version": 7}


def model(conditions=()):
    return {"metadata": {"name": "front", "generation": 4}, "spec": {"channel": "stable"},
            "status": {"conditions": list(conditions)}}  # fmt: skip


def said(seen, daemon_set=ROLLED, applied=APPLIED):
    status = status_of(model(), applied, daemon_set, Observed(**seen), NOW)
    one = status.condition("Ready")
    return one.status, one.reason, one.message


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (FINE, ("True", "Following", "runs version 7 of channel stable")),
        ({**FINE, "channel": ""}, ("True", "Following", "runs version 7 of channel stable")),
        ({**FINE, "state": "training"}, ("True", "Following", "runs version 7 of channel stable")),
        ({}, ("Unknown", "NoStatus", "the agent has not written a status yet")),
        ({"reason": "damaged"}, ("Unknown", "NoStatus", "damaged")),
        ({**FINE, "channel": "canary"},
         ("False", "RollingOut", "the agent still follows channel canary")),
        ({**FINE, "state": "stopped"}, ("False", "AgentStopped", "the agent has ended")),
        ({**FINE, "state": "refused", "reason": "revoked"},
         ("False", "RefusedByServer", "revoked")),
        ({**FINE, "active_version": None}, ("False", "NoModel", "no model came yet")),
        ({**FINE, "active_version": 0}, ("True", "Following", "runs version 0 of channel stable")),
        ({**FINE, "not_installed": "the disk is full"},
         ("False", "NotInstalled", "runs version 7; newest: the disk is full")),
        ({**FINE, "not_installed": "worse", "tried": TriedVersion(version=8, state="refused")},
         ("False", "ModelRefused", "runs version 7; newest: worse")),
        ({**FINE, "state": "offline", "reason": "no route"},
         ("Unknown", "Offline", "runs version 7; no route")),
        ({**FINE, "tried": TriedVersion(version=7, state="probation")},
         ("False", "OnProbation", "version 7 is on probation")),
        ({**FINE, "tried": TriedVersion(version=7, state="confirmed")},
         ("True", "Following", "runs version 7 of channel stable")),
    ],
)  # fmt: skip
def test_whether_an_agent_runs_what_it_should(seen, expected):
    assert said(seen) == expected


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"observedGeneration": 1}, "RollingOut"),
        ({"updatedNumberScheduled": 0}, "RollingOut"),
        ({"numberReady": 0}, "RollingOut"),
        ({"desiredNumberScheduled": 0}, "NoRobot"),
    ],
)
def test_whether_its_pod_is_as_it_should_be(changed, reason):
    daemon_set = {**ROLLED, "status": {**ROLLED["status"], **changed}}
    assert said(FINE, daemon_set)[:2] == ("False", reason)
    assert said(FINE, None)[:2] == ("False", "NoAgent")


def test_what_was_not_applied_is_not_ready():
    refused = Said("False", "SeveralRobots", "three")
    assert said(FINE, applied=refused) == ("False", "SeveralRobots", "three")


def test_a_condition_keeps_its_time_until_it_turns():
    def of(status):
        return {"type": "Ready", "status": status, "reason": "x", "lastTransitionTime": BEFORE}

    for before, time in (("True", BEFORE), ("False", NOW), ("Unknown", NOW)):
        status = status_of(model([of(before)]), APPLIED, ROLLED, Observed(**FINE), NOW)
        assert status.condition("Ready").last_transition_time == time
        assert status.condition("Applied").last_transition_time == NOW
        assert status.condition("Ready").observed_generation == 4


def test_what_is_not_known_is_not_in_the_status():
    status = status_of(model(), APPLIED, ROLLED, Observed(state="idle", active_version=0), NOW)
    written = status_object(model(), status)["status"]
    assert written["activeVersion"] == 0
    assert written.keys() == {
        "observedGeneration", "reportedAt", "agentState", "activeVersion", "conditions",
    }  # fmt: skip
