"""Record scenarios and cut their power: python tests/power_cuts/run_scenarios.py [NAME ...].

Exit code 0: every state was right; 3: a wrong state was found; 2: a scenario failed by itself; 77:
this machine does not permit to trace an own child process.
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the packages beside these tests
sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[2] / "ros2_ws/src/edge_perception"))

import reached
from power_cuts import Scenario, WrongStateError, cut_everywhere
from tracer import NotPermittedError, TracingError

# Name -> where the scenario is; cheap ones first. Modules are loaded when a scenario is run.
SCENARIOS = {
    "register": "server_scenarios:REGISTER",
    "run": "server_scenarios:RUN",
    "schedule": "server_scenarios:SCHEDULE",
    "offenses": "server_scenarios:OFFENSES",
    "last-seen": "server_scenarios:LAST_SEEN",
    "history": "server_scenarios:HISTORY",
    "totals": "server_scenarios:TOTALS",
    "checkpoints": "server_scenarios:CHECKPOINTS",
    "publish": "server_scenarios:PUBLISH",
    "rollback": "server_scenarios:ROLLBACK",
    "journal": "round_scenarios:JOURNAL",
    "conditions": "round_scenarios:CONDITIONS",
    "pause": "robot_scenarios:PAUSE",
    "move": "robot_scenarios:MOVE",
    "status": "robot_scenarios:STATUS",
    "trained-moments": "robot_scenarios:TRAINED_MOMENTS",
    "enroll": "robot_scenarios:ENROLL",
    "install": "robot_scenarios:INSTALL",
    "first-install": "robot_scenarios:FIRST_INSTALL",
    "install-on-fat": "robot_scenarios:INSTALL_ON_FAT",
    "switch-channel": "robot_scenarios:SWITCH_CHANNEL",
    "models-on-trial": "robot_scenarios:ON_TRIAL",
    "adopt-older-robot": "robot_scenarios:ADOPT",
    "trainer": "robot_scenarios:TRAINER",
    "own-tensors": "personal_scenarios:OWN_TENSORS_BESIDE",
    "own-tensors-on-fat": "personal_scenarios:OWN_TENSORS_ON_FAT",
    "rounds": "round_scenarios:ROUNDS",
    "kept-examples": "data_scenarios:KEPT_EXAMPLES",
    "example-index": "data_scenarios:EXAMPLE_INDEX",
    "features": "feature_scenarios:FEATURES",
    "control-variates": "control_scenarios:CONTROL_VARIATES",
    "features-of-another-trunk": "feature_scenarios:ANOTHER_TRUNK",
    "sums-of-robots": "sums_scenarios:STORED",
    "sums-told": "sums_scenarios:TOLD",
    "sums-forgotten": "sums_scenarios:FORGOTTEN",
    "unlearn-behind-relay": "sums_scenarios:BEHIND",
    "privacy-account": "sums_scenarios:ACCOUNT",
    "profiles": "sums_scenarios:PROFILES",
    "profiles-told": "desk_scenarios:TOLD",
    "collect": "desk_scenarios:COLLECT",
    "pipeline": "pipeline_scenarios:PIPELINE",
    "residual": "residual_scenarios:RESIDUAL",
    "answers": "label_scenarios:LABELS",
    "teacher": "label_scenarios:TEACHER",
    "extract-folder": "data_scenarios:FOLDER",
    "extract-yolo": "data_scenarios:YOLO",
    "extract-coco": "data_scenarios:COCO",
    "extract-tfds": "data_scenarios:TFDS",
    "ingest": "data_scenarios:INGEST",
    "record": "recording_scenarios:RECORD",
    "first-recording": "recording_scenarios:FIRST_RECORDING",
    "reports": "report_scenarios:REPORTS",
    "departments-key": "init_scenarios:DEPARTMENTS_KEY",
    "import-out": "init_scenarios:IMPORT_OUT",
    "renew": "init_scenarios:RENEW",
    "init": "init_scenarios:INIT",
    "tokens": "server_scenarios:TOKENS",
    "add-channel": "init_scenarios:ADD_CHANNEL",
    "labels": "init_scenarios:RELABEL",
    "repair": "init_scenarios:REPAIR",
    "backup": "backup_scenarios:BACKUP",
    "restore": "backup_scenarios:RESTORE",
    "first-signature": "signing_scenarios:FIRST_SIGNATURE",
    "sign": "signing_scenarios:SIGN",
    "rotate-keys": "signing_scenarios:ROTATE_KEYS",
    "take-offline": "signing_scenarios:TAKE_OFFLINE",
    "take-online": "signing_scenarios:TAKE_ONLINE",
    "promote": "signing_scenarios:PROMOTE",
    "first-sync": "signing_scenarios:FIRST_SYNC",
    "sync": "signing_scenarios:SYNC",
    "assign": "signing_scenarios:ASSIGN",
    "assign-online": "rollout_scenarios:ASSIGN",
    "kept-site": "robot_scenarios:KEPT_SITE",
    "begin-rollout": "rollout_scenarios:BEGIN",
    "begin-rollout-offline": "rollout_scenarios:BEGIN_OFFLINE",
    "advance-rollout": "rollout_scenarios:ADVANCE",
    "advance-rollout-offline": "rollout_scenarios:ADVANCE_OFFLINE",
    "abort-rollout": "rollout_scenarios:ABORT",
    "abort-rollout-offline": "rollout_scenarios:ABORT_OFFLINE",
    "trust": "signing_scenarios:TRUST",
    "end-of-a-run": "publishing_scenarios:END_OF_A_RUN",
    "publish-newest": "publishing_scenarios:PUBLISH_NEWEST",
    "publish-older": "publishing_scenarios:PUBLISH_OLDER",
    "roll-back": "publishing_scenarios:ROLL_BACK",
    "prune": "publishing_scenarios:PRUNE",
    "unpin": "publishing_scenarios:UNPIN",
    "install-and-confirm": "installing_scenarios:INSTALL",
    "refuse": "installing_scenarios:REFUSE",
    "give-back": "installing_scenarios:GIVE_BACK",
    "give-back-at-start": "installing_scenarios:GIVE_BACK_AT_START",
    "roll-back-robot": "installing_scenarios:ROLL_BACK",
    "try-again": "installing_scenarios:TRY_AGAIN",
}
WRONG, NOT_TRIED, NOT_PERMITTED = 3, 2, 77


def run(name: str, *, seed: int = 0, most: int = 400) -> str:
    """Return a line about what was tried; raises as `cut_everywhere` does."""
    began = time.monotonic()
    report = cut_everywhere(load(name), seed=seed, most=most)
    seconds = time.monotonic() - began
    return f"{name}: right, {report.operations} operations, {report.states} states, {seconds:.1f} s"


def only_act(name: str) -> None:
    """Do what a scenario does, in a process of its own, and nothing else."""
    scenario = load(name)
    with tempfile.TemporaryDirectory() as folder:
        scenario.prepare(Path(folder))
        child = os.fork()
        if child == 0:
            reached.scenario = name
            try:
                scenario.act(Path(folder))
            finally:
                os._exit(0)
        os.waitpid(child, 0)


def load(name: str) -> Scenario:
    module, _, constant = SCENARIOS[name].partition(":")
    found = getattr(importlib.import_module(module), constant)
    assert isinstance(found, Scenario)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"all, or some of: {', '.join(SCENARIOS)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=int, default=400, help="states of each scenario")
    parser.add_argument("--only-act", action="store_true", help="cut no power")
    given = parser.parse_args()
    if given.only_act:
        for name in given.names or SCENARIOS:
            only_act(name)
        return 0
    return tell(given.names, lambda name: run(name, seed=given.seed, most=given.most))


def tell(names: list[str], attempt: Callable[[str], str]) -> int:
    """Try these scenarios, or all; print a line about each and return the exit code."""
    code = 0
    for name in names or SCENARIOS:
        try:
            print(attempt(name), flush=True, end="\n\n")
        except WrongStateError as error:
            print(f"{name}: WRONG STATE: {error}", flush=True, end="\n\n")
            code = code or WRONG
        except NotPermittedError as error:
            print(error, file=sys.stderr)
            return NOT_PERMITTED
        except TracingError as error:
            print(f"{name}: not tried: {error}", flush=True, end="\n\n")
            code = NOT_TRIED
    return code


if __name__ == "__main__":
    sys.exit(main())
