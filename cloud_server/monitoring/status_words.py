"""What happened and what there is to do, in plain words."""

from collections.abc import Mapping, Sequence
from typing import Any

from cloud_server.monitoring.fleet_status import FleetStatus
from cloud_server.monitoring.robot_status import RobotStatus
from cloud_server.rounds.progress import OpenRoundStatus
from cloud_server.runs.runs import Run
from cloud_server.state.clock import age
from cloud_server.state.round_record import RobotRecord, RoundRecord
from cloud_server.state.verdict_log import not_counted
from cloud_server.state.words import NAMED, clusters_in_words, names, privacy_in_words
from fleet_model.errors import one_line
from fleet_model.protocol.example_counts import is_count, tell_labels, tell_left_out
from fleet_model.protocol.outcome import OutcomeKind
from fleet_model.protocol.routes import channel_and_site
from fleet_model.protocol.trial import BACK, CONFIRMED, PROBATION, REFUSED, TrialOutcome
from fleet_model.types import Metrics

MAX_IN_COMMAND = 100  # robots
MAX_WAITING = 5  # unknown keys: strangers must not push everything else off the screen
# Robots that need no reason each -> how the sentence about them begins.
GROUPS: Mapping[OutcomeKind, str] = {
    "accepted": "accepted",
    "busy": "busy",
    "no_reply": "no reply from",
    "offline": "gone offline",
    "not_admitted": "suspended, revoked or forgotten at work",
    "not_reached": "not reached",
}


def answer_of(status: FleetStatus) -> dict[str, Any]:
    """Return what `cloud-server status` shows: JSON values, and sentences about them."""
    return {**status.as_json(), "words": tell(status)}


def tell(status: FleetStatus) -> list[str]:
    """Return sentences: the open round, the last round, the last run, then what needs a person."""
    lines = list(status.missing)
    if status.open_round is not None:
        lines.append(_open_round(status.open_round))
    if status.last_round is not None:
        lines += _last_round(status.last_round)
    if status.runs:
        lines += _run(status.runs[-1], status.taken_up)
    if status.closed_form is not None:
        lines += status.closed_form.sentences()
    if status.release is not None:
        lines += status.release.sentences()
    lines += _answers("second answers, which are not counted", status.answered_again)
    lines += _answers("answers to questions that were over", status.answered_late)
    lines += _answers("replies that came again, which count once at most", status.repeated)
    lines += _answers("replies that were too large, which are refused", status.too_large)
    lines += _answers("replies whose objects had false names, which are refused", status.misnamed)
    lines += _robots(status.robots)
    lines += _trials(status.robots)
    lines += [line for rollout in status.rollouts for line in rollout.sentences()]
    lines += _sites(status)
    lines += _of_another_server(status)
    lines += name_no_server(
        [r.name for r in status.robots if r.names_server is False and r.state != "revoked"]
    )
    for key in status.waiting[:MAX_WAITING]:
        lines.append(f"unknown key {key.fingerprint} asks to take part; to admit it: {key.reason}")
    if (more := len(status.waiting) - MAX_WAITING) > 0:
        lines.append(f"{more} more unknown keys ask to take part")
    return [one_line(line) for line in lines]


def _open_round(now: OpenRoundStatus) -> str:
    which = f"run {now.run} round {now.round}"
    if now.waits:
        return (
            f"{which} waits since {age(now.seconds)} and gives up in {age(now.seconds_left)}: "
            f"{now.waits}"
        )
    waiting = f"; waits since {age(now.seconds)} for {now.whom}" if now.awaited else ""
    return (
        f"{which}: {now.asked} robots asked, {now.answered} answered, "
        f"{now.good} good updates, {now.seconds_left:.0f} s left{waiting}"
    )


def _last_round(record: RoundRecord) -> list[str]:
    robots = record.robots
    groups = {
        begin: [robot.name for robot in robots if robot.outcome.kind == kind]
        for kind, begin in GROUPS.items()
    }
    told = "; ".join(f"{begin} {names(group)}" for begin, group in groups.items() if group)
    late = f"; {record.late} updates came too late" if record.late else ""
    lines = [
        f"run {record.run} round {record.round} closed in {record.seconds:.1f} s with version "
        f"{record.version}: {told or 'nobody took part'}{late}"
    ]
    lines += _traffic(record)
    if _measures(record.metrics):
        lines.append(f"held-out, mean and range over robots: {_measured(record)}")
    if capped := not_counted(record):
        told = names(f"{name} ({words})" for name, words in capped)
        lines.append(f"accepted, but not in full: {told}")
    if left_out := tell_left_out(record.left_out):
        lines.append(f"left out by robots: {left_out}")
    if record.label_counts:
        lines.append(f"examples of robots, by label: {tell_labels(record.label_counts)}")
    if record.privacy:
        lines.append(privacy_in_words(record.privacy))
    if record.clusters:
        lines.append(f"models of sites, in {clusters_in_words(record.clusters)}")
    lines += record.site_notes
    lines += [f"WARNING: {warning}" for warning in record.warnings]
    others = [robot for robot in robots if robot.outcome.kind not in GROUPS]
    return lines + _one_by_one(others)


def _traffic(record: RoundRecord) -> list[str]:
    """Say what tensors weighed on their way, by how they travelled."""
    sent: dict[str, list[int]] = {}
    for robot in record.robots:
        if robot.update_bytes:
            sent.setdefault(robot.codec, []).append(robot.update_bytes)
    told = [
        f"{sum(sizes) / len(sizes) / 1e3:.1f} kB from each of {len(sizes)} in {codec}"
        for codec, sizes in sorted(sent.items())
    ]
    if not told:
        return []
    return [f"tensors: {', '.join(told)}; {record.request_bytes / 1e3:.1f} kB to each robot"]


def _measured(record: RoundRecord) -> str:
    """Return every mean with the range behind it, where there is one."""

    def one(name: str, mean: float) -> str:
        low, high = record.spread.get(name, (mean, mean))
        return f"{name} {mean:.3f}" + (f" ({low:.3f} to {high:.3f})" if low < high else "")

    return ", ".join(one(name, mean) for name, mean in _measures(record.metrics).items())


def _measures(metrics: Metrics) -> Metrics:
    """Return what was measured, without what is counted."""
    return {name: value for name, value in metrics.items() if not is_count(name)}


def _one_by_one(robots: Sequence[RobotRecord]) -> list[str]:
    """Tell each reason: a refused or late update or a failure differs from robot to robot."""
    lines = [f"robot {r.name}: {r.outcome.text}" for r in robots[:NAMED]]
    if (rest := len(robots) - NAMED) > 0:
        lines.append(
            f"{rest} more robots were refused, late or failed; see `cloud-server history DIR`"
        )
    return lines


def _run(run: Run, taken_up: Mapping[str, int]) -> list[str]:
    lines = []
    if run.id in taken_up:
        lines.append(
            f"run {run.id} was taken up again after round {taken_up[run.id]}: the server had ended "
            "in the middle of it"
        )
    if run.error:
        lines.append(f"run {run.id} {run.state}: {run.error}")
    return lines


def _answers(what: str, counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return []
    told = names(f"{name} ({count})" for name, count in counts.items())
    return [f"{what}, since the server started: {told}"]


def name_no_server(robots: Sequence[str]) -> list[str]:
    """Return a sentence about robots whose proofs do not name this server, if there are any."""
    if not robots:
        return []
    return [
        f"requests of {names(robots)} do not name this server: another server where the same key "
        "is admitted could repeat them here; update the agents"
    ]


def about_robot(robot: RobotStatus) -> list[str]:
    """Return why one robot needs a person, as `tell` says it."""
    return [one_line(_of_all(sentence, [robot.name])) for sentence in _robot(robot)]


def _robots(robots: Sequence[RobotStatus]) -> list[str]:
    """Tell who needs a person, one line for all robots of which the same is to be said."""
    lines: dict[str, list[str]] = {}  # sentence with {} for the robots -> their names
    for robot in robots:
        for sentence in _robot(robot):
            lines.setdefault(sentence, []).append(robot.name)
    told = [_of_all(sentence, group) for sentence, group in lines.items()]
    away = [r for r in robots if r.state == "approved" and r.away]
    if away:
        seen = (f"{r.name} ({_seen(r.last_seen_s)})" for r in away)
        told.append(f"offline: {names(seen)}")
    return told


def _trial(robot: RobotStatus) -> TrialOutcome | None:
    trial = (robot.report or {}).get("trial")
    return TrialOutcome.model_validate(trial) if trial else None


def _trials(robots: Sequence[RobotStatus]) -> list[str]:
    """Tell what became of the models that robots tried: of the newest who has it, and each no."""
    tried = [(robot.name, trial) for robot in robots if (trial := _trial(robot))]
    lines = []
    for state, how in ((CONFIRMED, "confirmed by"), (PROBATION, "on probation on")):
        newest = max((trial.version for _, trial in tried if trial.state == state), default=-1)
        group = [n for n, trial in tried if (trial.state, trial.version) == (state, newest)]
        if group:
            lines.append(f"version {newest} is {how} {names(group)}")
    for state, how in ((REFUSED, "refused by"), (BACK, "given back by")):
        for version in sorted({trial.version for _, trial in tried if trial.state == state}):
            of = [(n, t) for n, t in tried if (t.state, t.version) == (state, version)]
            told = names(f"{name} ({trial.reason})" for name, trial in of)
            lines.append(f"WARNING: version {version} is {how} {told}")
    return lines


def _sites(status: FleetStatus) -> list[str]:
    """Tell which sites have a version of their own, and which robots keep another site."""
    lines = []
    for offer, version in status.assigned.items():
        channel, site = channel_and_site(offer)
        lines.append(
            f"robots of site {site} on channel {channel} get version {version}, by `cloud-server "
            "models assign`"
        )
    for robot in status.robots:
        kept = (robot.report or {}).get("models_site", "")
        if kept and kept != robot.site:
            lines.append(
                f"robot {robot.name} gets models by site {kept}, which it was told first, and not "
                f"by site {robot.site}: on the robot, `edge-agent site {robot.site}`"
            )
    return lines


def _of_another_server(status: FleetStatus) -> list[str]:
    """Tell of robots that run higher versions than any channel has: numbers here only grow."""
    staged = [one.newest for one in status.rollouts]
    known = [*status.channels.values(), *status.assigned.values(), *staged]
    newest = max(known, default=None)
    if newest is None:
        return []
    told = [(r.name, v) for r in status.robots if (v := r.active_version or 0) > newest]
    if not told:
        return []
    return [
        f"WARNING: of a version that this server never made, its newest is {newest}: "
        f"{names(f'{name} (version {version})' for name, version in told)}; another server with "
        "the same keys lives, or this directory was copied back without `cloud-server restore`"
    ]


def _of_all(sentence: str, group: Sequence[str]) -> str:
    """Fill in one robot or many; a command gets them all, to be copied."""
    command = " ".join(group[:MAX_IN_COMMAND])
    if len(group) == 1:
        return sentence.format(who=f"robot {group[0]}", be="is", do="does", s="s", names=command)
    who = f"{len(group)} robots ({names(group)})"
    return sentence.format(who=who, be="are", do="do", s="", names=command)


def _seen(last_seen_s: float | None) -> str:
    return "never seen" if last_seen_s is None else f"seen {age(last_seen_s)} ago"


def _robot(robot: RobotStatus) -> list[str]:
    """Return sentences for `_of_all` to fill in."""
    lines = [f"{{who}} {{be}} refused: {_plain(robot.refusal)}"] if robot.refusal else []
    reason = (robot.report or {}).get("not_installed")
    trial = _trial(robot) if reason else None
    if reason and not (trial and trial.words.startswith(reason)):  # `_trials` tells that
        lines.append(f"{{who}} {{do}} not run the newest model: {_plain(reason)}")
    if robot.warning:
        lines.append(f"{{who}}: {_plain(robot.warning)}")
    approve = "cloud-server robots approve DIR {names}"
    if robot.state == "suspended":
        reason = _plain(robot.reason or "by the operator")
        lines.append(f"{{who}} {{be}} suspended: {reason}; to let take part again: {approve}")
    elif robot.state == "pending":
        lines.append(f"{{who}} wait{{s}} for approval: {approve}")
    elif robot.offenses > 1:
        refused = f"{robot.offenses} refused updates in a row"
        lines.append(f"{{who}}: {refused}: {_plain(robot.verdict)}")
    return lines


def _plain(words: str) -> str:
    return words.replace("{", "{{").replace("}", "}}")
