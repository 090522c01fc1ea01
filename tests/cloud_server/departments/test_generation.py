"""Rows of one group, each with an adapter of its own."""

import pytest

pytestmark = pytest.mark.torch


def test_rows_of_several_adapters_are_answered_as_each_alone():
    import torch

    from cloud_server.departments.generation import together

    torch.manual_seed(0)

    def adapter(rank, *targets):
        return {t: (torch.randn(6, rank), torch.randn(rank, 4)) for t in targets}

    one, two, three = adapter(1, "q", "v"), adapter(3, "q"), {}
    assert together([one, one]) is one
    x = torch.randn(3, 5, 6)  # (rows, tokens, fan_in)
    found = together([one, two, three])
    for target in ("q", "v"):
        a, b = found[target]
        for row, own in enumerate((one, two, three)):
            alone = x[row] @ own[target][0] @ own[target][1] if target in own else 0
            assert torch.allclose((x @ a @ b)[row], alone + torch.zeros(5, 4), atol=1e-5)
    assert together([{}, {}]) == {}


def test_drawn_tokens_are_among_the_likely_ones_and_the_same_with_the_same_seed():
    import torch

    from cloud_server.departments.generation import Ask, _chosen

    scores = torch.tensor([0.0, 2.0, 1.0, -1.0])

    def drawn(**how):
        ask = Ask(number=1, ids=[1], most=99, factors={}, **how)
        return [_chosen(ask, scores.clone()) for _ in range(40)]

    assert set(drawn()) == {1}
    assert set(drawn(temperature=2.0, top_p=0.01)) == {1}
    assert set(drawn(temperature=1.0, top_p=0.7)) == {1, 2}  # .63 and .23
    assert drawn(temperature=1.0, seed=4) == drawn(temperature=1.0, seed=4)
    assert drawn(temperature=1.0, seed=4) != drawn(temperature=1.0, seed=5)
