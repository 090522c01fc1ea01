"""Commands over published models."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_server.cli.terminal import Directory, Json, console, table

if TYPE_CHECKING:
    from cloud_server.state.model_store import DirectoryStore

Version = Annotated[int, typer.Argument(min=0, help="as `cloud-server models list` shows it")]

app = typer.Typer(no_args_is_help=True, help="Published models.")


@app.command("list")
def models_list(directory: Directory, json_output: Json = False) -> None:
    """List the published versions."""
    store = _store(directory)
    channels, versions, pins = store.channels(), store.versions(), store.pins()
    if json_output:
        values = [m.model_dump(mode="json") for m in versions]
        answer = {"channels": channels, "pins": sorted(pins), "versions": values}
        typer.echo(json.dumps(answer))
        return
    rows = [
        (
            str(m.version),
            m.created_at[:19],
            ", ".join(name for name, version in channels.items() if version == m.version),
            "yes" if m.version in pins else "",
            m.workload.name,
            f"{sum(entry.size_bytes for entry in m.files.values()) / 1e6:.1f} MB",
        )
        for m in versions
    ]
    table(("version", "created (UTC)", "channel", "pinned", "workload", "files"), rows)


@app.command("pin")
def models_pin(directory: Directory, version: Version) -> None:
    """Keep a published version, however many newer ones there are."""
    _store(directory).pin(version)
    console().print(f"version {version} stays until `cloud-server models unpin`", soft_wrap=True)


@app.command("unpin")
def models_unpin(directory: Directory, version: Version) -> None:
    """Let a version be deleted when publish.keep_versions newer ones are published."""
    _store(directory).unpin(version)
    console().print(f"version {version} is no longer pinned")


def _store(directory: Path) -> "DirectoryStore":
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.model_store import DirectoryStore

    server_dir = ServerDirectory(directory)
    server_dir.require()
    return DirectoryStore(server_dir.store)
