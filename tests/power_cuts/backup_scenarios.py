"""Power cuts while a backup is written, and while a directory is made of it."""

import io
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from init_scenarios import _fleet, _initialize
from power_cuts import Scenario
from recorder import mark
from server_scenarios import served_version

from cloud_server.backup.archive import Archive
from cloud_server.backup.backup import back_up
from cloud_server.backup.restore import restore
from cloud_server.models.release_log import ReleaseLog
from cloud_server.signing.signing import unsigned
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from fleet_model.bundle import require_file, sha256_of
from fleet_model.errors import SettingsError

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
OLD = b"of yesterday"


def _file(root: Path) -> Path:
    return root / "fleet.tar"


def _before(root: Path) -> None:
    _initialize(root)
    _file(root).write_bytes(OLD)


def _back_up(root: Path) -> None:
    back_up(_fleet(root), _file(root), NOW, str)
    mark()


def _backup(root: Path) -> str:
    """Return "old", or "new" for one that can be restored."""
    content = _file(root).read_bytes()
    if content == OLD:
        return "old"
    with tempfile.TemporaryDirectory() as folder:
        restore(io.BytesIO(content), "fleet.tar", Path(folder, "fleet"), NOW, str)
    return "new"


def _with_backup(root: Path) -> None:
    _initialize(root)
    _back_up(root)


def _restore(root: Path) -> None:
    with _file(root).open("rb") as stream:
        restore(stream, "fleet.tar", root / "servers" / "again", NOW, str)
    mark()


def _restored(root: Path) -> str:
    """Return whether the directory is there; what is there must be complete."""
    again = root / "servers" / "again"
    if not again.exists():
        return "absent"
    with _file(root).open("rb") as stream:
        for name, entry in Archive(stream, "fleet.tar").contents.files.items():
            # Channels offer the new number, and that is signed, which the log tells in new lines.
            if name == "releases.jsonl":
                begin = (again / name).read_bytes()[: entry.size_bytes]
                assert sha256_of(begin) == entry.sha256
            elif not name.startswith(("store/channels/", "store/metadata/")):
                require_file(again / name, entry)
    server_dir = ServerDirectory(again)
    assert Checkpoints(server_dir.checkpoints).latest().version == 1000
    assert served_version(DirectoryStore(server_dir.store)) == 1000
    assert ReleaseLog(server_dir.releases).by_version()[1000].of == 0
    assert unsigned(server_dir, NOW) == []
    return "complete"


def _restore_again(root: Path) -> None:
    try:
        _restore(root)
    except SettingsError:  # it is there already
        assert _restored(root) == "complete"


BACKUP = Scenario(prepare=_before, act=_back_up, observe=_backup, resume=_back_up)
RESTORE = Scenario(prepare=_with_backup, act=_restore, observe=_restored, resume=_restore_again)
