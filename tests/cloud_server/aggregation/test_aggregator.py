import pytest

from cloud_server.aggregation.aggregator import AGGREGATORS
from fleet_model.loading import load_plugin

pytestmark = pytest.mark.base


@pytest.mark.parametrize("name", AGGREGATORS)
def test_every_rule_of_the_table_can_be_made_and_has_the_interface(name):
    rule = load_plugin(AGGREGATORS, name)()

    assert all(callable(getattr(rule, method)) for method in ("begin", "add", "finish"))
