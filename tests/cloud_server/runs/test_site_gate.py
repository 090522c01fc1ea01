"""The models of sites that a run has made, as the gate judges them; robots are scripted."""

from dataclasses import replace

import numpy as np
import pytest
from measuring_robots import SETTINGS, Fleet, finished, publish

from cloud_server.rounds.round_loop import Participant, Reply
from cloud_server.runs import lifecycle
from cloud_server.runs.runs import Runs
from cloud_server.state.checkpoints import WEIGHTS, Checkpoints
from cloud_server.state.learning_settings import SiteSettings
from cloud_server.state.model_store import DirectoryStore
from fleet_model.bundle import entry_of_file, parse_manifest, to_json
from fleet_model.protocol.version import PROTOCOL
from fleet_model.types import EVALUATE
from fleet_model.weights import write_weights

SITES = {"r1": "hall-1", "r2": "hall-2"}
STEP = {"r1": 1.0, "r2": 3.0}
ON = SETTINGS.model_copy(
    update={"sites": SiteSettings(enabled=True, cluster_mixing=0, global_mix=0)}
)


class TwoSites(Fleet):
    """Robots that go 1 and 3 up; what they measure follows from how far up a model is."""

    def __init__(self, start):
        super().__init__()
        self.start, self.accuracy_at = start, {}
        self.robots = [
            Participant(node_id=n, name=name, site=site, protocol=PROTOCOL)
            for n, (name, site) in enumerate(SITES.items())
        ]

    def replies(self, tickets):
        return [self.reply(ticket, self.asked[ticket]) for ticket in tickets]

    def reply(self, ticket, request):
        robot, update = ticket.partition("-")[0], self.answer(request)
        name = sorted(request.checkpoint.weights)[0]
        up = round(float((request.checkpoint.weights[name] - self.start[name]).mean()), 3)
        accuracy = self.accuracy_at[robot][up]
        if request.kind == EVALUATE:
            metrics, weights = {"accuracy": accuracy}, {}
        else:
            metrics = {"accuracy_before": 0.0, "accuracy_after": 0.99, "held_out": 60.0}
            weights = {
                n: np.full_like(w, STEP[robot]) for n, w in request.checkpoint.weights.items()
            }
        return Reply(ticket=ticket, update=replace(update, metrics=metrics, weights=weights))


@pytest.fixture
def train(server_dir, fleet, monkeypatch):
    """Train with a fleet; return the run that has ended."""
    monkeypatch.setattr(lifecycle, "publish", publish)
    return lambda rounds, settings: finished(Runs(server_dir, settings, fleet).start(rounds))


@pytest.fixture
def fleet(server_dir):
    return TwoSites(Checkpoints(server_dir.checkpoints).load(1).weights)


def test_each_site_s_model_is_measured_by_its_robots_against_what_they_run(train, fleet):
    # a round makes 1 and 3 of the sites, 2 of all
    fleet.accuracy_at = {"r1": {0: 0.5, 2: 0.6, 1: 0.9}, "r2": {0: 0.5, 2: 0.6, 3: 0.2}}

    run = train(1, ON)

    assert fleet.requests[0] == ("train", 1)
    # the model of all, what robots run, and each site's: sent to one site at a time
    assert fleet.requests[1:] == [(EVALUATE, 2), (EVALUATE, 1), (EVALUATE, 2), (EVALUATE, 2)]
    assert (run.release.before, run.release.after) == ({"accuracy": 0.5}, {"accuracy": 0.6})
    one, other = run.release.sites["hall-1"], run.release.sites["hall-2"]
    assert (one.before, one.after, one.examples) == ({"accuracy": 0.5}, {"accuracy": 0.9}, 60)
    assert one.reasons == ()
    assert (other.before, other.after) == ({"accuracy": 0.5}, {"accuracy": 0.2})
    assert "fall" in [reason.kind for reason in other.reasons]
    told = run.release.sentences()
    assert any("the model of site hall-2 is held back from it: " in line for line in told)
    assert not any("hall-1" in line for line in told)


def test_where_a_site_has_a_version_of_its_own_that_is_what_its_model_is_compared_with(
    train, fleet, server_dir, tmp_path
):
    fleet.accuracy_at = {"r1": {0: 0.5, 2: 0.6, 1: 0.7, 5: 0.95}, "r2": {0: 0.5, 2: 0.6, 3: 0.9}}
    store, file = DirectoryStore(server_dir.store), tmp_path / WEIGHTS
    write_weights(file, {name: tensor + 5 for name, tensor in fleet.start.items()})
    store.keep(file, entry_of_file(file))
    version = server_dir.store / "versions" / "000001.json"
    manifest = parse_manifest(version.read_bytes())
    files = {**manifest.files, WEIGHTS: entry_of_file(file)}
    version.write_bytes(to_json(manifest.model_copy(update={"files": files})))
    store.offer("stable/sites/hall-1", 1)

    run = train(1, ON)

    one, other = run.release.sites["hall-1"], run.release.sites["hall-2"]
    assert (one.before, one.after) == ({"accuracy": 0.95}, {"accuracy": 0.7})
    assert "fall" in [reason.kind for reason in one.reasons]
    assert (other.before, other.reasons) == ({"accuracy": 0.5}, ())


def test_a_version_of_its_own_without_weights_leaves_a_site_unmeasured(train, fleet, server_dir):
    fleet.accuracy_at = {"r1": {0: 0.5, 2: 0.6, 1: 0.7}, "r2": {0: 0.5, 2: 0.6, 3: 0.9}}
    DirectoryStore(server_dir.store).offer("stable/sites/hall-1", 1)

    run = train(1, ON)

    one, other = run.release.sites["hall-1"], run.release.sites["hall-2"]
    assert [reason.kind for reason in one.reasons] == ["unmeasured"]
    assert "the version that is assigned to it has no weights" in one.words
    assert other.reasons == ()


def test_without_sites_nobody_is_asked_for_them(train, fleet, server_dir):
    fleet.accuracy_at = {name: {0: 0.5, 2: 0.9} for name in SITES}
    run = train(1, SETTINGS)
    assert run.release.sites == {}
    assert [kind for kind, _ in fleet.requests].count(EVALUATE) == 1
