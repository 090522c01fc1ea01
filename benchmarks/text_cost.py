"""What a round of fine-tuning costs a client, beside stock Flower with transformers and peft.

The same work in both arms: one client, a table of texts of at least LENGTH tokens, MiniLM, adapters
of rank 8 on all kernels of the last two layers and a whole head, 20 steps a round with batches of
16, nothing held out; two threads.

    ours   `edge-agent run` as it comes: the training process stays for the next round, and what
           the frozen layers say of a text is computed once
    stock  `flower-supernode` with text_app: Flower starts a process for every message, the whole
           model answers in every step

    round   from one closing of a round to the next, seen by the server: median
    first   the same of the first round, from the order for it; of stock Flower without the start of
            its ServerApp
    long    of a round of 200 steps
    step    from the end of one optimizer step to the end of the next: median
    peak    summed PSS of the client's process tree, sampled in the first round, every 0.1 s

Runs with the server's PyTorch: `python -m benchmarks.text_cost FOLDER [--quick]`, which prints the
costs of both arms as a line of JSON, and the bytes of an update where stock Flower trains the same
layers without adapters and sends the whole state, as its examples do.
"""

import csv
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.environments import environment
from benchmarks.fleets import OurFleet, StockFleet, free_port, move
from benchmarks.measure import boot_time_s, median, memory_samples, say
from benchmarks.robot_cost import read_stamps
from benchmarks.round_time import fresh, read_closings
from benchmarks.services import Services
from benchmarks.vader import read_vader
from cloud_server.state.history import ClosedRounds

HERE = Path(__file__).resolve().parent
LENGTH, BATCH, STEPS, LONG = 64, 16, 20, 10  # LONG: epochs of a long round
THREADS = "2"
PATIENCE_S = 600.0  # our training steps aside for everything else that runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What both arms work on."""

    server: Path  # an initialized server directory, copied
    encoder: Path  # the folder that it was made of
    table: Path  # of the client


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one start of one arm costs."""

    peak_mb: float
    first_s: float
    round_s: float
    step_ms: float
    update_bytes: float


def write_table(file: Path, rows: int) -> None:
    """Write a table whose texts are several sentences of one sentiment each, about a kind."""
    made: list[tuple[str, str]] = []
    for label in ("negative", "positive"):
        sentences = (one.text for one in read_vader()["film"] if one.label == label)
        for _ in range(rows // 2):
            text = next(sentences)
            while len(text.split()) < LENGTH:  # a word is a token at least
                text += f" {next(sentences)}"
            made.append((text, label))
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "label"), *made])


def ours(work: Path, inputs: Inputs, epochs: int, rounds: int) -> Cost:
    """Return what our agent costs.

    Args:
        work: made anew.
        inputs: of both arms.
        epochs: of a round.
        rounds: timed after the first.
    """
    fresh(work)
    shutil.copytree(inputs.server, work / "server")
    move(work / "server", free_port())
    stamps, client = work / "steps.txt", work / "client"
    server = {
        "FLEETLEARN_ROUNDS__QUORUM": "1",
        "FLEETLEARN_TRAINING__EPOCHS": str(epochs),
        "FLEETLEARN_TRAINING__BATCH_SIZE": str(BATCH),
    }
    settings = {
        "EDGE_AGENT_EXAMPLES__SOURCE": "texts",
        "EDGE_AGENT_EXAMPLES__HELD_OUT": "0",
        "EDGE_AGENT_TRAINING__THREADS": THREADS,
        "PYTHONPATH": str(HERE / "step_stamps"),
        "STEP_STAMPS": str(stamps),
    }
    with Services(work / "logs") as services:
        fleet = OurFleet.start(services, work / "server", server)
        fleet.enroll("c1", client, inputs.table)
        command = [environment("texts").bin / "edge-agent"]
        node = fleet.run_agent("agent", client, command, settings)
        closings = [boot_time_s()]
        with memory_samples(node.pid) as samples:
            fleet.admin.start_run(1 + rounds)
            _closed(services, fleet, 1)
            closings.append(boot_time_s())
        for number in range(2, rounds + 2):
            _closed(services, fleet, number)
            closings.append(boot_time_s())
        last = list(ClosedRounds(fleet.server_dir))[-1].robots[0]
    if last.outcome.kind != "accepted":
        raise RuntimeError(f"our round went wrong: {last.outcome}")
    return _cost(max(samples), closings, stamps, last.update_bytes)


def stock(work: Path, inputs: Inputs, epochs: int, rounds: int, *, adapter: bool = True) -> Cost:
    """Return what stock Flower costs; see `ours`. Without `adapter` the whole state travels."""
    fresh(work)
    stamps, closed = work / "steps.txt", work / "rounds.txt"
    with Services(work / "logs") as services:
        fleet = StockFleet.start(services, work, free_port())
        node_config = f'table="{inputs.table}" encoder="{inputs.encoder}"'
        variables = {"STEP_STAMPS": str(stamps), "OMP_NUM_THREADS": THREADS}
        programs = environment("texts-stock").bin
        node = fleet.run_supernode("supernode", programs, node_config, variables)
        config = (
            f'num-server-rounds={1 + rounds} stamps="{closed}" encoder="{inputs.encoder}" '
            f"epochs={epochs} batch-size={BATCH} max-length={LENGTH} adapter={_toml(adapter)}"
        )
        with memory_samples(node.pid) as samples:
            fleet.run_app(HERE / "text_app", config)
            services.wait("a round", lambda: len(read_closings(closed)) >= 2, patience_s=PATIENCE_S)
        told = closed.with_suffix(".json")
        services.wait("all rounds", told.exists, patience_s=PATIENCE_S)
        sent = float(json.loads(told.read_text())["array-bytes"])
    return _cost(max(samples), read_closings(closed), stamps, sent)  # the first is before round 1


def costs(work: Path, inputs: Inputs, *, quick: bool) -> Mapping[str, Mapping[str, float]]:
    """Measure all, arms in turn; return quantities by arm."""
    rounds = 1 if quick else 3
    arms = {"ours": ours, "stock": stock}
    found = {name: arm(work / name, inputs, 1, rounds) for name, arm in arms.items()}
    for name, cost in found.items():
        say(f"text_cost: {name}: {cost}")
    if not quick:
        for name, arm in arms.items():
            # All rounds of stock Flower are alike: its first one is enough.
            timed = 1 if name == "ours" else 0
            found[f"{name}_long"] = arm(work / f"{name}-long", inputs, LONG, timed)
            say(f"text_cost: {name}, {STEPS * LONG} steps: {found[f'{name}_long']}")
    found["plain"] = stock(work / "plain", inputs, 1, 0, adapter=False)
    say(f"text_cost: the whole state: {found['plain']}")
    return {name: asdict(cost) for name, cost in found.items()}


def _closed(services: Services, fleet: OurFleet, count: int) -> None:
    services.wait(
        "a round", lambda: fleet.rounds_closed() >= count, step_s=0.02, patience_s=PATIENCE_S
    )


def _cost(peak_mb: float, closings: list[float], stamps: Path, update_bytes: float) -> Cost:
    first, *others = (after - before for before, after in pairwise(closings))
    steps = [b - a for _, ends in read_stamps(stamps) for a, b in pairwise(ends)]
    return Cost(
        peak_mb=peak_mb,
        first_s=first,
        round_s=median(others or [first]),
        step_ms=median(steps) * 1e3,
        update_bytes=update_bytes,
    )


def _toml(value: bool) -> str:
    return str(value).lower()


def main() -> None:
    """Print the costs as a line of JSON."""
    folder, quick = Path(sys.argv[1]).resolve(), "--quick" in sys.argv
    inputs = Inputs(
        server=folder / "adapters", encoder=folder / "minilm", table=folder / "client.csv"
    )
    print(json.dumps(costs(folder / "cost", inputs, quick=quick)), flush=True)


if __name__ == "__main__":
    main()
