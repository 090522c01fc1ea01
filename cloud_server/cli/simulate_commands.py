"""Command that plans a fleet: simulate."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cloud_server.cli.terminal import Json
from fleet_model.errors import SettingsError

if TYPE_CHECKING:
    from cloud_server.simulation.simulate import RoundLine, SimulationSummary
    from cloud_server.state.settings import ServerSettings

_REAL = "With real training (--workload)"
_HEAD = "round   asked  accepted   late   gone  refused   seconds  accuracy"


def simulate(
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            help="server directory: its sections rounds, checks, training hold; else the defaults. "
            "With --workload a new one, which is made",
        ),
    ] = None,
    robots: Annotated[int, typer.Option(min=1, max=100_000, help="virtual robots")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="federated rounds")] = 10,
    mode: Annotated[str | None, typer.Option(help="rounds.mode: sync or buffered")] = None,
    target: Annotated[
        int | None, typer.Option(help="rounds.target: robots asked at a time")
    ] = None,
    quorum: Annotated[int | None, typer.Option(help="rounds.quorum: good updates needed")] = None,
    deadline: Annotated[
        float | None, typer.Option(help="rounds.deadline_s: seconds until a round closes")
    ] = None,
    rule: Annotated[str | None, typer.Option(help="aggregation.rule: fedavg, median, ..")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="one of aggregation.options")
    ] = None,
    off: Annotated[
        float, typer.Option(min=0, max=1, help="share of the time a robot is switched off")
    ] = 0.1,
    drop: Annotated[
        float, typer.Option(min=0, max=1, help="chance that a robot goes away while it trains")
    ] = 0.02,
    skew: Annotated[
        float, typer.Option(min=0.01, help="Dirichlet: 0.1 one or two labels a robot, 100 all")
    ] = 0.5,
    examples: Annotated[int, typer.Option(min=1, help="examples a robot, median")] = 200,
    speed: Annotated[float, typer.Option(min=0.001, help="examples per second, median")] = 100.0,
    bandwidth: Annotated[float, typer.Option(min=0.001, help="Mbit/s each way, median")] = 20.0,
    model_mb: Annotated[
        float, typer.Option(min=0, help="MB that travel each way; 0: the virtual head, 0.026")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same numbers")] = 0,
    plot: Annotated[Path | None, typer.Option(help="write a picture (PNG) here")] = None,
    workload: Annotated[
        str | None,
        typer.Option(help="train it for real, in one process: causal-lm", rich_help_panel=_REAL),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="folder of the model", rich_help_panel=_REAL)
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            help="table that is dealt out to all clients; or a folder with one for each site, or "
            "several",
            rich_help_panel=_REAL,
        ),
    ] = None,
    sites: Annotated[
        int | None, typer.Option(min=1, max=1000, help="departments", rich_help_panel=_REAL)
    ] = None,
    clients: Annotated[
        int, typer.Option(min=1, max=1000, help="of each site", rich_help_panel=_REAL)
    ] = 2,
    epochs: Annotated[int | None, typer.Option(min=1, rich_help_panel=_REAL)] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0, rich_help_panel=_REAL)] = None,
    max_records: Annotated[
        int,
        typer.Option(min=0, help="rows that a client learns from; 0: all", rich_help_panel=_REAL),
    ] = 0,
    dtype: Annotated[
        str | None, typer.Option(help="float32 or bfloat16", rich_help_panel=_REAL)
    ] = None,
    device_map: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1", rich_help_panel=_REAL)
    ] = "auto",
    load_in_4bit: Annotated[
        bool, typer.Option("--load-in-4bit", help="is refused, and why", rich_help_panel=_REAL)
    ] = False,
    trainable: Annotated[
        str, typer.Option(help="lora or lora-all", rich_help_panel=_REAL)
    ] = "lora",
    rank: Annotated[int | None, typer.Option(rich_help_panel=_REAL)] = None,
    alpha: Annotated[float | None, typer.Option(rich_help_panel=_REAL)] = None,
    dropout: Annotated[float | None, typer.Option(rich_help_panel=_REAL)] = None,
    target_modules: Annotated[
        list[str] | None,
        typer.Option(help="of these layers alone, e.g. v_proj; repeatable", rich_help_panel=_REAL),
    ] = None,
    mixing: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="a model for each site; how far it moves towards its cluster's in a round",
            rich_help_panel=_REAL,
        ),
    ] = None,
    global_mix: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="with --mixing: how far it then moves towards the fleet's",
            rich_help_panel=_REAL,
        ),
    ] = None,
    choose: Annotated[
        str | None,
        typer.Option(
            help="with --mixing: how many clusters: elbow or silhouette", rich_help_panel=_REAL
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            help="with --mixing: tensors that sites are compared by, e.g. '*.lora_b'",
            rich_help_panel=_REAL,
        ),
    ] = None,
    personal: Annotated[
        list[str] | None,
        typer.Option(
            help="tensors that clients keep, e.g. '*.lora_b' (FedSA-LoRA)", rich_help_panel=_REAL
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="of the workload", rich_help_panel=_REAL),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=64, rich_help_panel=_REAL)] = 2,
    json_output: Json = False,
) -> None:
    """Let virtual robots learn under the real round loop: what would a fleet take?

    With --workload the training is real: cloud-server simulate out --workload causal-lm
    --checkpoint smollm2/ --data instructions.jsonl --sites 4 --clients 3 --mixing 0.3
    """
    if workload is not None:
        from cloud_server.cli.runs.rehearse_command import Asked, rehearse

        asked = Asked(
            directory=directory,
            workload=workload,
            checkpoint=checkpoint,
            data=data or [],
            sites=sites,
            clients=clients,
            rounds=rounds,
            epochs=epochs,
            learning_rate=learning_rate,
            max_records=max_records,
            dtype=dtype,
            device=device_map,
            four_bits=load_in_4bit,
            trainable=trainable,
            rank=rank,
            alpha=alpha,
            dropout=dropout,
            targets=target_modules or [],
            mixing=mixing,
            global_mix=global_mix,
            choose=choose,
            on=on,
            personal=personal or [],
            set=settings or [],
            rule=rule,
            options=dict(map(_option, option or [])),
            threads=threads,
            json=json_output,
        )
        rehearse(asked)
        return
    from cloud_server.simulation.population import Traits
    from cloud_server.simulation.simulate import Simulation, SimulationPlan, left_out
    from fleet_model.command_line.output_file import STDOUT, require_output

    if plot == STDOUT:
        raise SettingsError("--plot -: stdout has the rounds already; name a PNG file")
    require_output(plot, "--plot", (".png",))
    given = {"mode": mode, "target": target, "quorum": quorum, "deadline_s": deadline}
    plan = SimulationPlan(
        traits=Traits(
            robots=robots,
            off=off,
            drop=drop,
            skew=skew,
            examples=examples,
            examples_per_s=speed,
            mbit_per_s=bandwidth,
            seed=seed,
        ),
        settings=_settings(directory, given, rule, option or []),
        rounds=rounds,
        model_mb=model_mb,
    )
    simulation = Simulation(plan)
    for one in (without := left_out(plan.settings)):
        typer.echo(f"WARNING: not simulated: {one}", err=True)
    if not json_output:
        typer.echo(_HEAD)
    lines = []
    for line in simulation.rounds():
        lines.append(line)
        if not json_output:
            typer.echo(_row(line))
    summary = simulation.summary()
    if plot is not None:
        from cloud_server.simulation.picture import write_picture

        write_picture(plot, plan, lines, summary)
    if json_output:
        told = {"rounds": [asdict(x) for x in lines], "summary": asdict(summary)}
        typer.echo(json.dumps({**told, "not_simulated": without}))
    else:
        typer.echo(_closing(summary))


def _settings(
    directory: Path | None, given: dict[str, Any], rule: str | None, options: list[str]
) -> "ServerSettings":
    """Return the directory's settings, or the defaults, with the flags that were given over them.

    Another rule than the directory's begins without options.
    """
    from pydantic import ValidationError

    from cloud_server.state.directory import ServerDirectory
    from cloud_server.state.learning_settings import AggregationSettings
    from cloud_server.state.settings import RoundSettings, ServerSettings, load_settings
    from fleet_model.settings import explain

    settings = ServerSettings()
    if directory is not None:
        settings = load_settings(ServerDirectory(directory).settings)
    given = {key: value for key, value in given.items() if value is not None}
    try:
        rounds = RoundSettings.model_validate({**settings.rounds.model_dump(), **given})
    except ValidationError as error:
        keys, words = explain(error, RoundSettings)
        flag = [f"--{keys[0].removesuffix('_s')}"] if keys else []
        raise SettingsError(": ".join([*flag, words])) from None
    before = settings.aggregation
    kept = before.options if rule in (None, before.rule) else {}
    aggregation = AggregationSettings(
        rule=rule or before.rule,
        options={**kept, **dict(map(_option, options))},
        personal=before.personal,
    )
    return settings.model_copy(update={"rounds": rounds, "aggregation": aggregation})


def _option(text: str) -> tuple[str, str]:
    """Return name and value; the rule's constructor says which type the value is converted to."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise SettingsError(f"--option {text}: expected NAME=VALUE, e.g. memory_mb=32")
    return name.strip(), value.strip()


def _row(line: "RoundLine") -> str:
    row = (
        f"{line.round:5}  {line.asked:6,}  {line.accepted:8,}  {line.late:5,}  {line.gone:5,}  "
        f"{line.refused:7,}  {line.seconds:8,.1f}  {line.accuracy:8.3f}"
    )
    return f"{row}  did not close: {line.error}" if line.error else row


def _closing(summary: "SimulationSummary") -> str:
    failed = f", {summary.failed} did not close" if summary.failed else ""
    return (
        f"{summary.rounds} rounds{failed}: {summary.hours:.2f} simulated hours, accuracy "
        f"{summary.accuracy:.3f}\n"
        f"{summary.gb_down:.3g} GB to the robots, {summary.gb_up:.3g} GB back, {summary.used:.0%} "
        f"of the questions used; simulated in {summary.wall_s:.1f} s"
    )
