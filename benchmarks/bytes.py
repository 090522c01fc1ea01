"""What a robot sends and receives a round, against sending the whole model in float32.

Two fleets learn the head of the shipped trunk, the robots of heads.py: the camera's (four robots)
and scikit-learn's digits (twenty). Each arm is another `rounds.compression`. The camera's robots
learn the last block, too: whole, and with adapters, without and with int8 (block_fleet.py).

Updates go through the agent's own residual file and encoder, the message, the server's decoder, and
its rule; bytes are those of all objects of the messages, with what Flower puts around the tensors.
The peer is what the same training costs where the whole model travels, as a stock Flower app sends
it: every weight of EfficientNet-Lite0 in float32, in the same messages. What compression costs in
accuracy is measured against the same training without it; what adapters cost, against the last
block as it is, in float32.

Adapters learn more slowly than the block. So `bytes_lora_int8` counts all rounds of both: bytes to
the same accuracy, or as near to it as `accuracy_loss_points` says.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks import block_fleet, camera_fleet, digit_fleet
from benchmarks.block_fleet import (
    OURS,
    PEER,
    SAME,
    Curves,
    base_bytes,
    block_curves,
    block_sizes,
)
from benchmarks.bytes_on_wire import Size, learn, size_of
from benchmarks.heads import SKEW, WORK
from benchmarks.lite0 import lite0_bundle
from benchmarks.measure import Comparison, Limit, Result, arguments, report, say
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from fleet_model.compression.codec import FP16, INT8, TOPK, Codec
from fleet_model.types import FLOAT32, Checkpoint, TrainConfig, Update
from fleet_model.workloads.image_classifier.imagenet_weights import read_lite0

ARMS = {
    "none": Codec(FLOAT32),
    "fp16": Codec(FP16),
    "int8": Codec(INT8),
    "topk": Codec(TOPK, 0.05),
    "topk_1": Codec(TOPK, 0.01),
}
HEAD = "int8"  # the arm of the ratio
POINTS = 0.5  # of accuracy, in percent, that an arm may lose
SEEDS = 10  # of the camera
T_95 = 2.262  # Student's t with SEEDS - 1 degrees of freedom: 95 % lie within plus and minus it
Scores = Mapping[str, Sequence[float]]  # arm -> accuracy, one a seed


def main() -> None:
    """Measure all, print it."""
    options = arguments(__doc__ or "", quick="one seed each, 80 frames a robot, the block with 32")
    quick, recorded = options.quick, 80 if options.quick else 240
    lite0_bundle(WORK / "lite0")
    seeds = range(1, 2 if quick else 1 + SEEDS)
    cameras = camera_scores(seeds, recorded)
    digits = digit_scores(range(1 if quick else 3))
    rounds = block_fleet.QUICK if quick else block_fleet.ROUNDS
    blocks = block_curves(WORK, seeds, recorded, 32 if quick else 96, rounds)
    head, block = sizes(), block_sizes(WORK)
    made = result(cameras, digits, blocks, head, block, whole_model(), base_bytes(WORK))
    report(made, as_json=options.json)


def camera_scores(seeds: range, frames: int) -> Scores:
    """Return the accuracy of each arm on robots that never train."""
    scores: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for seed in seeds:
        fleet = camera_fleet.camera_fleet(WORK, seed, frames)
        fit = partial(_camera_update, fleet)
        for arm, values in scores.items():
            learned = learn(ARMS[arm], len(fleet.robots), fleet.first, fit)
            values.append(fleet.accuracy(learned))
        say(f"camera, seed {seed}: " + _row(scores))
    return scores


def digit_scores(seeds: range) -> Scores:
    """Return the accuracy of each arm where a robot has one or two of ten classes."""
    digits = digit_fleet.read_digits(WORK, WORK / "lite0" / "server" / "model")
    scores: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for seed in seeds:
        fleet = digit_fleet.digit_fleet(digits, seed, SKEW)
        fit = partial(_digit_update, fleet)
        for arm, values in scores.items():
            learned = learn(ARMS[arm], len(fleet.robots), fleet.first(), fit)
            values.append(fleet.accuracy(learned))
        say(f"digits, seed {seed}: " + _row(scores))
    return scores


def _camera_update(fleet: camera_fleet.Fleet, number: int, start: Checkpoint) -> Update:
    config = replace(fleet.config, logit_adjustment=1.0)
    return camera_fleet.fit(fleet.robots[number], start, config, 0)


def _digit_update(fleet: digit_fleet.DigitFleet, number: int, start: Checkpoint) -> Update:
    config = TrainConfig(seed=1000 * start.version + number, logit_adjustment=1.0)
    return digit_fleet.fit(fleet.robots[number], start, config)


def sizes() -> Mapping[str, Size]:
    """Return arm -> bytes of the messages of a head for four labels."""
    first = Checkpoints(ServerDirectory(WORK / "lite0" / "server").checkpoints).load(0)
    return {arm: size_of(first.weights, codec) for arm, codec in ARMS.items()}


def whole_model() -> Size:
    """Return the bytes of the messages where all of EfficientNet-Lite0 travels in float32."""
    trunk = {
        name: tensor
        for name, tensor in read_lite0().items()  # with ImageNet's own head, and counters
        if tensor.dtype == np.float32 and not name.startswith("_fc.")
    }
    head = Checkpoints(ServerDirectory(WORK / "lite0" / "server").checkpoints).load(0).weights
    return size_of({**trunk, **head}, ARMS["none"])


def result(
    cameras: Scores,
    digits: Scores,
    blocks: Curves,
    head: Mapping[str, Size],
    block: Mapping[str, Size],
    whole: Size,
    base: int,
) -> Result:
    """Return the table; a robot's bytes of a round are those of both directions.

    Args:
        cameras: accuracies with a head on the camera's robots.
        digits: the same on those of digits.
        blocks: accuracies with the last block.
        head: arm -> bytes of a head.
        block: arm -> bytes of a last block.
        whole: bytes of the whole model.
        base: bytes that robots with adapters fetch once.
    """
    figures: dict[str, float] = {"whole_model_up": whole.up, "whole_model_down": whole.down}
    for arm, size in head.items():
        figures |= {
            f"up_{arm}": size.up,
            f"camera_{arm}": statistics.mean(cameras[arm]),
            f"digits_{arm}": statistics.mean(digits[arm]),
        }
    figures["down_head"] = head[HEAD].down
    figures["head_loss_points"] = max(
        100 * (statistics.mean(scores["none"]) - statistics.mean(scores[HEAD]))
        for scores in (cameras, digits)
    )
    for arm, size in block.items():
        figures |= {f"block_up_{arm}": size.up, f"block_down_{arm}": size.down}
    figures |= block_figures(blocks)
    lora = block[OURS].both
    rounds = {arm: figures[f"rounds_{arm}"] for arm in (OURS, PEER)}
    ours, peer = lora * rounds[OURS], whole.both * rounds[PEER]
    figures |= {"base_bytes": base, "bytes_lora_int8_with_base": peer / (ours + base)}
    return Result(
        benchmark="bytes",
        comparisons=[
            Comparison("bytes_head", "B", head[HEAD].both, whole.both, required=100),
            Comparison("bytes_head_up", "B", head[HEAD].up, whole.up, required=100),
            Comparison("bytes_lora_int8", "B", ours, peer, required=20),
            Comparison("bytes_lora_int8_per_round", "B", lora, whole.both),
        ],
        figures=figures,
        limits=[
            Limit(key, POINTS)
            for key in ("head_loss_points", "int8_loss_points", "accuracy_loss_points")
        ],
    )


def block_figures(curves: Curves) -> Mapping[str, float]:
    """Return the last block's rounds and accuracies, and what adapters lose, in points.

    The loss of a seed is that of two fleets with the same robots, so its mean over seeds is known
    better than either accuracy; the interval is that of Student's t.
    """
    last = {arm: [curve[-1] for curve in of_seeds] for arm, of_seeds in curves.items()}
    figures: dict[str, float] = {}
    for arm, of_seeds in curves.items():
        means = [statistics.mean(one) for one in zip(*of_seeds, strict=True)]
        figures |= {
            f"rounds_{arm}": len(means),
            f"block_{arm}": means[-1],
            f"block_best_{arm}": max(means),
        }
    for key, reference in (("int8_loss_points", SAME), ("accuracy_loss_points", PEER)):
        lost = [100 * (r - o) for r, o in zip(last[reference], last[OURS], strict=True)]
        figures[key] = statistics.mean(lost)
        if len(lost) == SEEDS:
            around = T_95 * statistics.stdev(lost) / math.sqrt(SEEDS)
            figures |= {
                f"{key}_deviation": statistics.stdev(lost),
                f"{key}_low": figures[key] - around,
                f"{key}_high": figures[key] + around,
            }
    return figures


def _row(scores: Scores) -> str:
    return ", ".join(f"{arm} {values[-1]:.3f}" for arm, values in scores.items())


if __name__ == "__main__":
    main()
