"""`cloud-server profiles`: what clients say of their records in sum."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_server.cli.terminal import Directory, Json, console, say, show_told, table
from fleet_model.errors import RoundError, SettingsError

if TYPE_CHECKING:
    from cloud_server.profiles.fusing import Fused
    from fleet_model.profiles.profile import SourceProfile

app = typer.Typer(no_args_is_help=True, help="What clients say of their records in sum.")
Version = Annotated[
    int | None, typer.Option(min=0, help="of the model that made them; default: the newest asked")
]
_SHOWN = 10  # terms in a table


@app.command("ask")
def profiles_ask(
    directory: Directory,
    version: Annotated[
        int | None,
        typer.Option(min=0, help="of the model; default: the newest checkpoint"),
    ] = None,
    robot: Annotated[
        list[str] | None, typer.Option(help="ask only this client; may be given several times")
    ] = None,
    json_output: Json = False,
) -> None:
    """Ask clients for profiles of their records; those with training.profile = true answer.

    Exit code 10 says that no client answered.
    """
    from cloud_server.cli.admin_client import AdminClient
    from cloud_server.cli.runs.following import follow
    from cloud_server.state.directory import ServerDirectory

    client = AdminClient(ServerDirectory(directory))
    asked = client.ask_for_profiles(version, robot or ())
    run = follow(client, asked, say if json_output else typer.echo)
    if json_output:
        typer.echo(json.dumps(run))
    if run["state"] != "finished":
        error = RoundError(f"run {run['id']}: {run['error']}")
        error.exit_code = run["exit_code"] or RoundError.exit_code
        raise error
    if not json_output:
        show_told(run)


@app.command("show")
def profiles_show(
    directory: Directory,
    version: Version = None,
    source: Annotated[str, typer.Option(help="one of them, with all that is said of it")] = "",
    json_output: Json = False,
) -> None:
    """Show the fused profile: general, and of each source."""
    from cloud_server.profiles.values import values_of

    number, fused = _fused(directory, version)
    if json_output:
        typer.echo(json.dumps(values_of(number, fused)))
        return
    if source:
        _show_one(_source(fused, source))
        return
    rows = [
        _row(name, one, fused.robots.get(name))
        for name, one in (("(all)", fused.general), *fused.sources.items())
    ]
    table(("source", "robots", "records", "topics", "labels", "terms"), rows)
    _tell(number, fused)


@app.command("compare")
def profiles_compare(
    directory: Directory,
    first: Annotated[str, typer.Argument(help="a source; without any: all with all")] = "",
    second: Annotated[str, typer.Argument(help="another; default: all sources together")] = "",
    version: Version = None,
    json_output: Json = False,
) -> None:
    """Compare sources: how alike their means are, and which terms set them apart."""
    from cloud_server.profiles.fusing import compare, similarity

    number, fused = _fused(directory, version)
    if not first:
        alike = {
            one: {other: similarity(a.whole, b.whole) for other, b in fused.sources.items()}
            for one, a in fused.sources.items()
        }
        if json_output:
            typer.echo(json.dumps({"version": number, "similarity": alike}))
            return
        names = list(alike)
        table(("", *names), [(n, *(f"{alike[n][m]:.3f}" for m in names)) for n in names])
        _tell(number, fused)
        return
    one = _source(fused, first)
    other = _source(fused, second) if second else fused.general
    found = compare(one, other)
    if json_output:
        told = {
            "similarity": found.similarity, "topics": dict(found.topics),
            "first": dict(found.first), "second": dict(found.second),
        }  # fmt: skip
        typer.echo(json.dumps({"version": number, **told}))
        return
    typer.echo(f"similarity of {first} and {second or '(all)'}: {found.similarity:.3f}")
    for topic, value in found.topics.items():
        typer.echo(f"  #{topic}: {value:.3f}")
    for name, terms in ((first, found.first), (second or "(all)", found.second)):
        words = ", ".join(f"{word} +{share:.0%}" for word, share in terms.items())
        typer.echo(f"more often in {name}: {words or '-'}")


@app.command("export")
def profiles_export(
    directory: Directory,
    out: Annotated[Path, typer.Option(help="file that gets the JSON")],
    version: Version = None,
) -> None:
    """Write the fused profile with its means, as JSON."""
    from cloud_server.profiles.values import values_of
    from fleet_model.durable import telling_of_the_disk, write_durably

    number, fused = _fused(directory, version)
    with telling_of_the_disk(out.name, "choose another file: --out"):
        write_durably(out, json.dumps(values_of(number, fused, means=True), indent=1) + "\n")
    console().print(f"profiles of version {number}: {out}", markup=False, soft_wrap=True)


def _fused(directory: Path, version: int | None) -> "tuple[int, Fused]":
    """Return the version, and what robots have told of it together; raises SettingsError."""
    from cloud_server.cli.terminal import trained_of
    from cloud_server.profiles.fusing import fuse
    from cloud_server.profiles.store import ProfileStore
    from cloud_server.state.settings import load_settings

    server_dir = trained_of(directory, "")
    store = ProfileStore(server_dir.profiles)
    known = store.versions()
    number = known[-1] if version is None and known else version
    told = store.of(number) if number is not None else {}
    if not told or number is None:
        others = f"; there are some of {', '.join(map(str, known))}" if known else ""
        of = "" if version is None else f" of version {version}"
        raise SettingsError(
            f"no client has told a profile{of}{others}; ask for them: "
            f"cloud-server profiles ask {directory}"
        )
    return number, fuse(told, load_settings(server_dir.settings).checks)


def _source(fused: "Fused", name: str) -> "SourceProfile":
    if name not in fused.sources:
        raise SettingsError(f"there is no source {name!r}, only {', '.join(fused.sources)}")
    return fused.sources[name]


def _tell(version: int, fused: "Fused") -> None:
    typer.echo(f"means are those of version {version}")
    if fused.left_out:
        typer.echo(f"left out, for their means are of another width: {', '.join(fused.left_out)}")


def _row(name: str, one: "SourceProfile", robots: Any) -> tuple[str, ...]:
    return (
        name,
        "" if robots is None else str(len(robots)),
        str(one.whole.records),
        ", ".join(f"#{topic} {group.records}" for topic, group in one.topics.items()) or "-",
        ", ".join(f"{label} {n / one.whole.records:.0%}" for label, n in one.labels.items()) or "-",
        ", ".join(list(one.terms)[:_SHOWN]) or "-",
    )


def _show_one(one: "SourceProfile") -> None:
    rows = [
        *(("topic", f"#{topic}", group.records) for topic, group in one.topics.items()),
        *(("label", label, count) for label, count in one.labels.items()),
        *(("term", term, count) for term, count in one.terms.items()),
    ]
    whole = one.whole.records
    typer.echo(f"{whole} records")
    table(
        ("what", "name", "records", "share"),
        [(what, name, str(count), f"{count / whole:.0%}") for what, name, count in rows],
    )
