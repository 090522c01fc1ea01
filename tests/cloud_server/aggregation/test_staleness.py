import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.aggregation.staleness import staleness_weight

pytestmark = pytest.mark.base


@pytest.mark.parametrize(("staleness", "weight"), [(0, 1.0), (3, 0.5), (8, 1 / 3), (99, 0.1)])
def test_the_weight_is_that_of_the_paper(staleness, weight):
    assert staleness_weight(staleness) == pytest.approx(weight, rel=1e-15)


@given(staleness=st.integers(0, 10_000))
def test_older_never_counts_more(staleness):
    assert 0 < staleness_weight(staleness + 1) < staleness_weight(staleness) <= 1
