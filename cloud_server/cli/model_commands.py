"""Commands over published models."""

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloud_server.cli.terminal import Directory, Json, lineage_of, table, trained_of, with_steps

if TYPE_CHECKING:
    from cloud_server.state.model_store import DirectoryStore

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


app = typer.Typer(no_args_is_help=True, help="Published models.")


@app.command("list")
def models_list(directory: Directory, json_output: Json = False) -> None:
    """List the published versions."""
    store = _store(directory)
    versions = [(name, one) for name in store.lineages() for one in store.versions(name)]
    if json_output:
        of = [{"lineage": name} if name else {} for name, _ in versions]
        values = [m.model_dump(mode="json") | of[n] for n, (_, m) in enumerate(versions)]
        answer = {
            "channels": store.channels(), "pins": sorted(store.pins()), "versions": values,
        }  # fmt: skip
        typer.echo(json.dumps(answer))
        return
    offers, pins = store.offers(), {name: store.pins(name) for name in store.lineages()}
    rows = [
        (
            f"{m.version} ({lineage})" if lineage else str(m.version),
            m.created_at[:19],
            ", ".join(name for name, one in offers.items() if one == (m.version, lineage)),
            "yes" if m.version in pins[lineage] else "",
            m.workload.name,
            f"{sum(entry.size_bytes for entry in m.files.values()) / 1e6:.1f} MB",
        )
        for lineage, m in versions
    ]
    table(("version", "created (UTC)", "channel", "pinned", "workload", "files"), rows)


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
    file: Annotated[Path, typer.Option("--out", help="new file")],
    version: Annotated[int | None, typer.Option(min=0, help="default: the newest")] = None,
    channel: Lineage = "",
) -> None:
    """Write one version as a file: to start another fleet from, or for other programs.

    keras and safetensors hold all weights, and `init --checkpoint` takes them. tflite and onnx run
    elsewhere: the inputs and outputs have the names of the workload. The labels are in each file.
    """
    from cloud_server.models.model_file import export_model

    server_dir = trained_of(directory, channel)
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
