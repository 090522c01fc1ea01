import json
import sys
from pathlib import Path

import pytest

from cloud_server.models.export import BundleJob, run_export
from fleet_model.errors import ExportError, SettingsError


@pytest.fixture
def job(tmp_path):
    return BundleJob(
        model=tmp_path,
        weights=Path("weights.safetensors"),
        version=1,
        created_at="2026-01-01T00:00:00Z",
        directory=tmp_path / "bundle",
    )


@pytest.fixture
def child_does(tmp_path, monkeypatch):
    """Let a shell script take the place of the child's Python."""

    def install(script):
        shell = tmp_path / "python"
        shell.write_text(f"#!/bin/sh\n{script}\n")
        shell.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(shell))

    return install


@pytest.mark.parametrize(
    ("error", "raised"), [("SettingsError", SettingsError), ("OddWeightsError", ExportError)]
)
def test_an_error_class_that_only_a_plugin_knows_is_an_export_error(job, child_does, error, raised):
    answer = json.dumps({"error": error, "message": "the gate refused it"})
    child_does(f"echo '{answer}'; exit 9")

    with pytest.raises(raised, match=r"^the gate refused it$"):
        run_export(job)
