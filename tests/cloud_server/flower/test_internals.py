"""The contract with Flower, the server's half: its internals are in their places."""

import pytest
import tomllib

from cloud_server.flower import INTERNALS
from cloud_server.flower.flower_superlink import STOCK_APP
from fleet_model.loading import load_plugin

pytestmark = pytest.mark.flower


@pytest.mark.parametrize("internal", INTERNALS)
def test_flower_has_the_internal(internal, require_internal):
    require_internal(internal, "cloud_server/flower/__init__.py")


def test_the_fallback_for_stock_supernodes_names_code_that_exists():
    app = tomllib.loads(STOCK_APP.decode())["tool"]["flwr"]["app"]

    assert load_plugin({}, app["components"]["clientapp"]) is not None
