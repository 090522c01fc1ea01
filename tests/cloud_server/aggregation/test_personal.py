"""Which tensors stay on the robots, and what a round does with the others."""

import numpy as np
import pytest

from cloud_server.aggregation.personal import personal_tensors, shared_part, with_personal
from fleet_model.errors import SettingsError
from fleet_model.types import Checkpoint

NAMES = ("block/conv.lora_a", "block/conv.lora_b", "head/kernel", "head/bias")


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ((), ()),
        (("head/*",), ("head/kernel", "head/bias")),
        (("head/bias", "*.lora_b"), ("block/conv.lora_b", "head/bias")),  # FedSA-LoRA
        (("head/bia?", "head/bias"), ("head/bias",)),
    ],
)
def test_patterns_name_tensors_in_the_order_of_the_trainer(patterns, expected):
    assert personal_tensors(patterns, NAMES) == expected


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (("head/*", "tail/*"), r"'tail/\*' is the name of no trained tensor; there are block/conv"),
        (("HEAD/*",), "is the name of no trained tensor"),
        (("*",), "keeps every trained tensor on the robots .* nothing would be shared"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(patterns, words):
    with pytest.raises(SettingsError, match=f"aggregation.personal: .*{words}"):
        personal_tensors(patterns, NAMES)


def test_a_round_sees_the_shared_part_and_the_checkpoint_keeps_the_last_state_of_the_rest():
    weights = {name: np.full(2, i, np.float32) for i, name in enumerate(NAMES)}
    start = Checkpoint(version=3, weights=weights, seed=5)

    shared = shared_part(start, ("head/bias",))
    assert list(shared.weights) == list(NAMES[:3])
    assert (shared.version, shared.seed) == (3, 5)
    folded = Checkpoint(version=4, weights={n: w + 10 for n, w in shared.weights.items()})
    whole = with_personal(folded, start, ("head/bias",))
    assert {n: w[0] for n, w in whole.weights.items()} == dict(
        zip(NAMES, (10, 11, 12, 3), strict=True)
    )
    assert list(whole.weights) == list(NAMES)
    assert whole.version == 4


def test_without_personal_tensors_nothing_is_copied():
    start = Checkpoint(version=3, weights={"w": np.zeros(2, np.float32)})
    assert shared_part(start, ()) is start
    assert with_personal(start, start, ()) is start
