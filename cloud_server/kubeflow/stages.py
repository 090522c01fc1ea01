"""The stages: each fills a folder from others, and returns what it has measured.

A stage writes its last file when all others are there: `LAST`.
"""

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloud_server.initialize import InitPlan
from cloud_server.kubeflow.options import FleetOptions
from cloud_server.models.adapters import AdapterPlan
from cloud_server.models.backend import Progress
from cloud_server.models.publish import publish as publish_version
from cloud_server.pipelines.places import data_at, is_bucket
from cloud_server.pipelines.steps import content_digest, digest_of_code, working_folder
from cloud_server.profiles.fusing import fuse
from cloud_server.profiles.reply import check_profile
from cloud_server.profiles.store import ProfileStore
from cloud_server.profiles.values import values_of
from cloud_server.rehearsal.client_process import ClientProcess
from cloud_server.rehearsal.rehearse import RehearsalPlan, clients_of, rehearse
from cloud_server.rehearsal.tables import tables_of_sites
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.learning_settings import AggregationSettings
from cloud_server.state.round_record import RoundRecord
from cloud_server.state.settings import ServerSettings, load_settings
from fleet_model.errors import CheckpointError, SettingsError
from fleet_model.profiles.profile import GROUP

# The file that each stage writes last.
LAST = {
    "prepare": "prepared.json",
    "clients": "clients.json",
    "rounds": "rounds.json",
    "profiles": "profiles.json",
    "publish": "published.json",
}
_ROOT = Path(__file__).parents[2]
_SOURCES = ("cloud_server", "edge_agent", "fleet_model")
_LIBRARIES = ("flwr", "numpy", "pyarrow", "safetensors", "tokenizers", "torch", "transformers")
Measures = dict[str, float]


def prepare(
    data: str, model: str, options: FleetOptions, into: Path, tell: Progress
) -> tuple[Measures, str]:
    """Copy tables and base, and return what names all that follows: a digest of them and the code.

    Args:
        data: table, folder of tables, or a bucket's.
        model: folder of the base, or a bucket's.
        options: say how many sites one table is dealt out to.
        into: an empty folder.
        tell: is told what is fetched.

    Raises:
        FrameError: there is no table.
        CheckpointError: there is no base.
        SettingsError: --sites does not fit the tables.
    """
    scratch = working_folder(into.with_name(f".{into.name}.fetched"))
    try:
        table = data_at(data, scratch, {}, tell)
        base = data_at(model, scratch, {}, tell) if is_bucket(model) else Path(model)
        if not (base / "config.json").is_file():
            raise CheckpointError(
                f"{model}: holds no config.json; --model is a folder with a causal language model, "
                "as save_pretrained writes it"
            )
        found, dealt = tables_of_sites([table], options.sites)
        sites: dict[str, list[str]] = {}
        for site, files in found.items():
            folder = Path("tables") / ("all" if dealt else site)
            (into / folder).mkdir(parents=True, exist_ok=True)
            for file in files:
                shutil.copyfile(file, into / folder / file.name)
            sites[site] = [(folder / file.name).as_posix() for file in files]
        shutil.copytree(base, into / "base")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    digests = {
        "data": content_digest(into / "tables"),
        "model": content_digest(into / "base"),
        "code": digest_of_code(_ROOT, _LIBRARIES, _SOURCES),
    }
    _write(into, "prepare", {"sites": sites, "dealt": dealt, **digests})
    tables = len({name for names in sites.values() for name in names})
    return {"sites": len(sites), "tables": tables}, "-".join(d[:20] for d in digests.values())


def clients(prepared: Path, options: FleetOptions, into: Path) -> Measures:
    """Write who takes part: the clients of each site, and which rows each has.

    Raises:
        SettingsError: fewer than two.
    """
    found = clients_of(_plan(prepared, options))
    if len(found) < 2:
        raise SettingsError(f"{len(found)} clients are no fleet: expected two at least; --clients")
    told = [
        {
            "name": one.name,
            "site": one.site,
            "tables": [path.relative_to(prepared).as_posix() for path in one.data.paths],
            "part": one.data.part,
            "parts": one.data.parts,
        }
        for one in found
    ]
    _write(into, "clients", told)
    return {"clients": len(found)}


def rounds(
    prepared: Path, clients: Path, options: FleetOptions, into: Path, tell: Progress
) -> Measures:
    """Make a server directory and close rounds with real training.

    Raises:
        SettingsError: options, or clients that are not those of the stage before.
        CheckpointError, ExportError: the base cannot be used.
        RoundError: a round fails.
    """
    plan = _plan(prepared, options)
    names = [one["name"] for one in _read(clients, "clients")]
    if names != [one.name for one in clients_of(plan)]:
        raise SettingsError("its clients are others than the options say: run the pipeline anew")
    closed: list[RoundRecord] = []

    def told(record: RoundRecord) -> None:
        closed.append(record)
        loss = record.metrics.get("loss_after", math.nan)
        tell(f"round {record.round}: loss {loss:.4f}")

    learned = rehearse(into, plan, lambda settings: _chosen(settings, options), told, tell)
    losses = [float(str(one["loss"])) for one in learned if "loss" in one]
    found = {
        "loss_before": closed[0].metrics["loss_before"],
        "loss_after": closed[-1].metrics["loss_after"],
        **({"learned_loss": sum(losses) / len(losses)} if losses else {}),
    }
    each = [dict(record.metrics) for record in closed]
    _write(into, "rounds", {"rounds": each, "learned": list(learned)})
    return found


def profiles(
    prepared: Path, fleet: Path, options: FleetOptions, into: Path, tell: Progress
) -> Measures:
    """Ask each client for a profile, and fuse them; who has too few records tells none.

    Raises:
        TrainingError: the model makes no embeddings.
        UpdateError: a profile is not as it should be.
    """
    server_dir = ServerDirectory(fleet.absolute())
    checkpoint = Checkpoints(server_dir.checkpoints).latest()
    checks = load_settings(server_dir.settings).checks
    store, told = ProfileStore(into / "profiles"), 0
    with ClientProcess(server_dir.model, _environment(options)) as process:
        for client in clients_of(_plan(prepared, options)):
            update = process.profile(client.data, checkpoint.version, checkpoint.weights)
            if update is None:
                tell(f"{client.name}: too few records of different authors for a profile")
                continue
            check_profile(update, checkpoint, checkpoint.version, checks)
            store.save(client.name, checkpoint.version, update.groups[GROUP])
            told += 1
    found = store.of(checkpoint.version) if told else {}
    _write(into, "profiles", values_of(checkpoint.version, fuse(found, checks)) if found else {})
    return {"profiles": told}


def publish(fleet: Path, profiles: Path, into: Path, tell: Progress) -> Measures:
    """Export what was learned, check it, sign it and offer it: `into` is a fleet to be started.

    Raises:
        ExportError: the exported files do not say what the model says.
    """
    shutil.copytree(fleet, into, dirs_exist_ok=True, symlinks=True)
    server_dir = ServerDirectory(into.absolute())
    if (profiles / "profiles").is_dir():
        shutil.copytree(profiles / "profiles", server_dir.profiles, dirs_exist_ok=True)
    settings = load_settings(server_dir.settings).publish
    checkpoint = Checkpoints(server_dir.checkpoints).latest()
    manifest = publish_version(server_dir, settings, checkpoint, tell)
    _write(into, "publish", {"version": manifest.version, "channel": settings.channel})
    return {"version": manifest.version}


def _plan(prepared: Path, options: FleetOptions) -> RehearsalPlan:
    told = _read(prepared, "prepare")
    return RehearsalPlan(
        init=InitPlan(
            workload=options.workload,
            config=dict(options.config),
            trainable="lora",
            host="127.0.0.1",
            port=8443,
            names=["localhost"],
            checkpoint=prepared / "base",
            adapter=AdapterPlan() if options.rank is None else AdapterPlan(rank=options.rank),
        ),
        data={site: [prepared / name for name in names] for site, names in told["sites"].items()},
        dealt=told["dealt"],
        clients=options.clients,
        rounds=options.rounds,
        most=options.max_records,
        threads=options.threads,
        device=options.device,
    )


def _chosen(settings: ServerSettings, options: FleetOptions) -> ServerSettings:
    """Return the settings of the rounds: those of `init`, and what was asked for."""
    training = {
        name: value
        for name in ("epochs", "learning_rate")
        if (value := getattr(options, name)) is not None
    }
    changed: dict[str, Any] = {"training": settings.training.model_copy(update=training)}
    if options.rule:
        changed["aggregation"] = AggregationSettings(rule=options.rule)
    if options.mixing is not None:
        given = {"enabled": True, "cluster_mixing": options.mixing}
        changed["sites"] = settings.sites.model_copy(update=given)
    return settings.model_copy(update=changed)


def _environment(options: FleetOptions) -> Mapping[str, str]:
    return {"OMP_NUM_THREADS": str(options.threads), "EDGE_AGENT_TRAINING__DEVICE": options.device}


def _write(into: Path, stage: str, value: Any) -> None:
    into.mkdir(parents=True, exist_ok=True)
    # Numbers that are none are told as null here, and refused with the component's measures.
    text = json.dumps(_finite(value), indent=1, ensure_ascii=False, allow_nan=False)
    (into / LAST[stage]).write_text(text + "\n", "utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(folder: Path, stage: str) -> Any:
    return json.loads((folder / LAST[stage]).read_text("utf-8"))
