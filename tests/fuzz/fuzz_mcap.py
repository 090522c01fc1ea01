"""Damage small .mcap files and read each: python tests/fuzz/fuzz_mcap.py --inputs N --seed S.

Fails on any exception but FrameError, on an input that takes longer than two seconds, and on a
message that is wrong: after flipped bits every message must be one that was written, but for these
bits, and none may come twice; of a file that was cut, the messages must be the first ones. Prints
one line of JSON. `--only INPUT` repeats one input of a run and raises what it raises.
"""

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import damaging
from mcap_seeds import CAMERA, TEXT, seeds

from edge_agent.data.storage.mcap.file import McapFile
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

LONGEST_S = 2.0
UNCHECKED = ("zstd no crc", "storage", "zstd no index", "lz4 no summary")  # packed, no checksum


class Fuzzer:
    """Reads one damaged file after the other through a file in memory."""

    def __init__(self, seed):
        self.seed = seed
        self.seeds = sorted(seeds().items())
        self.descriptor = os.memfd_create("fuzz")
        self.path = Path(f"/proc/self/fd/{self.descriptor}")
        self.written = {name: self.read(data)[0] for name, data in self.seeds}

    def close(self):
        os.close(self.descriptor)

    def read(self, data):
        """Return the messages, how many could not be loaded, and the kinds of damage."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, data, 0)
        damage, messages, failed = DamageLog(), [], 0
        with McapFile(self.path) as file:
            names = {topic.name for topic in file.topics()} | {CAMERA, TEXT}
            for stored in file.messages(names, damage):
                try:
                    messages.append(bytes(stored.load()))
                except FrameError as error:
                    damage.add(error.reason, str(error))
                    failed += 1
        return messages, failed, [kind.kind for kind in damage.all()]

    def run(self, number):
        """Read input `number`; return a word for what happened."""
        rng = random.Random(f"{self.seed}-{number}")
        name, data = rng.choice(self.seeds)
        mutate = rng.choice(MUTATIONS)
        damaged, change = mutate(rng, data, self.seeds)
        start = time.process_time()
        try:
            messages, failed, kinds = self.read(damaged)
        except FrameError as error:
            return f"refused: {error.reason}"
        finally:
            assert time.process_time() - start < LONGEST_S, f"{name}: longer than {LONGEST_S} s"
        written = self.written[name]
        if mutate is cut:
            assert messages == written[: len(messages)], f"{name}: wrong messages after a cut"
            assert kinds, f"{name}: a cut at {len(damaged)} of {len(data)} goes unnoticed"
        elif mutate is flip and not any(part in name for part in UNCHECKED):
            damaging.check_each_was_written(messages, written, change)
        whole = len(messages) == len(written)
        return f"{mutate.__name__}: {'all' if whole else 'some' if messages or failed else 'none'}"


def flip(rng, data, _):
    damaged = bytearray(data)
    count = rng.choice((1, 1, 1, 2, 4))
    for _ in range(count):
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return damaged, count


def overwrite(rng, data, _):
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        at = rng.randrange(len(data))
        damaged[at : at + 8] = rng.choice(EXTREMES)[: rng.choice((1, 2, 4, 8))]
    return damaged, 0


def cut(rng, data, _):
    return data[: rng.randrange(len(data))], 0


def zero(rng, data, _):
    at, count = rng.randrange(len(data)), rng.randrange(400)
    return data[:at] + bytes(len(data[at : at + count])) + data[at + count :], 0


def splice(rng, data, others):
    other = rng.choice(others)[1]
    at, begin, count = rng.randrange(len(data)), rng.randrange(len(other)), rng.randrange(600)
    return data[:at] + other[begin : begin + count] + data[at + rng.choice((0, count)) :], 0


def remove(rng, data, _):
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randrange(200) :], 0


MUTATIONS = (flip, flip, overwrite, cut, zero, splice, remove)
EXTREMES = (
    b"\xff" * 8,
    bytes(8),
    b"\0\0\0\0\0\0\0\x80",
    b"\xff\xff\xff\x7f\0\0\0\0",
    b"\1" + bytes(7),
)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    options = parser.parse_args(arguments)
    fuzzer = Fuzzer(options.seed)
    if options.only is not None:
        sys.stdout.write(f"{fuzzer.run(options.only)}\n")
        return 0
    outcomes, failures, start = Counter(), [], time.perf_counter()
    for number in range(options.inputs):
        try:
            outcomes[fuzzer.run(number)] += 1
        except Exception as error:  # noqa: BLE001  (what the run is for)
            failures.append(f"--seed {options.seed} --only {number}: {error!r}")
    seconds = time.perf_counter() - start
    fuzzer.close()
    report = {"inputs": options.inputs, "seconds": round(seconds, 1), "failures": len(failures)}
    outcome = json.dumps(
        {**report, "first": failures[:5], "outcomes": dict(outcomes.most_common())}
    )
    sys.stdout.write(f"{outcome}\n")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
