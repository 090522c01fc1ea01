"""Ways to damage a file, and the loop that reads damaged ones; for fuzz_db3 and fuzz_ros1."""

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

LONGEST_S = 2.0
EXTREMES = (
    b"\xff" * 8,
    bytes(8),
    b"\0\0\0\0\0\0\0\x80",
    b"\xff\xff\xff\x7f\0\0\0\0",
    b"\1" + bytes(7),
)


def flip(rng, data, _):
    damaged = bytearray(data)
    damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def overwrite(rng, data, _):
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        at = rng.randrange(len(data))
        damaged[at : at + 8] = rng.choice(EXTREMES)[: rng.choice((1, 2, 4, 8))]
    return bytes(damaged)


def cut(rng, data, _):
    return data[: rng.randrange(len(data))]


def zero(rng, data, _):
    at, count = rng.randrange(len(data)), rng.randrange(2000)
    return data[:at] + bytes(len(data[at : at + count])) + data[at + count :]


def splice(rng, data, others):
    other = rng.choice(others)[1]
    at, begin, count = rng.randrange(len(data)), rng.randrange(len(other)), rng.randrange(2000)
    return data[:at] + other[begin : begin + count] + data[at + rng.choice((0, count)) :]


def remove(rng, data, _):
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randrange(600) :]


MUTATIONS = (flip, flip, flip, overwrite, cut, zero, splice, remove)


class Fuzzer:
    """Reads one damaged file after the other through a file in memory."""

    def __init__(self, kind, seeds, check, seed):
        """Keep the StorageFile to read with, named good files, a check of (name, mutation,
        messages that loaded, messages of the good file, all losses), and the run's number."""
        self.kind, self.seeds, self.check, self.seed = kind, sorted(seeds.items()), check, seed
        self.descriptor = os.memfd_create("fuzz")
        self.path = Path(f"/proc/self/fd/{self.descriptor}")
        self.written = {name: self.read(data)[0] for name, data in self.seeds}

    def close(self):
        os.close(self.descriptor)

    def read(self, data):
        """Return the messages, and the losses by kind."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, data, 0)
        damage, messages = DamageLog(), []
        with self.kind(self.path) as file:
            names = {topic.name for topic in file.topics()}
            for stored in file.messages(names, damage):
                try:
                    messages.append(bytes(stored.load()))
                except FrameError as error:
                    damage.add(error.reason, str(error))
        return messages, {loss.kind: loss.count for loss in damage.all()}

    def run(self, number):
        """Read input `number`; return a word for what happened."""
        rng = random.Random(f"{self.seed}-{number}")
        name, data = rng.choice(self.seeds)
        mutate = rng.choice(MUTATIONS)
        start = time.process_time()
        try:
            messages, losses = self.read(mutate(rng, data, self.seeds))
        except FrameError as error:
            return f"{mutate.__name__}: refused, {error.reason}"
        finally:
            seconds = time.process_time() - start
            assert seconds < LONGEST_S, f"{name}: {mutate.__name__} took {seconds:.1f} s"
        self.check(name, mutate, messages, self.written[name], losses)
        found = (
            "all" if len(messages) == len(self.written[name]) else "some" if messages else "none"
        )
        return f"{mutate.__name__}: {found}"


def main(kind, seeds, check, arguments=None):
    """Run a fuzzer from the command line; returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="repeat one input; raises what it raises")
    options = parser.parse_args(arguments)
    fuzzer = Fuzzer(kind, seeds(), check, options.seed)
    if options.only is not None:
        sys.stdout.write(fuzzer.run(options.only) + "\n")
        return 0
    outcomes, failures, start = Counter(), [], time.perf_counter()
    for number in range(options.inputs):
        try:
            outcomes[fuzzer.run(number)] += 1
        except Exception as error:  # noqa: BLE001  (any is what is searched)
            failures.append(f"--seed {options.seed} --only {number}: {error!r}")
    seconds = time.perf_counter() - start
    fuzzer.close()
    report = {"inputs": options.inputs, "seconds": round(seconds, 1), "failures": len(failures)}
    report |= {"first": failures[:5], "outcomes": dict(outcomes.most_common())}
    sys.stdout.write(json.dumps(report) + "\n")
    return int(bool(failures))


def differences(one, other):
    """Return in how many bytes two messages of equal length differ; many if they are not equal."""
    if len(one) != len(other):
        return len(one) + len(other)
    return 0 if one == other else sum(a != b for a, b in zip(one, other, strict=True))


def check_each_was_written(messages, written, most):
    """Fail on a message that was never written but for `most` bytes, or that comes twice."""
    left = Counter(written)
    left.subtract(messages)
    changed = [message for message, count in left.items() for _ in range(-count)]
    free = list(left.elements())
    for message in changed:
        near = [w for w in free if differences(w, message) <= most]
        assert near, f"a message that was never written, or twice: {message[:40]!r}"
        free.remove(near[0])
