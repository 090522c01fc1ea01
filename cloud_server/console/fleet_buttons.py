"""Buttons over robots and runs: what `robots approve`, `robots add`, `train`, `runs stop` call."""

from cloud_server.console.buttons import Confirmation, Field, Given, number
from cloud_server.console.desk import Desk
from cloud_server.robots.register import Register, Robot
from cloud_server.state.words import names
from fleet_model.errors import RoundError, SettingsError

MAX_ROUNDS = 10_000
SUSPENDED = "suspended by the operator"  # as `robots suspend` says it


def _robot(desk: Desk, given: Given) -> Robot:
    name = given.get("robot", "")
    found = desk.overview.register.by_name(name)
    if found is None:
        raise SettingsError(f"there is no robot {name[:80]!r} in the register")
    return found


def _register(desk: Desk) -> Register:
    return desk.overview.register


def ask_approve(desk: Desk, given: Given) -> Confirmation:
    """Say who is let in."""
    robot = _robot(desk, given)
    if robot.state == "approved":
        raise SettingsError(f"robot {robot.name} is approved already")
    why = f" ({robot.reason})" if robot.reason else ""
    return Confirmation(
        words=[
            f"Robot {robot.name} of site {robot.site} is {robot.state}{why}. It may take part in "
            "training from now on.",
            "Its refused updates are counted anew.",
            f"Its key is {robot.fingerprint}.",
        ]
    )


def approve(desk: Desk, given: Given) -> str:
    """Let a robot take part, as `robots approve`."""
    robot = _register(desk).approve(_robot(desk, given).name)
    return f"robot {robot.name} is approved"


def ask_suspend(desk: Desk, given: Given) -> Confirmation:
    """Say what is left to it."""
    robot = _robot(desk, given)
    return Confirmation(
        words=[
            f"Robot {robot.name} of site {robot.site} is left out of training until somebody "
            "approves it again. It goes on following models.",
        ],
        fields=[
            Field(name="reason", label="What the robot and its owner are told", value=SUSPENDED)
        ],
    )


def suspend(desk: Desk, given: Given) -> str:
    """Leave a robot out, as `robots suspend`."""
    reason = given.get("reason", "").strip() or SUSPENDED
    robot = _register(desk).suspend(_robot(desk, given).name, reason)
    return f"robot {robot.name} is suspended"


def _waiting_key(desk: Desk, given: Given) -> str:
    fingerprint = given.get("key", "")
    known = [robot.key for robot in _register(desk).robots()]
    for one in desk.overview.seen.waiting(known):
        if one.fingerprint == fingerprint:
            return str(one.key)
    raise SettingsError("this key does not ask any more, or is in the register already")


def ask_admit(desk: Desk, given: Given) -> Confirmation:
    """Ask for a name, and say what a key is."""
    _waiting_key(desk, given)
    return Confirmation(
        words=[
            f"The key {given['key']} is admitted under the name that you give. Compare it with "
            "what `edge-agent enroll` has printed on the robot: whoever holds it is that robot.",
        ],
        fields=[
            Field(name="name", label="Name of the robot", hint="letters, digits, '.', '_', '-'"),
            Field(name="site", label="Site", value="default", hint="group of robots it belongs to"),
        ],
    )


def admit(desk: Desk, given: Given) -> str:
    """Add an unknown key, as `robots add`."""
    key = _waiting_key(desk, given)
    robot = _register(desk).add(given.get("name", "").strip(), given.get("site", "").strip(), key)
    return f"robot {robot.name} of site {robot.site} is admitted"


def ask_run(desk: Desk, _: Given) -> Confirmation:
    """Say who is there, and ask for how long."""
    status = desk.status()
    active = next((run for run in status.runs if run.active), None)
    if active is not None:
        raise RoundError(f"run {active.id} is going on; wait until it has ended, or stop it")
    online = [robot.name for robot in status.robots if robot.online]
    able = [r.name for r in status.robots if r.online and r.state == "approved"]
    rounds = desk.settings.rounds
    many = f"{rounds.target} of them are asked" if rounds.target else "all of them are asked"
    return Confirmation(
        words=[
            f"{len(online)} robots are connected, {len(able)} of them are approved: {names(able)}. "
            f"In each round {many}; a round closes with at least {rounds.quorum} good updates.",
            f"What the run makes is published on channel {desk.settings.publish.channel} if robots "
            "measure that it is no worse than what they run.",
        ],
        fields=[Field(name="rounds", label="Rounds", value="3", kind="number", hint="1 to 10000")],
    )


def run(desk: Desk, given: Given) -> str:
    """Start a run, as `train`."""
    run = desk.runs.start(number(given, "rounds", "rounds", least=1, most=MAX_ROUNDS))
    return f"run {run.id} has begun"


def ask_stop(desk: Desk, given: Given) -> Confirmation:
    """Say what is lost."""
    run = desk.runs.get(given.get("run", ""))
    if run is None or not run.active:
        raise RoundError("this run has ended, or there is none")
    return Confirmation(
        words=[
            f"Run {run.id} ends soon: its open round is left, what has closed "
            f"({run.rounds_closed} of {run.rounds} rounds) is published.",
        ]
    )


def stop(desk: Desk, given: Given) -> str:
    """End a run soon, as `runs stop`."""
    run = desk.runs.stop(given.get("run", ""))
    return f"run {run.id} ends after {run.rounds_closed} closed rounds"
