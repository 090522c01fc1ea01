"""`cloud-server models sync`."""

from typing import Annotated

import typer

from cloud_server.cli.terminal import Directory
from fleet_model.errors import SettingsError


def models_sync(
    directory: Directory,
    destination: Annotated[
        str, typer.Argument(help="folder of a web server, or a bucket as s3://bucket/folder")
    ],
    option: Annotated[
        list[str] | None,
        typer.Option(help="of the bucket, KEY=VALUE, e.g. endpoint_url=https://s3.example"),
    ] = None,
) -> None:
    """Bring models and signatures to where robots fetch them (server.models in agent.toml).

    Call it after each publication, and a few times a day: what is there counts for one day.
    """
    from cloud_server.signing.sync import destination_of, sync
    from cloud_server.state.directory import ServerDirectory

    server_dir = ServerDirectory(directory)
    server_dir.require()
    options = {}
    for one in option or ():
        key, equals, value = one.partition("=")
        if not key or not equals:
            raise SettingsError(f"--option {one}: expected KEY=VALUE")
        options[key] = value
    done = sync(server_dir, destination_of(destination, options, server_dir.store))
    typer.echo(
        f"{destination}: {done.brought} files brought ({done.size_bytes / 1e6:.1f} MB), "
        f"{done.removed} removed; it counts until {done.until} UTC, bring the next before"
    )
