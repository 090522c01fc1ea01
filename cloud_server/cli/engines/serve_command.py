"""`cloud-server serve-adapters`: one language model, an adapter for each department."""

from pathlib import Path
from typing import Annotated

import typer

from cloud_server.cli.terminal import Directory


def serve_adapters(
    directory: Directory,
    adapters: Annotated[
        Path | None,
        typer.Option(
            help="folder with DEPARTMENT/ or round-N/DEPARTMENT/, as peft has adapters; else those "
            "of a rehearsal in DIR, else what DIR publishes"
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one")] = 8080,
    key: Annotated[
        bool, typer.Option(help="clients send the key in DIR/secrets/departments.key")
    ] = True,
    tls: Annotated[
        bool | None,
        typer.Option(
            "--tls/--no-tls",
            help="with the server's certificate; by default unless only this machine can ask",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1")] = "auto",
    threads: Annotated[int, typer.Option(min=1, max=256, help="of the processor")] = 2,
    batch: Annotated[int, typer.Option(min=1, max=256, help="texts that go on at once")] = 4,
    waiting: Annotated[
        int, typer.Option(min=0, max=10_000, help="further texts that may wait; more get 429")
    ] = 32,
    context: Annotated[
        int, typer.Option(min=8, max=1_000_000, help="tokens of a text with its answer, at most")
    ] = 2048,
    every: Annotated[
        float, typer.Option(min=0.05, help="seconds between two looks for new adapters")
    ] = 1.0,
) -> None:
    """Answer by department, as OpenAI's clients ask: one base, an adapter for each.

    Until Ctrl-C or SIGTERM. New adapters take over between two requests, without a failed one.
    """
    from cloud_server.departments.service import ServePlan
    from cloud_server.departments.service import serve_adapters as serve
    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.logs import log_to_stderr
    from cloud_server.state.settings import load_settings

    server_dir = ServerDirectory(directory)
    server_dir.require()
    log_to_stderr(load_settings(server_dir.settings).log, directory)
    plan = ServePlan(
        adapters=adapters,
        host=host,
        port=port,
        needs_key=key,
        tls=tls,
        device=device,
        threads=threads,
        batch=batch,
        waiting=waiting,
        context=context,
        every_s=every,
    )
    serve(server_dir, plan)
