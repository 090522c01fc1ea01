"""Robots follow thirty versions, a third of them bad, while they are killed and cut off.

Real agents and a real server over TLS; versions are made beforehand. `make soak` has 20 robots that
look 1,800 times each, and 30 versions; `make test` has 3 robots and 6 versions. SOAK_SEED=N repeats
the misfortunes of another run: who suffers what; when exactly is the machine's affair.
"""

import heapq
import json
import os
import random
import re
import shutil
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

sys.path.append(str(Path(__file__).parents[1] / "edge_agent" / "models"))
import moody_workload
from moody_workload import TINY, bundle, labelled_frames

from cloud_server.robots.register import Register
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import load_settings
from edge_agent.cli.enroll import enroll
from edge_agent.models.channels import Channels
from edge_agent.models.deploy import Models
from edge_agent.models.trials import TrialFile
from edge_agent.robot.settings import ExampleSettings
from fleet_model.bundle import MANIFEST, entry_of
from fleet_model.protocol.trial import CONFIRMED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


class Size(NamedTuple):
    """Of the whole or of the sample."""

    robots: int
    versions: int
    looks: int  # of each robot beside each version, at least
    poll_s: float
    cables: int
    cut_s: float  # at most; 0: cables are snapped only, for who waits in a cut waits for 30 s


SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
SIZE = Size(20, 30, 60, 0.5, 4, 10.0) if SOAK else Size(3, 6, 6, 0.2, 1, 0.0)
SEED = int(os.environ.get("SOAK_SEED", "12"))
PATIENCE_S = 1200.0
WEB_THREADS = 40  # of anyio, for all requests together

# What a robot can tell a model by: its own labelled frames, frames alone, or nothing but zeros.
EYES = ("labels", "nothing", "labels", "labels", "frames", "labels", "labels")
REFUSED_WITH = {
    "worse": {"labels", "frames"},
    "not a number": {"labels", "frames", "nothing"},
    "crash at load": {"labels", "frames", "nothing"},
    "slow": {"labels", "frames"},  # on an answer to a frame
    "no model": {"labels", "frames", "nothing"},
}
# `edge-agent run` that notes each look which the server has answered: a byte in a file.
NOTED = """
import os, sys
from edge_agent.link import news
from edge_agent.link.server_link import HttpsStore
news.LOOK_S = float(os.environ["EDGE_AGENT_POLL__IDLE_S"])  # beside the request that is held
latest, looks = HttpsStore.latest, os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def noted(*about):
    offer = latest(*about)
    os.write(looks, b".")
    return offer
HttpsStore.latest = noted
from edge_agent.cli import main
main()
"""


def kind_of(version):
    """Return what is bad about a version: every third one is."""
    return "" if version % 3 else list(REFUSED_WITH)[(version // 3 - 1) % len(REFUSED_WITH)]


def make_version(folder, version):
    kind, scale = kind_of(version), 1 + version / 1000  # so each has a file of its own
    if kind == "no model":
        made = bundle(folder, version)
        (made / "head.tflite").write_bytes(b"no model")
        manifest = json.loads((made / MANIFEST).read_text())
        manifest["files"]["head.tflite"] = entry_of(b"no model").model_dump()
        (made / MANIFEST).write_text(json.dumps(manifest))
        return made
    mood = kind if kind in ("crash at load", "slow") else ""
    times = float("nan") if kind == "not a number" else scale
    return bundle(folder, version, mood, worse=kind == "worse", times=times)


class Held(NamedTuple):
    """What a process has taken and not given back."""

    files: int
    sockets: int
    threads: int
    children: int
    own_mb: float  # memory that no other process shares and no file backs


def held_by(process, parents):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return Held(
        process.num_fds(),
        len(process.net_connections()),
        process.num_threads(),
        parents[process.pid],
        int(re.search(r"RssAnon:\s*(\d+) kB", status)[1]) / 1000,
    )


def grown(first, held):
    """Return name -> (first, now) of the processes that hold more than they did first."""
    found = {}
    for name, now in held.items():
        before = first.get(name, now)
        if name == "server":  # requests that come at once share a pool of so many threads
            before = before._replace(threads=before.threads + WEB_THREADS)
        if any(more > than for more, than in zip(now[:4], before[:4], strict=True)):
            found[name] = (before, now)
    return found


class Hardship:
    """A fleet, what befalls it, and what was seen of it."""

    def __init__(self, fleet, server_dir, cut_proxy):
        self.fleet, self.store = fleet, DirectoryStore(server_dir.store)
        fleet.port = load_settings(server_dir.settings, {}).network.port
        self.random = random.Random(SEED)
        self.robots = {f"robot-{n:02d}": EYES[n % len(EYES)] for n in range(SIZE.robots)}
        self.mortal = [name for n, name in enumerate(self.robots) if n % 3]
        self.temporary = fleet.root / "tmp"
        self.temporary.mkdir()
        self.bundles = [make_version(fleet.root, v) for v in range(1, SIZE.versions + 1)]
        self.store.publish(self.bundles[0], "stable", TINY)  # in the place of the tiny bundle
        fleet.start_server()
        self.cables = [cut_proxy(fleet.port) for _ in range(SIZE.cables)]
        site = moody_workload.site(fleet.root / "a" / "site")
        self.fleet.everywhere = {
            "PYTHONPATH": str(site),
            "TMPDIR": str(self.temporary),
            "EDGE_AGENT_POLL__IDLE_S": str(SIZE.poll_s),
            "EDGE_AGENT_INSTALL__PROBATION_S": str(5 * SIZE.poll_s),
            "EDGE_AGENT_INSTALL__TIMEOUT_S": "300",  # a busy machine is not the model's fault
        }
        paths = {
            "nothing": (),
            "frames": (fleet.root / "frames",),
            "labels": (fleet.root / "labels",),
        }
        (fleet.root / "frames").mkdir()
        for picture in labelled_frames(fleet.root / "labels", 24).glob("*/*.png"):
            shutil.copy(picture, fleet.root / "frames")
        for name, eyes in self.robots.items():
            examples = ExampleSettings(paths=paths[eyes], held_out=0.5)
            line = enroll(server_dir.kit, self.folder(name), examples, train=False)
            Register(server_dir.robots).add(name, "hall", line)
            self.run(name)
        self.befell, self.wrong, self.quiet = Counter(), [], []

    def folder(self, name):
        return self.fleet.root / "robots" / name

    def models(self, name):
        return self.folder(name) / "state" / "models"

    def run(self, name):
        cable = self.cables[list(self.robots).index(name) % len(self.cables)]
        looks, config = self.fleet.root / f"{name}.looks", self.folder(name) / "agent.toml"
        address = {"EDGE_AGENT_SERVER__ADDRESS": f"127.0.0.1:{cable.port}"}
        command = ("-c", NOTED, looks, "run", "--config", config)
        self.fleet.start(name, *command, environment=address)

    def kill(self, name):
        process = self.fleet.processes.pop(name)
        process.kill()
        process.wait()
        self.befell["kills"] += 1

    def looks(self, name):
        path = self.fleet.root / f"{name}.looks"
        return path.stat().st_size if path.exists() else 0

    def right(self, name, version):
        """Return what a robot should run: the newest of which it cannot tell that it is bad."""
        eyes = self.robots[name]
        return max(v for v in range(1, version + 1) if eyes not in REFUSED_WITH.get(kind_of(v), ()))

    def has_decided(self, name, version):
        """Return whether a robot will do nothing more about the newest version."""
        trials = TrialFile(self.models(name)).read()
        tried = next((t for t in trials.tried if t.name.startswith(f"{version:06d}-")), None)
        if trials.probation or tried is None or tried.outcome is None:
            return False
        return tried.refused or tried.outcome.state == CONFIRMED

    def misfortunes(self, versions, spread_s):
        """Return a heap of (seconds from now, number, action): what is to happen."""
        chosen, number = [], count()

        def at(seconds, action, *arguments):
            heapq.heappush(chosen, (seconds, next(number), action, arguments))

        # At most once each: three starts during one probation give a good model back.
        for name in self.random.sample(self.mortal, max(1, len(self.mortal) // 4)):
            killed_s = self.random.uniform(0, spread_s)
            at(killed_s, self.kill, name)
            at(killed_s + self.random.uniform(0, 2), self.run, name)
        cable, begins_s = self.random.choice(self.cables), self.random.uniform(0, spread_s)
        if SIZE.cut_s and self.random.random() < 0.5:
            at(begins_s, cable.cut)
            at(begins_s + self.random.uniform(1, SIZE.cut_s), cable.heal)
            self.befell["cuts"] += 1
        else:
            at(begins_s, cable.snap)
            self.befell["snapped cables"] += 1
        for version in versions[1:]:
            at(self.random.uniform(0, spread_s), self.publish, version)
        return chosen

    def publish(self, version):
        self.store.publish(self.bundles[version - 1], "stable", TINY)

    def live_through(self, versions):
        """Publish versions while things happen; wait until every robot has decided and looked."""
        least = {name: self.looks(name) + SIZE.looks * len(versions) for name in self.robots}
        self.publish(versions[0])
        ahead = self.misfortunes(versions, SIZE.looks * SIZE.poll_s / 2)
        begin = time.monotonic()
        while ahead or (waited_for := self.undecided(versions[-1], least)):
            passed_s = time.monotonic() - begin
            while ahead and ahead[0][0] <= passed_s:
                _, _, action, arguments = heapq.heappop(ahead)
                action(*arguments)
            for name, process in self.fleet.processes.items():
                assert process.poll() is None, f"{name} has ended:\n{self.fleet.log(name)}"
            if passed_s > PATIENCE_S:
                pytest.fail(f"seed {SEED}, version {versions[-1]}: {waited_for}")
            time.sleep(0.1)
        for name in self.robots:
            active = Models(self.models(name)).version_in_use()
            if active != self.right(name, versions[-1]):
                self.wrong.append((versions[-1], name, active, self.right(name, versions[-1])))

    def undecided(self, version, least):
        return {
            name: (self.looks(name) - least[name], self.fleet.status(name))
            for name in self.robots
            if self.looks(name) < least[name] or not self.has_decided(name, version)
        }

    def look_at_quiet(self):
        """Note the least that each process holds while robots look ten times more.

        A connection that a cut has killed is closed later, by whoever waits for the other end: that
        is waited for, too.
        """
        processes = {n: psutil.Process(p.pid) for n, p in self.fleet.processes.items()}
        least = {name: self.looks(name) + 10 for name in self.robots}
        held, end = {}, time.monotonic() + 150
        while time.monotonic() < end:
            time.sleep(0.2)
            parents = Counter(one.info["ppid"] for one in psutil.process_iter(["ppid"]))
            for name, process in processes.items():
                now = held_by(process, parents)
                held[name] = Held(*map(min, zip(held.get(name, now), now, strict=True)))
            have_looked = all(self.looks(name) >= least[name] for name in self.robots)
            if have_looked and not (self.quiet and grown(self.quiet[0], held)):
                break
        self.quiet.append(held)

    def stop(self):
        """End all; return name -> exit code."""
        return {name: self.fleet.stop(name) for name in [*self.robots, "server"]}


@pytest.fixture(scope="module")
def hardship(fleet, new_server_dir, cut_proxy):
    """The whole story; its figures go to stdout."""
    begin = time.monotonic()
    story = Hardship(fleet, new_server_dir(fleet.server), cut_proxy)
    version = 1
    while version <= SIZE.versions:
        follows = version < SIZE.versions and not kind_of(version + 1)
        both = version > 1 and follows and story.random.random() < 0.3
        versions = [version, version + 1] if both else [version]
        story.live_through(versions)
        before, version = version, version + len(versions)
        if any(before <= one < version for one in (2, SIZE.versions // 2, SIZE.versions)):
            story.look_at_quiet()
        tell(
            version=version - 1,
            **story.befell,
            seconds=round(time.monotonic() - begin),
            wrong=story.wrong,
        )
    story.seen_by_server = {
        robot["name"]: robot["active_version"] for robot in fleet.admin().status()["robots"]
    }
    story.ended = story.stop()
    figures = {n: [tuple(q[n]) for q in story.quiet] for n in ("server", "robot-00", "robot-01")}
    least = min(map(story.looks, story.robots))
    tell(seed=SEED, **SIZE._asdict(), least_looks=least, **story.befell, held=figures)
    return story


def tell(**figures):
    """Tell whoever runs a soak (`-rA` shows it) what docs/soak.md is to have."""
    sys.stdout.write(json.dumps(figures) + "\n")


def test_every_robot_is_on_the_right_version_beside_each_version_and_at_the_end(hardship):
    assert hardship.wrong == []
    last = {name: hardship.right(name, SIZE.versions) for name in hardship.robots}
    assert hardship.seen_by_server == last
    # The files of each are whole, too.
    active = {name: Models(hardship.models(name)).active("fp32") for name in hardship.robots}
    assert {name: offer.manifest.version for name, offer in active.items()} == last


def test_no_robot_has_ever_switched_to_a_version_that_it_can_tell_is_bad(hardship):
    for name, eyes in hardship.robots.items():
        log = hardship.fleet.log(name)
        taken = set(map(int, re.findall(r"version (\d+) is (?:on probation|confirmed)", log)))
        assert not [v for v in taken if eyes in REFUSED_WITH.get(kind_of(v), ())], name
        assert hardship.right(name, SIZE.versions) in taken


def test_each_robot_has_looked_as_often_as_it_should_and_was_hit(hardship):
    assert min(map(hardship.looks, hardship.robots)) >= SIZE.versions * SIZE.looks
    assert hardship.befell["kills"] >= SIZE.versions // 2
    assert hardship.befell["cuts"] + hardship.befell["snapped cables"] >= SIZE.versions // 2


def test_no_process_holds_more_files_sockets_threads_or_children_than_at_first(hardship):
    first, *later = hardship.quiet
    assert [grown(first, held) for held in later] == [{}] * len(later)


def test_no_process_takes_more_memory_than_at_first(hardship):
    first, *later = hardship.quiet
    # The server's heap settles while it serves its first versions: 115.5, 118.6 and 118.5 MB beside
    # versions 2, 15 and 30. What grows with every version, grows in the second half, too.
    before = {name: held for name, held in first.items() if name != "server"}
    for held in later:
        growth = {name: round(held[name].own_mb - one.own_mb, 2) for name, one in before.items()}
        assert {name: mb for name, mb in growth.items() if mb > 2} == {}
        before.setdefault("server", held["server"])


def test_nothing_is_left_of_what_was_killed(hardship):
    assert set(hardship.ended.values()) == {0}
    left = {
        "processes": processes_with(f"TMPDIR={hardship.temporary}"),
        "temporary files": list(hardship.temporary.iterdir()),
    }
    for name in hardship.robots:
        models, state = hardship.models(name), hardship.folder(name) / "state"
        kept = Channels(models, "stable")
        versions = {folder.name for folder in (models / "versions").iterdir()}
        left[f"{name}: versions"] = sorted(versions - {kept.active(), kept.previous()})
        left[f"{name}: half written"] = list(state.rglob(".*.new"))
        # A part is kept for its download to go on; every other object belongs to a version.
        objects = [file for file in (models / "objects").iterdir() if file.suffix != ".part"]
        left[f"{name}: objects"] = [file for file in objects if file.stat().st_nlink == 1]
    assert {what: found for what, found in left.items() if found} == {}


def test_no_log_has_a_traceback(hardship):
    logs = {file.stem: file.read_text() for file in hardship.fleet.root.glob("*.log")}
    assert {"server", *hardship.robots} == logs.keys()
    assert [name for name, text in logs.items() if "Traceback" in text] == []


def processes_with(variable):
    """Return the command lines of all processes with this in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            environment = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            if variable.encode() in environment:
                found.append(process.cmdline())
        except (OSError, psutil.Error):
            continue
    return found
