"""The inference side runs where only the base dependencies are installed."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.base

BLOCKED = ["flwr", "keras", "tensorflow", "torch"]
INFERENCE_SIDE = [
    "fleet_model.bundle",
    "fleet_model.engine",
    "fleet_model.store",
    "fleet_model.types",
    "edge_agent.models.deploy",
    "edge_agent.data.frames",
    "edge_agent.models.predict",
]


@pytest.mark.parametrize("module", INFERENCE_SIDE)
def test_a_module_of_the_inference_side_imports_without_the_training_stack(module: str) -> None:
    # None in sys.modules makes an import raise ModuleNotFoundError, as where it is not installed.
    block = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED!r}))"
    subprocess.run([sys.executable, "-c", f"{block}; import {module}"], check=True)
