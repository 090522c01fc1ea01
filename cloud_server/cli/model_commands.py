"""Commands over published models."""

import json

import typer

from cloud_server.cli.terminal import Directory, Json, table

app = typer.Typer(no_args_is_help=True, help="Published models.")


@app.command("list")
def models_list(directory: Directory, json_output: Json = False) -> None:
    """List the published versions."""
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.model_store import DirectoryStore

    server_dir = ServerDirectory(directory)
    server_dir.require()
    store = DirectoryStore(server_dir.store)
    channels, versions = store.channels(), store.versions()
    if json_output:
        values = [m.model_dump(mode="json") for m in versions]
        typer.echo(json.dumps({"channels": channels, "versions": values}))
        return
    rows = [
        (
            str(m.version),
            m.created_at[:19],
            ", ".join(name for name, version in channels.items() if version == m.version),
            m.workload.name,
            f"{sum(entry.size_bytes for entry in m.files.values()) / 1e6:.1f} MB",
        )
        for m in versions
    ]
    table(("version", "created (UTC)", "channel", "workload", "files"), rows)
