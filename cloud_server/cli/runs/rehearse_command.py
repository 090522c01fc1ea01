"""`cloud-server simulate --workload`: real training of a fleet on one machine."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

from cloud_server.cli.init_command import ADAPTERS_ALONE, parse_settings
from fleet_model.errors import SettingsError

if TYPE_CHECKING:
    from cloud_server.models.adapters import AdapterPlan
    from cloud_server.state.round_record import RoundRecord
    from cloud_server.state.settings import ServerSettings

_WHEN = ("before", "after")
_HEAD = "round  clients    before     after  clusters   seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What was typed."""

    directory: Path | None
    workload: str
    checkpoint: Path | None
    data: Sequence[Path]
    sites: int | None
    clients: int
    rounds: int
    epochs: int | None
    learning_rate: float | None
    max_records: int
    dtype: str | None
    device: str
    four_bits: bool
    trainable: str
    rank: int | None
    alpha: float | None
    dropout: float | None
    targets: Sequence[str]
    mixing: float | None
    global_mix: float | None
    choose: str | None
    on: str | None
    personal: Sequence[str]
    set: Sequence[str]
    rule: str | None
    options: Mapping[str, str]
    threads: int
    json: bool


def rehearse(asked: Asked) -> None:
    """Make DIR and close the rounds."""
    from cloud_server.cli.terminal import with_steps
    from cloud_server.initialize import InitPlan
    from cloud_server.rehearsal.rehearse import RUN, RehearsalPlan
    from cloud_server.rehearsal.rehearse import rehearse as run
    from cloud_server.rehearsal.tables import tables_of_sites

    if asked.directory is None:
        raise SettingsError("--workload: name a new directory, which the fleet is made in")
    if asked.checkpoint is None or not asked.data:
        raise SettingsError(
            "--workload needs --checkpoint FOLDER, the model, and --data, a table of instructions "
            "that is dealt out, or one for each site"
        )
    data, dealt = tables_of_sites(asked.data, asked.sites)
    config = parse_settings(asked.set)
    if asked.four_bits:
        config["dtype"] = "4bit"  # the workload says why not
    elif asked.dtype is not None:
        config["dtype"] = asked.dtype
    plan = RehearsalPlan(
        init=InitPlan(
            workload=asked.workload,
            config=config,
            trainable=asked.trainable,
            host="127.0.0.1",
            port=8443,
            names=["localhost"],
            checkpoint=asked.checkpoint,
            adapter=_adapter(asked),
        ),
        data=data,
        dealt=dealt,
        clients=asked.clients,
        rounds=asked.rounds,
        most=asked.max_records,
        threads=asked.threads,
        device=asked.device,
    )
    records: list[RoundRecord] = []

    def closed(record: "RoundRecord") -> None:
        if not asked.json:
            for line in (*([] if records else [_HEAD]), _row(record)):
                typer.echo(line)
        records.append(record)

    _require_known(asked)
    with with_steps("simulate") as tell:
        learned = run(
            asked.directory, plan, lambda settings: _chosen(settings, asked), closed, tell
        )
    folder = asked.directory / "runs" / RUN
    if asked.json:
        typer.echo(json.dumps({"rounds": [_as_json(one) for one in records], "learned": learned}))
        return
    losses = [float(str(one["loss"])) for one in learned if "loss" in one]
    without = len(learned) - len(losses)
    mean = f"loss {sum(losses) / len(losses):.4f}, the mean of clients" if losses else "no loss"
    typer.echo(f"learned: {mean}" + (f"; {without} could not measure" if without else ""))
    typer.echo(f"{folder}: adapters, sites, evaluations.json, learned.json")


def _adapter(asked: Asked) -> "AdapterPlan | None":
    from cloud_server.cli.init_command import adapter_plan

    given = {
        "rank": asked.rank,
        "alpha": asked.alpha,
        "dropout": asked.dropout,
        "patterns": tuple(f"*/{name}/*" for name in asked.targets) or None,
    }
    return adapter_plan("lora" if asked.trainable in ADAPTERS_ALONE else None, given)


def _chosen(settings: "ServerSettings", asked: Asked) -> "ServerSettings":
    """Return the settings of the rounds: those of `init`, and what was typed."""
    from cloud_server.state.learning_settings import AggregationSettings

    training: dict[str, Any] = {}
    if asked.epochs is not None:
        training["epochs"] = asked.epochs
    if asked.learning_rate is not None:
        training["learning_rate"] = asked.learning_rate
    changed: dict[str, Any] = {"training": settings.training.model_copy(update=training)}
    if asked.rule or asked.options or asked.personal:
        changed["aggregation"] = AggregationSettings(
            rule=asked.rule or settings.aggregation.rule,
            options=dict(asked.options),
            personal=tuple(asked.personal),
        )
    if asked.mixing is not None:
        given = {"enabled": True, "cluster_mixing": asked.mixing, **_of_sites(asked)}
        changed["sites"] = settings.sites.model_copy(update=given)
    return settings.model_copy(update=changed)


def _of_sites(asked: Asked) -> dict[str, Any]:
    """Return what was typed of clusters beside --mixing."""
    given = {"global_mix": asked.global_mix, "choose": asked.choose, "on": asked.on}
    return {name: value for name, value in given.items() if value is not None}


def _require_known(asked: Asked) -> None:
    """Raise SettingsError, before anything is made, for what goes with --mixing and cannot be."""
    given = _of_sites(asked)
    if given and asked.mixing is None:
        flag = f"--{next(iter(given)).replace('_', '-')}"
        raise SettingsError(f"{flag} goes with --mixing, which gives each site a model: add it")
    from cloud_server.sites.clusters import Choice

    if asked.choose not in (None, *get_args(Choice)):
        raise SettingsError(f"--choose {asked.choose}: expected {' or '.join(get_args(Choice))}")


def _row(record: "RoundRecord") -> str:
    before, after = (record.metrics.get(f"loss_{when}", float("nan")) for when in _WHEN)
    told = len(set(record.clusters.values())) or "-"
    accepted = sum(robot.accepted for robot in record.robots)
    return (
        f"{record.round:5}  {accepted:7}  {before:8.4f}  {after:8.4f}  {told:>8}  "
        f"{record.seconds:8.1f}"
    )


def _as_json(record: "RoundRecord") -> dict[str, Any]:
    return {
        "round": record.round,
        "version": record.version,
        "seconds": round(record.seconds, 1),
        "metrics": dict(record.metrics),
        "clusters": dict(record.clusters),
        "clients": {robot.name: robot.outcome.kind for robot in record.robots},
    }
