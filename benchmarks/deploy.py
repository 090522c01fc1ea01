"""From a published model to the robot's next answer, and what waiting for one costs.

One robot with a labelled bag, on this machine, over TLS; beside it a program that answers a camera
of 30 frames a second (deploy_camera.py).

  ours    `cloud-server start`, `edge-agent run` with its defaults: it looks every 2 s, fetches what
          has changed, tries the model in a child process beside the running one, on the robot's
          held-out frames, and switches. The program uses FollowingEngine
  plain   how it is done without a fleet tool (deploy_plain.py): a web server with a folder, a
          script that asks every 2 s for one .tflite file, and a program that opens its interpreter
          again. Nothing is tried. A script that restarts the program has the longer gap

Versions are exported before; a publication begins when the channel, or the folder, has the new one.
They come at different moments of the two seconds. Quantities:

  publish_to_active  until the agent's `current` link names the new version
  publish_to_answer  until the program has answered a frame with it
  swap_gap_frames    most frames that the program lost, from the publication to a second after its
                     first new answer; swap_pause is the longest time without an answer in there,
                     calm_gap_frames the same of two seconds before: what the machine itself loses
  poll_bytes         of one question without news, both ways with TLS
  poll_ms            processor time of the robot's process for it
  idle_growth_mb     memory of an agent that trains (its heaps: pages of libraries count less while
                     other processes map them), after as many polls as an hour has above that after
                     a tenth of them: 1,800, each a look at the channel and a question for work

Polls are counted in agents that wait 0.02 s between two. --quick: two publications, 300 polls.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from benchmarks.deploy_camera import longest_pause_s, lost, read
from benchmarks.deploy_sides import VERSIONS, Side, our_side, plain_side, prepare
from benchmarks.fleets import ROOT
from benchmarks.measure import (
    Comparison,
    Limit,
    Result,
    arguments,
    boot_time_s,
    median,
    memory_samples,
    report,
    say,
    tree_anonymous_mb,
)

POLL_S = 2.0  # of agents that nobody has set otherwise, and of the script
FAST_POLL_S = 0.02
CALM_S, AFTER_S = 2.0, 1.0
LOOK_AT_MEMORY_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """One publication."""

    active_s: float  # -1 where nothing tells
    answer_s: float
    gap_frames: int
    calm_frames: int
    pause_s: float
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """What waiting costs."""

    bytes: float  # of one poll
    milliseconds: float  # of processor time
    growth_mb: float


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, quick="two publications, 300 polls: a minute once inputs are made")
    publications, polls = (2, 300) if options.quick else (VERSIONS, 1800)
    inputs = prepare()
    swaps, polled = {}, {}
    with our_side(inputs, {}) as side:
        swaps["ours"] = swaps_of(side, publications)
    with plain_side(inputs, POLL_S) as side:
        swaps["plain"] = swaps_of(side, publications)
    say(f"deploy: {swaps}")
    for name, trains, turns in (("follows", "false", 1), ("trains", "true", 2)):
        training = {"EDGE_AGENT_TRAINING__ENABLED": trains}
        polling = {"EDGE_AGENT_POLL__IDLE_S": str(FAST_POLL_S), "FLEETLEARN_LIMITS__HOLD_S": "0"}
        with our_side(inputs, {**polling, **training}) as side:
            polled[name] = polls_of(side, polls, turns)
    with plain_side(inputs, FAST_POLL_S) as side:
        polled["plain"] = polls_of(side, polls // 3, 2)
    say(f"deploy: {polled}")
    report(result(swaps, polled), as_json=options.json)


def swaps_of(side: Side, publications: int) -> list[Swap]:
    """Publish versions one after the other, and watch the robot and its program."""
    command = [sys.executable, "-m", "benchmarks.deploy_camera", side.answers, *side.camera]
    side.services.start("camera", command, {"PYTHONPATH": str(ROOT)})
    side.services.wait("the first answers", lambda: len(read(side.answers)) > 10)
    tells = side.version() >= 0
    swaps = []
    for number in range(1, publications + 1):
        time.sleep(CALM_S + number / publications * POLL_S)
        before, bytes_before = read(side.answers)[-1].model, side.relay.bytes
        begin_s, active_s = boot_time_s(), -1.0
        side.publish(number)
        if tells:
            side.services.wait("the switch", lambda n=number: side.version() == n, step_s=0.01)
            active_s = boot_time_s() - begin_s
        side.services.wait("an answer", lambda m=before: read(side.answers)[-1].model != m)
        time.sleep(AFTER_S)
        answers = read(side.answers)
        answered_s = next(a.at_s for a in answers if a.at_s > begin_s and a.model != before)
        window = begin_s, answered_s + AFTER_S
        swaps.append(
            Swap(
                active_s=active_s,
                answer_s=answered_s - begin_s,
                gap_frames=lost(answers, *window),
                calm_frames=lost(answers, begin_s - CALM_S, begin_s),
                pause_s=longest_pause_s(answers, *window),
                bytes=side.relay.bytes - bytes_before,
            )
        )
    return swaps


def polls_of(side: Side, polls: int, turns: int) -> Polled:
    """Watch an idle robot from a tenth of the polls on; a poll has so many turns of the relay."""
    relay, wait = side.relay, side.services.wait
    first = relay.turns + polls // 10 * turns
    wait("the first polls", lambda: relay.turns >= first)
    before_mb = _memory_mb(side.robot)
    begin, cpu_s = (relay.turns, relay.bytes), _processor_s(side.robot)
    wait("all polls", lambda: relay.turns >= begin[0] + polls * turns)
    asked = (relay.turns - begin[0]) / turns
    return Polled(
        bytes=(relay.bytes - begin[1]) / asked,
        milliseconds=(_processor_s(side.robot) - cpu_s) / asked * 1e3,
        growth_mb=_memory_mb(side.robot) - before_mb,
    )


def _memory_mb(pid: int) -> float:
    with memory_samples(pid, tree_anonymous_mb) as samples:
        time.sleep(LOOK_AT_MEMORY_S)
    return median(samples)


def _processor_s(pid: int) -> float:
    """Return the processor time that a process and those that it has started took."""
    root = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:2]) for one in [root, *root.children(recursive=True)])


def result(swaps: dict[str, Sequence[Swap]], polled: dict[str, Polled]) -> Result:
    """Put figures and ratios together."""
    ours, plain = swaps["ours"], swaps["plain"]
    look, both, script = polled["follows"], polled["trains"], polled["plain"]

    def middle(name: str, of: Sequence[Swap]) -> float:
        return median([float(getattr(one, name)) for one in of])

    return Result(
        benchmark="deploy",
        comparisons=[
            Comparison(
                "publish_to_answer", "s", middle("answer_s", ours), middle("answer_s", plain)
            ),
            Comparison(
                "swap_pause", "ms", middle("pause_s", ours) * 1e3, middle("pause_s", plain) * 1e3
            ),
            Comparison("publish_bytes", "B", middle("bytes", ours), middle("bytes", plain)),
            Comparison("poll_bytes", "B", look.bytes, script.bytes),
            Comparison("poll_time", "ms", look.milliseconds, script.milliseconds),
        ],
        figures={
            "publish_to_active_s": middle("active_s", ours),
            "publish_to_active_worst_s": max(one.active_s for one in ours),
            "publish_to_answer_s": middle("answer_s", ours),
            "plain_publish_to_answer_s": middle("answer_s", plain),
            "swap_gap_frames": max(one.gap_frames for one in ours),
            "plain_swap_gap_frames": max(one.gap_frames for one in plain),
            "calm_gap_frames": max(one.calm_frames for one in [*ours, *plain]),
            "swap_pause_ms": middle("pause_s", ours) * 1e3,
            "plain_swap_pause_ms": middle("pause_s", plain) * 1e3,
            "publish_bytes": middle("bytes", ours),
            "plain_publish_bytes": middle("bytes", plain),
            "poll_bytes": look.bytes,
            "poll_ms": look.milliseconds,
            "training_poll_bytes": both.bytes,
            "training_poll_ms": both.milliseconds,
            "plain_poll_bytes": script.bytes,
            "plain_poll_ms": script.milliseconds,
            "idle_growth_mb": both.growth_mb,
            "following_idle_growth_mb": look.growth_mb,
        },
        limits=[
            Limit("publish_to_active_s", 5),
            Limit("swap_gap_frames", 0),
            Limit("idle_growth_mb", 2),
        ],
    )


if __name__ == "__main__":
    main()
