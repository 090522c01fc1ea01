"""The parts of benchmarks/non_iid.py that can be wrong without anyone noticing."""

import gzip
import json

import numpy as np
import pytest

from benchmarks import non_iid, tune_non_iid
from benchmarks.fashion import CLASSES, LEAST, Pictures, _idx, deal
from benchmarks.fashion_fleet import (
    ARMS,
    Setting,
    contributions_of,
    fleet_of,
    flower,
    ours,
)
from benchmarks.non_iid import LAST, Made, setting_of
from benchmarks.non_iid_tables import Run, markdown
from benchmarks.small_cnn import (
    Windows,
    _layers,
    accuracy,
    first_weights,
    fit,
    gradient,
    windows_of,
)
from cloud_server.aggregation.aggregator import build_aggregator
from cloud_server.simulation.control import VirtualControls
from fleet_model.optimizer import log_shares
from fleet_model.types import Checkpoint, TrainConfig


def pictures(count, seed=0):
    """Pictures whose class is the row of a bright bar."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, CLASSES, count)
    pixels = rng.integers(0, 60, (count, 28, 28)).astype(np.uint8)
    for picture, name in zip(pixels, classes, strict=True):
        picture[2 * name + 4 : 2 * name + 6] += 150
    return Pictures(pixels, classes)


def test_an_idx_file_is_read(tmp_path):
    content = bytes((0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, *range(6)))
    (tmp_path / "x.gz").write_bytes(gzip.compress(content))

    assert _idx(tmp_path / "x.gz").tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("skew", [0.1, 100.0])
def test_each_picture_is_dealt_once_and_classes_by_the_skew(skew):
    classes = pictures(3000).classes

    dealt = deal(classes, 10, skew, np.random.default_rng(1))

    assert sorted(np.concatenate(dealt)) == list(range(3000))
    assert min(map(len, dealt)) >= LEAST
    most = [np.bincount(classes[rows]).max() / len(rows) for rows in dealt]
    assert np.mean(most) > 0.45 if skew < 1 else np.mean(most) < 0.2


def test_windows_are_the_pixels_below_the_kernel():
    made = windows_of(
        Pictures(np.arange(784, dtype=np.uint16).reshape(1, 28, 28), np.zeros(1, int))
    )

    window = made.windows[0].reshape(12, 12, 5, 5)[3, 7]
    expected = np.arange(784).reshape(28, 28)[6:11, 14:19]
    np.testing.assert_allclose(window, (expected / 255 - 0.286) / 0.353, rtol=1e-5)


def test_the_gradient_is_the_slope_of_the_loss():
    batch = windows_of(pictures(6))
    batch = Windows(batch.windows.astype(np.float64), batch.classes)
    weights = {name: one.astype(np.float64) for name, one in first_weights(3).items()}
    shift = np.linspace(-2, 1, CLASSES)

    def loss(changed):
        logits = _layers(changed, batch.windows)[-1] + shift
        logits -= np.log(np.exp(logits).sum(1, keepdims=True))
        return -logits[np.arange(6), batch.classes].mean()

    made = gradient(weights, batch, shift)
    rng = np.random.default_rng(0)
    for name, slope in made.items():
        direction = rng.normal(0, 1, slope.shape)
        near = [{**weights, name: weights[name] + d * direction} for d in (1e-6, -1e-6)]
        expected = (loss(near[0]) - loss(near[1])) / 2e-6
        assert (slope * direction).sum() == pytest.approx(expected, rel=1e-3, abs=1e-7), name


def test_a_robot_takes_the_steps_of_the_agents_optimizer():
    own, start = windows_of(pictures(50)), first_weights(3)
    config = TrainConfig(
        epochs=2, batch_size=64, learning_rate=0.02, clip_norm=0.5, proximal_mu=0.3,
        logit_adjustment=1.0,
    )  # fmt: skip

    update = fit(own, start, 4, config)

    shift = log_shares(np.bincount(own.classes, minlength=CLASSES), 1.0)
    weights = dict(start)
    velocity = {name: np.zeros_like(one) for name, one in start.items()}
    for _ in range(2):  # the whole batch twice, so that the order does not matter
        slope = gradient(weights, own, shift)
        slope = {name: g + 0.3 * (weights[name] - start[name]) for name, g in slope.items()}
        norm = np.sqrt(sum(float((g**2).sum()) for g in slope.values()))
        assert norm > 0.5
        for name, g in slope.items():
            velocity[name] = 0.9 * velocity[name] - 0.02 * g * 0.5 / norm
            weights[name] = weights[name] + velocity[name]
    assert (update.num_steps, update.num_examples, update.base_version) == (2, 50, 4)
    for name, change in update.weights.items():
        np.testing.assert_allclose(change, weights[name] - start[name], atol=2e-6, err_msg=name)


def test_a_fleet_learns_and_the_last_short_batch_counts():
    fleet = fleet_of(pictures(333), windows_of(pictures(200, seed=9)), 1.0, 5)

    curve = ours(fleet, ARMS["fedavg"], Setting(0.02), 6)

    assert accuracy(fleet.first, fleet.measured) < 0.4
    assert curve[-1] > 0.8
    steps = [one.num_steps for one in fleet.work(fleet.first, 0, Setting())]
    assert steps == [2 * -(-len(own) // 32) for own in fleet.robots]


def test_under_scaffold_the_server_holds_the_mean_of_the_robots_control_variates():
    fleet = fleet_of(pictures(400), windows_of(pictures(200, seed=9)), 0.5, 5)
    controls, setting = VirtualControls(), Setting(0.01)
    rule, checkpoint = build_aggregator("scaffold", {}), Checkpoint(version=0, weights=fleet.first)

    for _ in range(3):
        groups = rule.asks(checkpoint).groups
        updates = fleet.corrected(controls, checkpoint, groups, setting)
        checkpoint = rule.fold(checkpoint, contributions_of(updates))
        mean = rule.asks(checkpoint).groups["control"]
        for name, c in mean.items():
            own = [one[name] for one in controls.newest()]
            np.testing.assert_allclose(c, np.mean(own, 0), atol=1e-6, err_msg=name)

    # A corrected robot, whose c_i is not c, goes elsewhere than one that is not.
    plain = fleet.work(checkpoint.weights, 3, setting)[0].weights
    groups = rule.asks(checkpoint).groups
    corrected = fleet.corrected(controls, checkpoint, groups, setting)[0].weights
    assert not np.allclose(plain["head/bias"], corrected["head/bias"], atol=1e-4)


def test_a_model_that_is_not_finite_names_nothing_rightly():
    fleet = fleet_of(pictures(200), windows_of(pictures(100, seed=9)), 1.0, 5)

    assert ours(fleet, ARMS["fedavg"], Setting(1e6), 3)[-1] == 0


@pytest.mark.flower
@pytest.mark.parametrize("arm", ["fedavg", "fedprox", "fedavgm", "fedyogi", "median", "krum"])
def test_flower_learns_the_same_by_the_same_rule(arm):
    pytest.importorskip("flwr.serverapp.strategy")
    fleet = fleet_of(pictures(400), windows_of(pictures(200, seed=9)), 1.0, 5)

    both = [side(fleet, ARMS[arm], setting_of(arm), 2) for side in (ours, flower)]

    np.testing.assert_allclose(*both, atol=0.011)


def test_every_arm_has_settings_that_both_sides_take():
    pytest.importorskip("flwr.serverapp.strategy")
    for name in (*ARMS, "central"):
        setting = setting_of(name)
        arm = ARMS["fedavg" if name == "central" else name]
        assert build_aggregator(arm.rule, setting.options)
        assert not arm.strategy or arm.flower(setting)
        assert setting in tune_non_iid.GRIDS[name]
    assert setting_of("fedprox").proximal_mu
    assert setting_of("adjusted").logit_adjustment == 1


def test_a_finished_run_is_made_again_only_when_code_or_settings_change(tmp_path, monkeypatch):
    monkeypatch.setattr(non_iid, "WORK", tmp_path)
    run = Run("ours", "krum", 0.1, 0)
    place = non_iid._place(run)
    place.parent.mkdir()
    place.write_text(json.dumps({"curve": [0.5, 0.7], "seconds": 3.0}))

    assert non_iid._kept(run) == Made([0.5, 0.7], 3.0, cached=True)
    assert non_iid._kept(Run("ours", "krum", 0.1, 1)) is None
    monkeypatch.setattr(non_iid, "setting_of", lambda arm: Setting(0.5))
    assert non_iid._kept(run) is None


def test_comments_and_docstrings_are_not_code(tmp_path):
    texts = ('def f():\n    """One."""\n    return 1  # a\n', "def f():\n    return 1\n", "x = 2\n")
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.py").write_text(text)

    first, second, third = (non_iid._without_words(tmp_path / f"{n}.py") for n in range(3))

    assert first == second != third


def made(**accuracies):
    """Return runs: side_arm -> accuracy of each seed, at Dirichlet 0.1."""
    runs = {Run("ours", "central", 0.0, 0): Made([0.1, *[0.9] * LAST], 60.0)}
    for name, values in accuracies.items():
        side, _, arm = name.partition("_")
        for seed, value in enumerate(values):
            runs[Run(side, arm, 0.1, seed)] = Made([0.1, *[value] * LAST], 60.0, cached=True)
    return runs


def test_figures_are_means_of_the_last_rounds_and_of_seeds():
    runs = made(ours_fedavg=[0.7, 0.8], flower_fedavg=[0.76, 0.76], ours_adjusted=[0.8, 0.9])

    result = non_iid.result(runs)

    figures = result.figures
    assert figures["central"] == pytest.approx(0.9)
    assert figures["ours_0.1_fedavg"] == pytest.approx(0.75)
    assert figures["flower_0.1_fedavg"] == pytest.approx(0.76)
    assert figures["most_behind_flower"] == pytest.approx(0.01)
    assert figures["gap_left"] == pytest.approx(0.05 / 0.15)
    assert (figures["runs"], figures["cached_runs"]) == (7, 6)
    assert result.comparisons[0].ratio == pytest.approx(0.24 / 0.25)


def test_a_rule_that_flower_lacks_has_a_dash():
    runs = made(ours_fedavg=[0.7, 0.8], flower_fedavg=[0.76, 0.76], ours_adjusted=[0.8, 0.9])

    table = markdown({run: one.accuracy for run, one in runs.items()})

    assert "| `fedavg` | 0.750 | 0.760 | 0.700 to 0.800 |" in table
    assert "| `adjusted` | 0.850 | - | 0.800 to 0.900 |" in table
