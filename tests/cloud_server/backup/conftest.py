from datetime import datetime, timezone

import pytest

from cloud_server.backup.backup import back_up
from cloud_server.backup.restore import restore

NOW = datetime(2026, 11, 30, 2, tzinfo=timezone.utc)


@pytest.fixture
def now():
    """When backups are made here."""
    return NOW


@pytest.fixture
def backup_of(tmp_path):
    """Return what makes a backup and returns its file."""

    def make(server_dir, name="fleet.tar"):
        back_up(server_dir, tmp_path / name, NOW, str)
        return tmp_path / name

    return make


@pytest.fixture
def restored(tmp_path):
    """Return what restores a file to a new directory."""

    def make(file, to="restored", now=NOW):
        with file.open("rb") as stream:
            return restore(stream, file.name, tmp_path / to, now, str)

    return make
