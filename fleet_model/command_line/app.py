"""An app of typer as both programs have it: --version, errors on one line, exit codes, findings."""

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import typer

from fleet_model import __version__
from fleet_model.command_line.program import INTERRUPTED, loaded
from fleet_model.command_line.systemd import level_prefix
from fleet_model.durable import OF_THE_MACHINE
from fleet_model.errors import FleetError, SettingsError, StorageError, one_line

# As a shell has it for a program that was ended because nobody reads its output any longer.
NOBODY_READS = 141


State: TypeAlias = Literal["ok", "warn", "fail"]
COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    state: State
    text: str
    next_step: str = ""  # what the operator does about it; empty when ok

    def as_json(self) -> dict[str, str]:
        """Return it as `--json` prints it."""
        return {
            "subject": self.subject,
            "state": self.state,
            "text": self.text,
            "next_step": self.next_step,
        }


def show_findings(
    found: Sequence[Finding],
    *,
    json_output: bool,
    err: bool = False,
    fill: Callable[[str], str] = lambda text: text,
) -> None:
    """Print what a doctor has found; colors on a terminal only."""
    if json_output:
        typer.echo(json.dumps({"findings": [one.as_json() for one in found]}), err=err)
        return
    for one in found:
        state = typer.style(f"{one.state:4}", fg=COLORS[one.state])
        typer.echo(f"{state} {one.subject}: {one_line(fill(one.text))}", err=err)
        for line in one.next_step.splitlines():
            typer.echo(f"     next: {fill(line)}", err=err)


def make_app(about: str, exit_codes: str) -> typer.Typer:
    """Return an app without commands.

    Args:
        about: one sentence.
        exit_codes: those that its commands end with, for --help.
    """
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help=f"{about}\n\nExit codes: {exit_codes}.",
    )

    @app.callback()
    def common(
        version: Annotated[
            bool,
            typer.Option("--version", callback=_version, is_eager=True, help="print the version"),
        ] = False,
    ) -> None:
        pass

    @app.command("version")
    def print_version() -> None:
        """Print the version, as --version does."""
        _version(True)

    return app


def run_app(app: typer.Typer, program: str, fill: Callable[[str], str] = lambda text: text) -> None:
    """Run the command that was given; our own errors become one line and an exit code.

    So do files that this user may not open, and a full disk. A reader that goes away, as `head`
    does, ends the command without a word.
    """
    try:
        try:
            loaded()
            _require_text(sys.argv[1:])
            app()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _let_go_of_output()
        raise SystemExit(NOBODY_READS) from None
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer and rich have met it: code 1
            _let_go_of_output()
            raise SystemExit(NOBODY_READS) from None
        raise
    except FleetError as error:
        _tell(f"{program}: {fill(str(error))}")
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if error.errno not in OF_THE_MACHINE:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        advice = "may this user read and write there, and has the disk room?"
        _tell(f"{program}: {where}{error.strerror}; {advice}")
        raise SystemExit(StorageError.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _require_text(words: Sequence[str]) -> None:
    """Raise SettingsError for bytes that are no text: only what is there may be called so."""
    for word in words:
        value = word.partition("=")[2] if word.startswith("--") and "=" in word else word
        try:
            value.encode()
        except UnicodeEncodeError:
            if not os.path.lexists(value):
                raise SettingsError(f"{word}: is no text in UTF-8; type it in UTF-8") from None


def _tell(error: str) -> None:
    typer.echo(level_prefix(logging.ERROR) + one_line(error), err=True)


def _let_go_of_output() -> None:
    """Let the interpreter flush what is left into nothing when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"fleetlearn {__version__}")
        raise typer.Exit
