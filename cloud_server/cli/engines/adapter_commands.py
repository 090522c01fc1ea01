"""`cloud-server adapters`: those of departments, as peft loads them."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_server.cli.terminal import Directory, Json, console, table

if TYPE_CHECKING:
    from cloud_server.departments.upload import Found
    from fleet_model.bundle import TrainerSpec

app = typer.Typer(no_args_is_help=True, help="Adapters of departments, as peft loads them.")
Folder = Annotated[
    Path | None,
    typer.Option(
        "--adapters",
        help="folder with DEPARTMENT/ or round-N/DEPARTMENT/, as peft has adapters; else those of "
        "a rehearsal in DIR, else what DIR publishes",
    ),
]
Department = Annotated[
    list[str] | None, typer.Option("--department", help="repeatable; default: all")
]


@app.command("list")
def adapters_list(directory: Directory, adapters: Folder = None, json_output: Json = False) -> None:
    """Show which adapter each department has; each is checked."""
    from cloud_server.departments.upload import listed

    with _collected(directory, adapters, ()) as (found, _):
        if json_output:
            typer.echo(json.dumps({"adapters": listed(found)}))
            return
        table(
            ["department", "of", "rank", "kB", "sha256"],
            [
                [
                    one.department,
                    one.what,
                    str(one.adapter.rank),
                    f"{one.adapter.size_bytes / 1e3:.0f}",
                    one.adapter.key[:12],
                ]
                for one in found
            ],
        )


@app.command("upload")
def adapters_upload(
    directory: Directory,
    repository: Annotated[str, typer.Argument(help="OWNER/NAME at the hub; made if it is missing")],
    department: Department = None,
    adapters: Folder = None,
    base: Annotated[
        str, typer.Option("--base", help="OWNER/NAME of the base at the hub, for the page")
    ] = "",
    public: Annotated[
        bool, typer.Option("--public", help="a repository that is made can be read by everybody")
    ] = False,
    json_output: Json = False,
) -> None:
    """Bring adapters to a hub, in one commit: a folder for each department, as peft loads them.

    The hub is Hugging Face's, or the one that HF_ENDPOINT names; HF_TOKEN or `hf auth login` says
    who writes. The base stays here.
    """
    from cloud_server.departments.upload import base_of, listed, upload

    with _collected(directory, adapters, department or ()) as (found, spec):
        with console().status("uploading"):
            done = upload(found, repository, base_of(spec, base), public=public)
        if json_output:
            about = {"url": done.url, "commit": done.commit, "changed": done.changed}
            typer.echo(json.dumps({**about, "adapters": listed(found)}))
            return
        what = ", ".join(f"{one.department} ({one.what})" for one in found)
        typer.echo(
            f"{done.url}: {what}; commit {done.commit[:12]}"
            if done.changed
            else f"{done.url}: had all of it: {what}"
        )


@contextmanager
def _collected(
    directory: Path, adapters: Path | None, only: Sequence[str]
) -> Iterator[tuple[list["Found"], "TrainerSpec"]]:
    """Give the adapters in a folder of their own, and how the fleet trains."""
    from cloud_server.departments.sources import source_of, trainer_of
    from cloud_server.departments.upload import collected
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.settings import load_settings

    server_dir = ServerDirectory(directory)
    server_dir.require()
    channel = load_settings(server_dir.settings).publish.channel
    server_dir = server_dir.trained()
    spec = trainer_of(server_dir)
    assert spec.adapter is not None
    source = source_of(server_dir, channel, adapters, spec.files)
    with tempfile.TemporaryDirectory(prefix="adapters-") as folder:
        found = collected(source, spec.adapter, Path(folder), only)
        yield found, spec
