"""Commands about rounds of departments as a Kubeflow pipeline: pipeline kubeflow compile, run."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cloud_server.cli.terminal import Json, say, with_steps
from fleet_model.errors import SettingsError

app = typer.Typer(
    no_args_is_help=True, help="rounds of departments as a Kubeflow pipeline: compile, or run here"
)
Workload = Annotated[str, typer.Option(help="causal-lm")]
Sites = Annotated[int | None, typer.Option(help="departments that one table is dealt out to")]
Clients = Annotated[int, typer.Option(help="of each site")]
Rounds = Annotated[int, typer.Option()]
Epochs = Annotated[int | None, typer.Option(help="of a client in a round; default: init's")]
Rate = Annotated[float | None, typer.Option(help="default: that of init")]
Records = Annotated[int, typer.Option(help="rows that a client learns from; 0: all")]
Rank = Annotated[int | None, typer.Option(help="of the adapters")]
Rule = Annotated[str | None, typer.Option(help="aggregation.rule: fedavg, median, ..")]
Mixing = Annotated[float | None, typer.Option(help="a model for each site; see simulate")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="of the workload")
]
Threads = Annotated[int, typer.Option()]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1")]


@app.command("compile")
def kubeflow_compile(
    out: Annotated[Path, typer.Argument(help="file for the YAML")],
    data: Annotated[
        str, typer.Option(help="default of the parameter: path in the pods, or s3://..")
    ] = "",
    model: Annotated[str, typer.Option(help="default of the parameter, as --data")] = "",
    image: Annotated[
        str, typer.Option(help="of all components; has this project with the extra kubeflow")
    ] = "fleetlearn/pipeline:0.1.0",
    gpus: Annotated[int, typer.Option(min=0, max=8, help="of the components that train")] = 0,
    workload: Workload = "causal-lm",
    sites: Sites = None,
    clients: Clients = 2,
    rounds: Rounds = 3,
    epochs: Epochs = None,
    learning_rate: Rate = None,
    max_records: Records = 0,
    rank: Rank = None,
    rule: Rule = None,
    mixing: Mixing = None,
    settings: Set = None,
    threads: Threads = 2,
    device: Device = "auto",
    json_output: Json = False,
) -> None:
    """Write the pipeline as YAML for a cluster, held against Kubeflow's schema.

    Example: cloud-server pipeline kubeflow compile fleet.yaml --data s3://texts/departments
    """
    from cloud_server.kubeflow.options import FleetJob

    if out.suffix not in (".yaml", ".yml"):
        raise SettingsError(f"{out}: expected a file that ends in .yaml")
    job = FleetJob(
        out=out,
        compiled=True,
        data=data,
        model=model,
        image=image,
        gpus=gpus,
        options=_options(locals()),
    )
    told = _done(job)
    if json_output:
        typer.echo(json.dumps(told))
    else:
        typer.echo(f"{out}: {', '.join(told['components'])} in {told['image']}")


@app.command("run")
def kubeflow_run(
    out: Annotated[Path, typer.Argument(help="new folder for the fleet: a server directory")],
    data: Annotated[str, typer.Option(help="table, folder with one for each site, or s3://..")],
    model: Annotated[str, typer.Option(help="folder of the model, or s3://..")],
    work: Annotated[
        Path, typer.Option(help="folder of what components write; may be removed")
    ] = Path(".kubeflow"),
    workload: Workload = "causal-lm",
    sites: Sites = None,
    clients: Clients = 2,
    rounds: Rounds = 3,
    epochs: Epochs = None,
    learning_rate: Rate = None,
    max_records: Records = 0,
    rank: Rank = None,
    rule: Rule = None,
    mixing: Mixing = None,
    settings: Set = None,
    threads: Threads = 2,
    device: Device = "auto",
    json_output: Json = False,
) -> None:
    """Run the same components on this machine, without a cluster.

    A component that fails, measures what is no number or writes nothing ends it with its name and
    the exit code of its error: 10 for an output that is missing, 11 for a number that is none.
    Example: cloud-server pipeline kubeflow run fleet --data departments/ --model smollm2/
    """
    from cloud_server.kubeflow.options import FleetJob

    job = FleetJob(
        out=out, compiled=False, data=data, model=model, work=work, options=_options(locals())
    )
    told = _done(job)
    if json_output:
        typer.echo(json.dumps(told))
        return
    for number, one in enumerate(told["rounds"], 1):
        typer.echo(f"round {number}: loss {one['loss_before']:.4f} -> {one['loss_after']:.4f}")
    typer.echo(f"{out}: version {told['version']} on channel {told['channel']}")
    say(f"next: cloud-server start {out}, or cloud-server serve-adapters {out}")


def _options(given: dict[str, Any]) -> Any:
    from cloud_server.cli.init_command import parse_settings
    from cloud_server.kubeflow.options import FleetOptions, fleet_options

    known = {name: given[name] for name in FleetOptions.model_fields if name in given}
    return fleet_options(config=parse_settings(given["settings"] or []), **known)


def _done(job: Any) -> dict[str, Any]:
    from cloud_server.pipelines.child import run_in_child

    with with_steps("pipeline") as tell:
        return run_in_child(job, tell, "cloud_server.kubeflow")
