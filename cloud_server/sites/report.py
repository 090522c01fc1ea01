"""What a round has found among sites, for people: JSON and a picture in runs/ID/sites."""

import json
from pathlib import Path
from typing import Any

from cloud_server.sites.picture import picture
from cloud_server.sites.robot_clusters import RobotClusters
from cloud_server.sites.site_models import SiteModels, site_models
from cloud_server.state.round_record import RoundRecord
from fleet_model.durable import write_durably
from fleet_model.types import Checkpoint


def write_report(folder: Path, record: RoundRecord, checkpoint: Checkpoint) -> None:
    """Write round-000003.json and .png of a round whose sites have models; else nothing.

    All of it is in the checkpoint, so a process that goes on after another writes the same.

    Raises:
        OSError: the disk is full or fails.
    """
    if not record.clusters:
        return
    models = site_models(checkpoint)
    folder.mkdir(parents=True, exist_ok=True)
    about = as_json(record, models)
    file = folder / f"round-{record.round:06d}.json"
    write_durably(file, json.dumps(about, allow_nan=False, indent=1) + "\n")
    words = f"run {record.run}, round {record.round}, version {record.version}"
    write_durably(file.with_suffix(".png"), picture(words, models))


def newest_report(runs: Path) -> dict[str, Any] | None:
    """Return what the newest round with models of sites has found, as `write_report` wrote it.

    None: there is none, or it cannot be read.
    """
    found = max(runs.glob("*/sites/round-*.json"), key=lambda file: file.parts[-3:], default=None)
    try:
        return None if found is None else dict(json.loads(found.read_bytes()))
    except (OSError, ValueError):
        return None


def as_json(record: RoundRecord, models: SiteModels) -> dict[str, Any]:
    """Return the assignments, the elbow curve, silhouettes and similarities as JSON values."""
    found, robots = models.found, models.clusters_of_robots()
    return {
        "run": record.run,
        "round": record.round,
        "version": record.version,
        "choose": found.choose,
        "on": found.on,
        "sites": [
            {
                "site": entry.name,
                "cluster": entry.cluster + 1,
                "examples": entry.examples,
                "newest_version": entry.version,
                "late": entry.late,
                "robots": _of_robots(robots[entry.name]),
            }
            for entry in models.entries
        ],
        "inertia": found.inertia,
        "silhouette": found.silhouette,
        "similarity": {
            "sites": list(found.similarity_of),
            "cosines": [[round(float(c), 4) for c in row] for row in models.similarity],
        },
        "left_out": found.left_out,
        "forgotten": list(found.forgotten),
    }


def _of_robots(found: RobotClusters) -> dict[str, Any]:
    """Return the clusters of one site's robots; an empty list where they are not told apart."""
    return {
        "clusters": [
            {
                "cluster": number,
                "robots": dict(sorted(one.robots.items())),  # name -> newest version
                "examples": one.examples,
                "left_out": one.left_out,
            }
            for number, one in enumerate(found.clusters, 1)
        ],
        "replied": found.found.replied,
        "too_few": found.found.too_few,
        "inertia": found.found.inertia,
        "silhouette": found.found.silhouette,
    }
