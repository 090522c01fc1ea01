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
    trained_of,
    with_given_directory,
    with_steps,
)
from fleet_model.errors import BundleError
from fleet_model.protocol.routes import channel_and_site

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloud_server.models.release_log import Release
    from cloud_server.signing.signed_by import Signature
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.model_store import DirectoryStore
    from cloud_server.state.settings import PublishSettings, ServerSettings

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


app = typer.Typer(no_args_is_help=True, help="Published models.")


@app.command("list")
def models_list(directory: Directory, json_output: Json = False) -> None:
    """List the published versions, and those that are withheld."""
    store = _store(directory)
    known = {name: _known(directory, name) for name in store.lineages()}
    signed = {name: _signed(directory, name) for name in store.lineages()}
    versions = [(name, one) for name in store.lineages() for one in store.versions(name)]
    withheld = [
        (name, release)
        for name, releases in known.items()
        for release in releases.values()
        if release.kind == "withheld"
    ]
    if json_output:
        values = [
            m.model_dump(mode="json")
            | _lineage_json(name)
            | _release_json(known[name], m.version)
            | {"signatures": [one.model_dump() for one in signed[name].get(m.version, ())]}
            for name, m in versions
        ]
        answer = {
            "channels": store.channels(),
            "assigned": {n: v for n, (v, _) in store.offers().items() if channel_and_site(n)[1]},
            "pins": sorted(store.pins()),
            "versions": values,
            "withheld": [release.model_dump() | _lineage_json(name) for name, release in withheld],
        }
        typer.echo(json.dumps(answer))
        return
    offers, pins = store.offers(), {name: store.pins(name) for name in store.lineages()}
    rows = [
        (
            f"{m.version} ({lineage})" if lineage else str(m.version),
            m.created_at[:19],
            ", ".join(name for name, one in offers.items() if one == (m.version, lineage)),
            "yes" if m.version in pins[lineage] else "",
            _published_by(known[lineage].get(m.version)),
            _signed_by(signed[lineage].get(m.version, ())),
            _held_out(known[lineage].get(m.version)),
            m.workload.name,
            f"{sum(entry.size_bytes for entry in m.files.values()) / 1e6:.1f} MB",
        )
        for lineage, m in versions
    ]
    columns = (
        "version", "created (UTC)", "channel", "pinned", "published by", "signed by", "held-out",
        "workload", "files",
    )  # fmt: skip
    table(columns, rows)
    for _, release in withheld:
        for line in release.sentences():
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
    from cloud_server.rollback import roll_back
    from cloud_server.state.checkpoints import Checkpoints

    server_dir, settings = _own(directory, channel)
    version, number = roll_back(server_dir, settings, version)
    newest = Checkpoints(server_dir.checkpoints).newest()
    start = "it" if newest == number else f"version {newest}, what rounds have made last"
    typer.echo(
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
    file: Annotated[Path, typer.Option("--out", help="new file")],
    version: Annotated[int | None, typer.Option(min=0, help="default: the newest")] = None,
    channel: Lineage = "",
) -> None:
    """Write one version as a file: to start another fleet from, or for other programs.

    keras and safetensors hold all weights, and `init --checkpoint` takes them. tflite and onnx run
    elsewhere: the inputs and outputs have the names of the workload. The labels are in each file.
    peft writes the adapter of a language model, as a .zip of the two files that peft loads.
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


def _settings(directory: Path) -> "ServerSettings":
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.settings import load_settings

    return load_settings(ServerDirectory(directory).settings)


def _own(directory: Path, channel: str) -> "tuple[ServerDirectory, PublishSettings]":
    """Return what is trained for a channel, and how it is published."""
    server_dir = trained_of(directory, channel)
    settings = _settings(directory).publish
    return server_dir, settings.model_copy(update={"channel": channel or settings.channel})


def _known(directory: Path, lineage: str) -> "Mapping[int, Release]":
    from cloud_server.models.release_log import ReleaseLog
    from cloud_server.state.directory import ServerDirectory

    return ReleaseLog(ServerDirectory(directory, lineage).releases).by_version()


def _signed(directory: Path, lineage: str) -> "Mapping[int, list[Signature]]":
    from cloud_server.signing.signed_by import signatures
    from cloud_server.state.directory import ServerDirectory

    return signatures(ServerDirectory(directory, lineage))


def _signed_by(signed: "Sequence[Signature]") -> str:
    """Return the keys, the last one of each channel, in few words."""
    newest = {one.channel: one for one in signed}
    return ", ".join(dict.fromkeys(f"{one.key} ({one.role})" for one in newest.values()))


def _lineage_json(lineage: str) -> dict[str, Any]:
    return {"lineage": lineage} if lineage else {}


def _release_json(known: "Mapping[int, Release]", version: int) -> dict[str, Any]:
    return {"release": known[version].model_dump()} if version in known else {}


def _about(directory: Path, version: int, channel: str) -> dict[str, Any]:
    """Return what is known of a version: of its release, its round, its files."""
    from cloud_server.state.checkpoints import Checkpoints
    from cloud_server.state.directory import ServerDirectory

    lineage = _lineage(directory, channel)
    release = _known(directory, lineage).get(version)
    checkpoints = Checkpoints(ServerDirectory(directory, lineage).checkpoints)
    manifests = {one.version: one for one in _store(directory).versions(lineage)}
    manifest = manifests.get(version)
    if manifest is None and release is None and version not in checkpoints.saved():
        raise BundleError(
            f"there is no version {version}; `cloud-server models list {directory}` shows those "
            "that there are"
        )
    root = version if release is None else release.root
    record = checkpoints.record(root) if root in checkpoints.saved() else None
    robots = () if record is None else [robot for robot in record.robots if robot.accepted]
    return {
        "version": version,
        "state": "not published" if release is None and manifest is None else _state(release),
        "by": "" if release is None else release.by,
        "weights_of_version": root,
        "run": None if record is None else record.run,
        "round": None if record is None else record.round,
        "robots": [robot.name for robot in robots],
        "training_examples": sum(robot.num_examples for robot in robots),
        "held_out_examples": 0 if release is None else release.examples,
        "before": {} if release is None else release.before,
        "after": {} if release is None else release.after,
        "reasons": [] if release is None else [one.words for one in release.reasons],
        "warnings": [] if release is None else [one.words for one in release.warnings],
        "signed": [one.words for one in _signed(directory, lineage).get(version, ())],
        "created_at": None if manifest is None else manifest.created_at,
        "classes": [] if manifest is None else list(manifest.described_task.classes),
        "files": {} if manifest is None else {n: e.sha256 for n, e in manifest.files.items()},
    }


def _state(release: "Release | None") -> str:
    return "published" if release is None else release.kind.replace("_", " ")


def _published_by(release: "Release | None") -> str:
    if release is None:
        return ""
    return release.by if release.of is None else f"{release.by} of {release.of}"


def _held_out(release: "Release | None") -> str:
    if release is None or not release.after:
        return ""
    scores = ", ".join(
        f"{name} {release.before[name]:.3f} -> {value:.3f}"
        for name, value in release.after.items()
        if name in release.before
    )
    return f"{scores} of {release.examples} examples"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{name} {one[:12] if isinstance(one, str) else format(one, '.3f')}"
            for name, one in value.items()
        )
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
