"""Commands over published models."""

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_server.cli.terminal import (
    Directory,
    Json,
    lineage_of,
    table,
    trained_and_publish,
    trained_of,
    with_given_directory,
    with_steps,
)

if TYPE_CHECKING:
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.model_store import DirectoryStore
    from cloud_server.state.settings import ServerSettings

Lineage = Annotated[
    str,
    typer.Option("--channel", help="whose version it is, if that channel is trained by itself"),
]
Version = Annotated[int, typer.Argument(min=0, help="as `cloud-server models list` shows it")]


class Kind(str, Enum):
    """What reads an exported file."""

    keras = "keras"
    tflite = "tflite"
    onnx = "onnx"
    safetensors = "safetensors"
    peft = "peft"
    merged = "merged"
    bundle = "bundle"


app = typer.Typer(no_args_is_help=True, help="Published models.")


@app.command("list")
def models_list(directory: Directory, json_output: Json = False) -> None:
    """List the published versions, and those that are withheld."""
    from cloud_server.monitoring import versions as of
    from cloud_server.state.directory import ServerDirectory

    store, server_dir = _store(directory), ServerDirectory(directory)
    if json_output:
        typer.echo(json.dumps(of.versions_json(server_dir)))
        return
    known = {name: of.releases_of(server_dir, name) for name in store.lineages()}
    signed = {name: of.signed_of(server_dir, name) for name in store.lineages()}
    offers, pins = store.offers(), {name: store.pins(name) for name in store.lineages()}
    rows = [
        (
            f"{m.version} ({lineage})" if lineage else str(m.version),
            m.created_at[:19],
            ", ".join(name for name, one in offers.items() if one == (m.version, lineage)),
            "yes" if m.version in pins[lineage] else "",
            of.published_by(known[lineage].get(m.version)),
            of.signed_by(signed[lineage].get(m.version, ())),
            of.measured(known[lineage].get(m.version)),
            m.workload.name,
            f"{sum(entry.size_bytes for entry in m.files.values()) / 1e6:.1f} MB",
        )
        for lineage in store.lineages()
        for m in store.versions(lineage)
    ]
    columns = (
        "version", "created (UTC)", "channel", "pinned", "published by", "signed by", "held-out",
        "workload", "files",
    )  # fmt: skip
    table(columns, rows)
    for release in (one for releases in known.values() for one in releases.values()):
        for line in release.sentences() if release.kind == "withheld" else ():
            typer.echo(with_given_directory(line))


@app.command("show")
def models_show(
    directory: Directory, version: Version, channel: Lineage = "", json_output: Json = False
) -> None:
    """Show where a version comes from: run, robots, examples, measures, who published it."""
    about = _about(directory, version, channel)
    if json_output:
        typer.echo(json.dumps(about))
        return
    for name, value in about.items():
        if value not in (None, [], {}):
            typer.echo(f"{name.replace('_', ' ')}: {_text(value)}")


@app.command("compare")
def models_compare(
    directory: Directory,
    first: Version,
    second: Version,
    channel: Lineage = "",
    json_output: Json = False,
) -> None:
    """Show two versions side by side, in what they differ."""
    both = [_about(directory, version, channel) for version in (first, second)]
    if json_output:
        typer.echo(json.dumps(both))
        return
    names = list(dict.fromkeys(name for one in both for name in one))
    differ = [n for n in names if both[0].get(n) != both[1].get(n)]
    rows = [(n.replace("_", " "), *(_text(one.get(n)) for one in both)) for n in differ]
    table(("of", f"version {first}", f"version {second}"), rows)


@app.command("rollback")
def models_rollback(
    directory: Directory,
    version: Annotated[
        int | None, typer.Argument(min=0, help="default: the one before what robots run")
    ] = None,
    channel: Lineage = "",
) -> None:
    """Give robots an older version again, as a new release; the next run goes on from it.

    Robots that are connected have it within one poll. The server need not run.
    """
    typer.echo(rolled_back(directory, version, channel))


def rolled_back(directory: Path, version: int | None, channel: str) -> str:
    """Roll a channel back, and return what has happened; raises as `rollback.roll_back`."""
    from cloud_server.rollback import roll_back
    from cloud_server.state.checkpoints import Checkpoints

    server_dir, settings = trained_and_publish(directory, channel)
    version, number = roll_back(server_dir, settings, version)
    newest = Checkpoints(server_dir.checkpoints).newest()
    start = "it" if newest == number else f"version {newest}, what rounds have made last"
    return (
        f"robots get version {version} again, as version {number}; the next run goes on from "
        f"{start}"
    )


@app.command("prune")
def models_prune(
    directory: Directory,
    keep: Annotated[
        int | None, typer.Option(min=1, help="newest versions that stay  [publish.keep_versions]")
    ] = None,
) -> None:
    """Delete old versions; those that are pinned, offered or installed on a robot stay."""
    from cloud_server.models.publish import stale
    from cloud_server.state.directory import ServerDirectory

    store = _store(directory)
    keep = _settings(directory).publish.keep_versions if keep is None else keep
    gone = stale(ServerDirectory(directory), store, keep)
    typer.echo(f"deleted: {', '.join(map(str, gone)) or 'nothing'}")


@app.command("pin")
def models_pin(directory: Directory, version: Version, channel: Lineage = "") -> None:
    """Keep a published version, however many newer ones there are."""
    _store(directory).pin(version, _lineage(directory, channel))
    typer.echo(f"version {version} stays until `cloud-server models unpin {directory} {version}`")


@app.command("unpin")
def models_unpin(directory: Directory, version: Version, channel: Lineage = "") -> None:
    """Let a version be deleted when publish.keep_versions newer ones are published."""
    _store(directory).unpin(version, _lineage(directory, channel))
    typer.echo(f"version {version} is no longer pinned")


@app.command("export")
def models_export(
    directory: Directory,
    kind: Annotated[Kind, typer.Option("--format", help="what reads it")],
    file: Annotated[Path, typer.Option("--out", help="new file; of bundle a new folder")],
    version: Annotated[int | None, typer.Option(min=0, help="default: the newest")] = None,
    channel: Lineage = "",
) -> None:
    """Write one version as a file: to start another fleet from, or for other programs.

    keras and safetensors hold all weights, and `init --checkpoint` takes them. tflite and onnx run
    elsewhere: the inputs and outputs have the names of the workload. The labels are in each file.
    peft writes the adapter of a language model, as a .zip of the two files that peft loads, merged
    the whole model with the adapter in its kernels, as a .zip of a folder that transformers loads.
    bundle is the folder that robots install: `edge-agent serve --bundle` serves it anywhere.
    """
    from cloud_server.models.bundle_folder import export_bundle
    from cloud_server.models.model_file import export_model

    server_dir = trained_of(directory, channel)
    if kind is Kind.bundle:
        version = export_bundle(server_dir, version, file)
        size = sum(one.stat().st_size for one in file.iterdir())
        typer.echo(f"{file}: version {version}, {size} bytes")
        return
    with with_steps("export") as tell:
        version, error = export_model(server_dir, version, kind.value, file, tell)
    checked = "" if error is None else f", checked: relative difference {error:.1e}"
    typer.echo(f"{file}: version {version}, {file.stat().st_size} bytes{checked}")


def _lineage(directory: Path, channel: str) -> str:
    return lineage_of(directory, channel).lineage if channel else ""


def _store(directory: Path) -> "DirectoryStore":
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.model_store import DirectoryStore

    server_dir = ServerDirectory(directory)
    server_dir.require()
    return DirectoryStore(server_dir.store)


def _settings(directory: Path) -> "ServerSettings":
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.settings import load_settings

    return load_settings(ServerDirectory(directory).settings)


def _about(directory: Path, version: int, channel: str) -> dict[str, Any]:
    from cloud_server.monitoring.versions import version_json

    _store(directory)  # no directory: say that first
    return version_json(lineage_of(directory, channel) if channel else _root(directory), version)


def _root(directory: Path) -> "ServerDirectory":
    from cloud_server.state.directory import ServerDirectory

    return ServerDirectory(directory)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{name} {one[:12] if isinstance(one, str) else format(one, '.3f')}"
            for name, one in value.items()
        )
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
