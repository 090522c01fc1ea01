"""Whether robots of a site may get their site's own model: the gate, asked for each site.

The answer stands in the release of the version, and `models publish --site` goes by it.
"""

from collections.abc import Mapping

from cloud_server.runs.evidence import Measurement
from cloud_server.runs.gate import Evidence, Measured, Verdict, judge
from cloud_server.sites.site_models import site_models
from cloud_server.state.checkpoints import WEIGHTS, Checkpoints
from cloud_server.state.model_store import DirectoryStore
from fleet_model.bundle import parse_manifest
from fleet_model.errors import RoundError
from fleet_model.protocol.routes import channel_and_site
from fleet_model.types import Metrics, Weights
from fleet_model.weights import read_weights


def judged_sites(ask: Measurement, version: int, fleet: Evidence) -> Mapping[str, Verdict]:
    """Let robots measure their sites' models; return what the gate says of each, by site.

    Each robot compares with what it runs: what its channel offers, or the version that is
    assigned to its site.

    Args:
        ask: how robots are asked.
        version: whose checkpoint has models of sites; without any, nobody is asked.
        fleet: what is known of the model of all. Its measures of what robots run are used again.

    Raises:
        BundleError, CheckpointError: of files that are damaged.
        StoppedError: see Measurement.of.
    """
    if not ask.settings.sites.enabled:
        return {}
    starts = site_models(Checkpoints(ask.server_dir.checkpoints).load(version)).starts()
    assigned = _assigned(ask)
    after: Mapping[str, tuple[str, int, Metrics]] = {}
    before, why = {one.robot: one.before for one in fleet.robots}, fleet.why_unmeasured
    try:
        if starts and before:
            after = ask.of(version, tuple(before), starts, "-sites")
        other = {name for name, (site, _, _) in after.items() if site in assigned}
        before = {name: metrics for name, metrics in before.items() if name not in other}
        known = {site: weights for site, weights in assigned.items() if weights is not None}
        if asked := tuple(sorted(name for name in other if after[name][0] in known)):
            now = ask.of(version, asked, known, "-assigned")
            before |= {name: metrics for name, (_, _, metrics) in now.items()}
    except RoundError as error:
        after, why = {}, f"no robot has measured it: {error}"
    found = {}
    for site in starts:
        lost = assigned.get(site, {}) is None
        found[site] = Evidence(
            robots=[
                Measured(
                    robot=name, site=site, examples=max(examples, 1), before=before.get(name, {}),
                    after=metrics, alone={},
                )
                for name, (of, examples, metrics) in sorted(after.items())
                if of == site
            ],
            measures=fleet.measures,
            untrained=fleet.untrained and site not in assigned,
            at_release={},
            why_unmeasured="the version that is assigned to it has no weights that robots could "
            "measure" if lost else why,
        )  # fmt: skip
    return {site: judge(evidence, ask.settings.gate) for site, evidence in found.items()}


def _assigned(ask: Measurement) -> Mapping[str, Weights | None]:
    """Return site -> trained weights of its own version; None where those are not kept."""
    store, found = DirectoryStore(ask.server_dir.store), {}
    for name, (version, lineage) in store.offers().items():
        channel, site = channel_and_site(name)
        if not site or channel != ask.run.channel:
            continue
        entry = parse_manifest(store.require(version, lineage)).files.get(WEIGHTS)
        file = None if entry is None else store.object(entry.sha256)
        weights = None if file is None else read_weights(file)
        found[site] = weights if _fits(ask, weights) else None
    return found


def _fits(ask: Measurement, weights: Weights | None) -> bool:
    """Return whether robots can measure it beside what they train now; labels may have changed."""
    like = Checkpoints(ask.server_dir.checkpoints).latest().weights
    return weights is not None and {n: w.shape for n, w in like.items()} == {
        n: w.shape for n, w in weights.items()
    }
