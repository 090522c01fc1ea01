"""What pages say of models: channels, versions with their gate and lineage, rollouts."""

from collections.abc import Mapping
from typing import Any

from cloud_server.console.desk import Desk
from cloud_server.console.runs_view import when
from cloud_server.monitoring.versions import version_json, versions_json
from cloud_server.rollout.progress import RolloutStatus
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.clock import age
from fleet_model.protocol.rollout import ABORTED, COMPLETE, HALTED
from fleet_model.protocol.routes import channel_and_site

OUTCOMES = {"confirmed": "good", "trying": "waits", "waiting": "away", "failed": "bad"}


def models(desk: Desk) -> dict[str, Any]:
    """Return channels, versions with the newest first, those withheld, rollouts."""
    status, told = desk.status(), versions_json(desk.server_dir)
    offered: dict[tuple[int, str], list[str]] = {}
    for name, (version, lineage) in desk.overview.store.offers().items():
        if "/" not in name or channel_and_site(name)[1]:
            offered.setdefault((version, lineage), []).append(name.replace("/sites/", " at "))
    runs = {robot.name: robot.active_version for robot in status.robots}
    versions = [_row(one, offered, runs) for one in told["versions"]]
    withheld = [_withheld(one) for one in told["withheld"]]
    rows = sorted([*versions, *withheld], key=lambda one: one["version"], reverse=True)
    return {
        "channels": told["channels"],
        "versions": rows,
        "withheld": withheld,
        "rollouts": [rollout(desk, one) for one in status.rollouts],
    }


def _row(
    one: Mapping[str, Any],
    offered: Mapping[tuple[int, str], list[str]],
    runs: Mapping[str, int | None],
) -> dict[str, Any]:
    version, lineage, release = one["version"], one.get("lineage", ""), one.get("release") or {}
    signed = {by["channel"]: by for by in one["signatures"]}
    return {
        "version": version,
        "lineage": lineage,
        "state": "rolled back" if release.get("kind") == "rolled_back" else "published",
        "tone": "good",
        "made": one["created_at"][:16].replace("T", " "),
        "by": release.get("by", ""),
        "of": release.get("of"),
        "channels": ", ".join(offered.get((version, lineage), [])),
        "robots": sum(active == version for active in runs.values()),
        "signed": ", ".join(dict.fromkeys(by["role"] for by in signed.values())),
        "gate": gate(release),
        "workload": one["workload"]["name"],
        "mb": sum(file["size_bytes"] for file in one["files"].values()) / 1e6,
        "reasons": [],
    }


def _withheld(one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "version": one["version"],
        "lineage": one.get("lineage", ""),
        "state": "withheld",
        "tone": "bad",
        "made": when(one["at"]),
        "by": one["by"],
        "of": one["of"],
        "channels": "",
        "robots": 0,
        "signed": "",
        "gate": gate(one),
        "workload": "",
        "mb": None,
        "reasons": [reason["words"] for reason in one["reasons"]],
    }


def gate(release: Mapping[str, Any]) -> str:
    """Return what robots measured of a version, and on how many held-out examples."""
    before, after = release.get("before") or {}, release.get("after") or {}
    told = [f"{n} {before[n]:.3f} → {value:.3f}" for n, value in after.items() if n in before]
    return f"{', '.join(told)} on {release['examples']} held-out examples" if told else ""


def rollout(desk: Desk, one: RolloutStatus) -> dict[str, Any]:
    """Return how far a rollout is: its groups, how many robots of each have come to what."""
    groups = []
    for index, name in enumerate(one.groups):
        members = [member for member in one.members if member.group == index]
        counts = {kind: sum(m.outcome == kind for m in members) for kind in OUTCOMES}
        groups.append(
            {
                "name": name,
                "open": index < one.open,
                "robots": len(members),
                "counts": [(kind, OUTCOMES[kind], n) for kind, n in counts.items() if n],
            }
        )
    over = one.state in (COMPLETE, ABORTED)
    return {
        "channel": one.channel,
        "state": one.state,
        "tone": {COMPLETE: "good", ABORTED: "away", HALTED: "bad"}.get(one.state, "waits"),
        "version": one.next,
        "before": one.present,
        "why": one.why,
        "since": age(one.since_s),
        "over": over,
        "halted": one.state == HALTED,
        "groups": groups,
        "failed": [(m.name, m.why) for m in one.members if m.outcome == "failed"][:20],
        "words": [desk.words(line) for line in one.sentences()],
    }


def one_version(desk: Desk, version: int, lineage: str) -> dict[str, Any]:
    """Return where a version comes from; raises BundleError if there is none."""
    home = desk.lineage(lineage)
    about = version_json(home, version)
    facts = [
        ("State", about["state"]),
        ("Published by", about["by"] or "-"),
        ("Weights of version", str(about["weights_of_version"])),
        ("Round", f"{about['round']} of run {about['run']}" if about["run"] else "-"),
        ("Training examples", str(about["training_examples"])),
        ("Held-out examples", str(about["held_out_examples"])),
        ("Made", (about["created_at"] or "-")[:16].replace("T", " ")),
        ("Signed", "; ".join(about["signed"]) or "no"),
        ("Labels", ", ".join(about["classes"]) or "-"),
    ]
    before, after = about["before"], about["after"]
    measures = [(n, before.get(n), after.get(n)) for n in sorted({*before, *after})]
    return {
        "version": version,
        "lineage": lineage,
        "about": about,
        "about_facts": facts,
        "measures": measures,
        "published": about["created_at"] is not None,
        "kept": version in Checkpoints(home.checkpoints).saved(),
        "reasons": about["reasons"],
        "warnings": about["warnings"],
    }
