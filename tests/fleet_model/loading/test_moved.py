from importlib.util import find_spec

import pytest

from fleet_model.loading.moved import OLD_NAMES, new_name

pytestmark = pytest.mark.base


def exists(module):
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize(("old", "new"), OLD_NAMES.items())
def test_a_module_that_has_moved_is_at_its_new_name_and_not_at_the_old_one(old, new):
    assert exists(new)
    assert not exists(old) or new.startswith(f"{old}.")  # a package in the place of the module


@pytest.mark.parametrize(
    ("module", "new"),
    [
        ("edge_agent.frames.bag", "edge_agent.data.frames.bag"),
        ("cloud_server.runs", "cloud_server.runs.runs"),
        ("cloud_server.runs.no_such", None),
        ("cloud_server.aggregation.fedavg", "cloud_server.aggregation.rules.fedavg"),
        ("cloud_server.aggregation.contributions", None),
        ("numpy", None),
        ("", None),
    ],
)
def test_a_name_is_looked_up_with_its_packages(module, new):
    assert new_name(module) == new
