"""The mean of adapters of a model that sees, beside what the library makes of two of them."""

import numpy as np
import pytest
from tiny_vision_language import write_vision_language_model

from cloud_server.aggregation.contributions import Contribution, UpdatesInMemory
from cloud_server.aggregation.rules.fedex_lora import FedExLora
from fleet_model.adapters.lora import merged
from fleet_model.adapters.spec import LoraSpec
from fleet_model.types import Checkpoint, Update

pytestmark = pytest.mark.torch
RANK, ALPHA, SHARES = 2, 4.0, (0.25, 0.75)
CLIENTS = "one", "two"


@pytest.fixture
def adapted(tmp_path):
    """Return a model with the adapters of two clients, of random numbers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlavaForConditionalGeneration

    base = write_vision_language_model(tmp_path / "llava")
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=r".*language_model.*\.(q_proj|v_proj)"
    )
    plain = LlavaForConditionalGeneration.from_pretrained(base)
    model = get_peft_model(plain, config, adapter_name=CLIENTS[0])
    model.add_adapter(CLIENTS[1], config)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data.normal_(generator=generator)
    return model


def changes_of(layers, client):
    """Return what an adapter adds to each kernel, as the library computes it; (in, out)."""
    return {n: one.get_delta_weight(client).detach().numpy().T for n, one in layers.items()}


def folded(layers):
    """Return what the server's rule adds to each kernel after a round of both clients."""
    factors = [
        {
            f"{name}.lora_{kind}": getattr(one, f"lora_{kind.upper()}")[client]
            .weight.detach().numpy().T
            for name, one in layers.items()
            for kind in "ab"
        }
        for client in CLIENTS
    ]  # fmt: skip
    start = {name: np.zeros_like(tensor) for name, tensor in factors[0].items()}
    pairs = [
        (
            Contribution(robot=client, site="", examples=int(100 * share), staleness=0, norm=1.0),
            Update(robot=client, base_version=4, weights=own, num_examples=1, num_steps=1),
        )
        for client, share, own in zip(CLIENTS, SHARES, factors, strict=True)
    ]
    checkpoint = Checkpoint(version=4, weights=start, seed=3)
    weights = FedExLora().fold(checkpoint, UpdatesInMemory(pairs)).weights
    kernels = {
        name: np.zeros(one.base_layer.weight.T.shape, np.float32) for name, one in layers.items()
    }
    spec = LoraSpec(rank=RANK, alpha=ALPHA, targets={n: k.shape for n, k in kernels.items()})
    return merged(spec, weights, kernels)


def test_the_rules_mean_is_exact_and_the_librarys_linear_mix_is_not(adapted):
    from peft.tuners.lora import Linear

    layers = {n: one for n, one in adapted.named_modules() if isinstance(one, Linear)}
    assert len(layers) == 4
    own = [changes_of(layers, client) for client in CLIENTS]
    adapted.add_weighted_adapter([*CLIENTS], [*SHARES], "mix", combination_type="linear")
    mixed, ours = changes_of(layers, "mix"), folded(layers)
    for name in layers:
        mean = sum(share * one[name] for share, one in zip(SHARES, own, strict=True))
        scale = np.abs(mean).max()
        assert np.abs(ours[name] - mean).max() < 1e-5 * scale
        assert np.abs(mixed[name] - mean).max() > 0.1 * scale
