"""A real server that kills itself with SIGKILL at one named step, once; the export is a fake.

python killing_server.py DIR [STEP NTH]: before or after (a "+" at the end of STEP) the NTH call of
a function the process is gone. The next server on the same directory lives.
"""

import os
import shutil
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

STEPS = {
    "send": ("cloud_server.flower.flower_link", "LinkGrid.push"),
    "half sent": ("cloud_server.flower.flower_state", "FlowerState.keep_whole"),
    "keep": ("cloud_server.rounds.round_journal", "DiskJournal.keep"),
    "half kept": ("cloud_server.rounds.reply_spool", "_append"),
    "half a checkpoint": ("fleet_model.weights", "write_weights"),
    "checkpoint": ("cloud_server.state.checkpoints", "Checkpoints.save"),
    "history": ("cloud_server.state.directory", "ServerDirectory.append_history"),
    "close": ("cloud_server.rounds.round_journal", "DiskJournal.close"),
    "run file": ("cloud_server.runs.run_store", "RunStore.save"),
    "prune": ("cloud_server.state.checkpoints", "Checkpoints.prune"),
    "publish": ("cloud_server.runs.lifecycle", "publish"),
}
TORN = "half kept+"


def main() -> None:
    directory, *armed = Path(sys.argv[1]), *sys.argv[2:]
    from cloud_server.runs import lifecycle

    lifecycle.publish = publish
    mark = directory / "killed"
    if armed and not mark.exists():
        arm(armed[0], int(armed[1]), mark)
    sys.argv = ["cloud-server", "start", str(directory)]
    from cloud_server.cli import main as cli

    cli()


def arm(step: str, nth: int, mark: Path) -> None:
    module, _, path = STEPS[step.rstrip("+")][0], None, STEPS[step.rstrip("+")][1]
    owner = import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    real, calls = getattr(owner, name), 0

    def killing(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == nth:
            if step.endswith("+"):
                real(*args, **kwargs)
            if step == TORN:
                tear(args[0])
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(owner, name, killing)


def tear(stream: BinaryIO) -> None:
    """Leave a file without its last bytes, as a power cut does that comes while it is written."""
    stream.flush()
    os.truncate(stream.fileno(), stream.tell() - 7)


def publish(server_dir, settings, checkpoint, progress=None, stop=None, tell=lambda: None):
    """Publish the files of the newest version again, as the checkpoint's."""
    from cloud_server.state.model_store import DirectoryStore
    from fleet_model.bundle import MANIFEST, TRAINER

    store = DirectoryStore(server_dir.store)
    newest = store.versions(server_dir.lineage)[-1]
    manifest = newest.model_copy(update={"version": checkpoint.version})
    aside = server_dir.root / "bundle"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for name, entry in {**manifest.files, TRAINER: manifest.trainer}.items():
        shutil.copy(store.object(entry.sha256), aside / name)
    (aside / MANIFEST).write_text(manifest.model_dump_json())
    tell()
    return store.publish(aside, settings.channel, server_dir.model, server_dir.lineage)


if __name__ == "__main__":
    main()
