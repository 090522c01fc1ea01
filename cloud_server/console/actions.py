"""All buttons of the console, by the name in their path."""

from collections.abc import Mapping

from cloud_server.console import fleet_buttons as fleet
from cloud_server.console import model_buttons as models
from cloud_server.console.buttons import Action

ROBOTS, RUNS, MODELS = "/console", "/console/runs", "/console/models"
_OF_VERSION = ("version", "lineage")
ACTIONS: Mapping[str, Action] = {
    "approve": Action(
        title="Approve a robot", button="Approve", back=ROBOTS, given=("robot",),
        ask=fleet.ask_approve, do=fleet.approve,
    ),
    "suspend": Action(
        title="Suspend a robot", button="Suspend", back=ROBOTS, given=("robot",), danger=True,
        ask=fleet.ask_suspend, do=fleet.suspend,
    ),
    "admit": Action(
        title="Admit a robot", button="Admit", back=ROBOTS, given=("key",),
        ask=fleet.ask_admit, do=fleet.admit,
    ),
    "run": Action(title="Start a run", button="Start", back=RUNS, ask=fleet.ask_run, do=fleet.run),
    "stop": Action(
        title="Stop a run", button="Stop it", back=RUNS, given=("run",), danger=True,
        ask=fleet.ask_stop, do=fleet.stop,
    ),
    "publish": Action(
        title="Publish a version that was held back", button="Publish", back=MODELS,
        given=_OF_VERSION, danger=True, ask=models.ask_publish, do=models.publish,
    ),
    "promote": Action(
        title="Promote a version", button="Promote", back=MODELS, given=_OF_VERSION,
        ask=models.ask_promote, do=models.promote,
    ),
    "rollback": Action(
        title="Roll back", button="Roll back", back=MODELS, given=_OF_VERSION, danger=True,
        ask=models.ask_rollback, do=models.rollback,
    ),
    "rollout-advance": Action(
        title="Open the next group", button="Open it", back=MODELS, given=("channel",),
        ask=models.ask_rollout(
            "the next group of robots gets it now, whatever robots have reported; after the last "
            "one, all robots."
        ),
        do=models.change("advance"),
    ),
    "rollout-halt": Action(
        title="Halt a rollout", button="Halt", back=MODELS, given=("channel",), danger=True,
        ask=models.ask_rollout("no further robot takes it; those that have it keep it."),
        do=models.change("halt"),
    ),
    "rollout-resume": Action(
        title="Let a rollout go on", button="Go on", back=MODELS, given=("channel",),
        ask=models.ask_rollout("it goes on; the robots for which it was halted count no more."),
        do=models.change("resume"),
    ),
    "rollout-abort": Action(
        title="Take a rollout back", button="Take it back", back=MODELS, given=("channel",),
        danger=True,
        ask=models.ask_rollout("all robots get version {present} again, as version {fallback}."),
        do=models.change("abort"),
    ),
}  # fmt: skip
