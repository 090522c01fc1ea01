"""What age and size cost: this tree against commit 87262d4, checked out beside it, in one run.

Both sides get the same files, written once by the older commit's own code: a server directory with
3,000 checkpoints and a history of 4,000 versions, 50 robots in each round; and a robot's store of
2,000 frames, half of them pictures, half in bags. Sides take turns; medians are compared.

  run_start          seconds from the admin request until the first request for a robot is queued in
                     Flower's database; `cloud-server start`, with robots that only stay online.
                     It is the second run of a server process; first_run_start is the first, in
                     which both sides wait 0.1 s until SQLAlchemy has compiled Flower's statements
  history            seconds of `cloud-server history DIR`, as a whole
  second_round_scan  seconds until a new training process has listed all examples, when an earlier
                     one has listed them before; starting Python and imports are left out
  second_round_frame_bytes  bytes of the frame files that ours opens meanwhile, whatever for
  hash_peak_mb       anonymous memory above that of the idle process while ours hashes a file of
                     2 GB and touches each of its tensors once

--quick makes a tenth of it all, and each measurement once.
"""

import json
import os
import select
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from benchmarks.fleets import ROOT, free_port, listening, online_nodes
from benchmarks.measure import Comparison, Limit, Result, arguments, median, report, say
from benchmarks.older_tree import COMMIT, checkout, run
from benchmarks.services import Services, base_environment
from cloud_server.cli.admin_client import AdminClient
from cloud_server.runs.run_store import ENDED
from cloud_server.state.directory import ServerDirectory

WORK = ROOT / "build" / "bench" / "aging"
BENCHMARKS = Path(__file__).parent
LOOK_S = 0.002  # between looks into Flower's database, and at a process's memory


@dataclass(frozen=True, slots=True)
class Ages:
    """How old and how large everything is."""

    robots: int = 50
    checkpoints: int = 3000
    versions: int = 4000
    frames: int = 2000
    file_bytes: int = 2_000_000_000
    turns: int = 3


QUICK = Ages(
    robots=5, checkpoints=300, versions=400, frames=200, file_bytes=200_000_000, turns=1
)  # fmt: skip


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__, quick="a tenth of everything, each measurement once")
    ages = QUICK if options.quick else Ages()
    shutil.rmtree(WORK, ignore_errors=True)
    sides = make_sides(ages)
    measures: Sequence[Callable[[Side], Mapping[str, float]]] = (
        lambda side: run_starts(side, ages.robots),
        lambda side: {"history": history_seconds(side)},
        lambda side: {"second_round_scan": side.list_examples(ages.frames)["seconds"]},
    )
    times: dict[str, dict[str, list[float]]] = {}
    for side in sides:
        side.list_examples(ages.frames)  # the first round, in which frames become known
    for turn in range(ages.turns):
        for measure, side in product(measures, sides):
            for key, seconds in measure(side).items():
                times.setdefault(key, {}).setdefault(side.name, []).append(seconds)
        say(f"aging: turn {turn + 1} of {ages.turns}: {times}")
    frame_bytes = {side.name: side.list_examples(ages.frames)["frame_bytes"] for side in sides}
    peak_mb = hash_peak_mb(ROOT, make_tensors(WORK / "large.safetensors", ages.file_bytes))
    shutil.rmtree(WORK)
    report(result(times, frame_bytes, peak_mb), as_json=options.json)


def make_sides(ages: Ages) -> "list[Side]":
    """Let the older commit write what both sides get, and give each a copy."""
    trees, port = {"ours": ROOT, "peer": checkout(WORK / COMMIT)}, free_port()
    say(f"aging: making {ages.versions} versions and {ages.frames} frames, a minute or two")
    data = WORK / "data"
    data.mkdir()
    counts = {name: getattr(ages, name) for name in ("robots", "checkpoints", "versions", "frames")}
    numbers = [f"--{name}={count}" for name, count in counts.items()]
    run(trees["peer"], [BENCHMARKS / "aging_data.py", data, f"--port={port}", *numbers])
    sides = [Side(name, tree, WORK / name, port) for name, tree in trees.items()]
    for side in sides:
        side.take(data)
    return sides


@dataclass(frozen=True, slots=True)
class Side:
    """One tree with a copy of the data of its own."""

    name: str
    tree: Path
    work: Path
    port: int

    @property
    def server_dir(self) -> ServerDirectory:
        """Return the server directory of this side."""
        return ServerDirectory(self.work / "server")

    def take(self, data: Path) -> None:
        """Copy the data; frames keep their times, by which they are known."""
        shutil.copytree(data, self.work, copy_function=shutil.copy2)
        (self.work / "state").mkdir()

    def list_examples(self, count: int) -> dict[str, float]:
        """List all examples in a process of its own; see aging_arms."""
        arm = [BENCHMARKS / "aging_arms.py", "examples", self.work / "frames", self.work / "state"]
        return dict(json.loads(run(self.tree, [*arm, count])))


def run_starts(side: Side, robots: int) -> dict[str, float]:
    """Start the server, let robots come online, begin two runs; end both processes again."""
    for folder in (side.server_dir.runs, side.server_dir.flower):
        shutil.rmtree(folder, ignore_errors=True)
    database = side.server_dir.flower / "state.db"
    keys = sorted(path for path in (side.work / "keys").iterdir() if not path.suffix)
    serve = [sys.executable, "-m", "cloud_server.cli", "start", side.server_dir.root]
    certificate = side.server_dir.certificates / "ca.crt"
    ask = [BENCHMARKS / "aging_arms.py", "robots", f"127.0.0.1:{side.port}", certificate, *keys]
    with Services(side.work / "logs") as services:
        services.start("cloud-server", serve, {"PYTHONPATH": str(side.tree)})
        services.wait("the server's start", lambda: listening(side.port))
        services.start("robots", [sys.executable, "-P", *ask], {"PYTHONPATH": str(ROOT)})
        services.wait("all robots online", lambda: online_nodes(database) == robots)
        admin = AdminClient(side.server_dir)
        seconds = [run_start(services, admin, database) for _ in range(2)]
        for name in ("robots", "cloud-server"):
            services.kill(name)
    return dict(zip(("first_run_start", "run_start"), seconds, strict=True))


def run_start(services: Services, admin: AdminClient, database: Path) -> float:
    """Begin a run, and stop it when a robot is asked: no round closes, nothing is exported."""
    before = queued(database)
    begin = time.perf_counter()
    run_id = admin.start_run(1)["id"]
    services.wait("the first request", lambda: bool(queued(database) - before), step_s=LOOK_S)
    seconds = time.perf_counter() - begin
    admin.stop_run(run_id)
    services.wait("its end", lambda: admin.run(run_id)["state"] in ENDED)
    return seconds


def queued(database: Path) -> set[str]:
    """Return the requests for robots that Flower's database holds, by their ids."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return {row[0] for row in connection.execute("SELECT message_id FROM message_ins")}


def history_seconds(side: Side) -> float:
    """Run `cloud-server history DIR`, as an operator does, once."""
    begin = time.perf_counter()
    run(side.tree, ["-m", "cloud_server.cli", "history", side.server_dir.root])
    return time.perf_counter() - begin


def make_tensors(file: Path, size_bytes: int) -> Path:
    """Write a file of eight equal tensors; what is in them are holes, which take no disk."""
    each = size_bytes // 8 // 4 * 4
    table = {
        f"layer{number}/kernel": {
            "dtype": "F32",
            "shape": [each // 4],
            "data_offsets": [number * each, (number + 1) * each],
        }
        for number in range(8)
    }
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(stream.tell() + 8 * each)
    return file


def hash_peak_mb(tree: Path, file: Path) -> float:
    """Return how much more anonymous memory than idle a process takes that hashes and touches."""
    with subprocess.Popen(
        [sys.executable, "-P", BENCHMARKS / "aging_arms.py", "hash", file],
        env={**base_environment(), "PYTHONPATH": str(tree)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        idle = peak = anonymous_mb(process.pid)
        process.stdin.write("go\n")
        while not select.select([process.stdout], [], [], LOOK_S)[0]:
            peak = max(peak, anonymous_mb(process.pid))
        done = json.loads(process.stdout.readline())
    if done["bytes"] != file.stat().st_size or process.returncode:
        raise RuntimeError(f"hashing {file.name} went wrong: {done}")
    return peak - idle


def anonymous_mb(pid: int) -> float:
    """Return the resident memory of a process that no file is behind, in MB (1e6)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("this kernel does not tell RssAnon")


def result(
    times: Mapping[str, Mapping[str, list[float]]],
    frame_bytes: Mapping[str, float],
    peak_mb: float,
) -> Result:
    """Return ratios of medians, and what must stay flat."""
    required = {"run_start": 10.0, "history": 10.0, "second_round_scan": 5.0}
    middle = {
        key: {name: median(values) for name, values in sides.items()}
        for key, sides in times.items()
    }
    return Result(
        benchmark="aging",
        comparisons=[
            Comparison(key, "s", sides["ours"], sides["peer"], required.get(key, 0.0))
            for key, sides in middle.items()
        ],
        figures={
            **{f"{key}_s": sides["ours"] for key, sides in middle.items()},
            "second_round_frame_bytes": frame_bytes["ours"],
            "second_round_frame_bytes_peer": frame_bytes["peer"],
            "hash_peak_mb": peak_mb,
        },
        limits=[Limit("second_round_frame_bytes", 0), Limit("hash_peak_mb", 100)],
    )


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
