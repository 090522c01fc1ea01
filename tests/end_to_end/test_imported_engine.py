"""A detector of another tool in a fleet that learns its own, with real processes."""

import json
import shutil

import pytest
from foreign_models import LABELS, SIDE, write_yolox, yolo_set

from cloud_server.models.release_log import ReleaseLog
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore

pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]
INIT = ("--workload", "object-detector", "--labels", ",".join(LABELS), "--image-size", SIDE)
FRAMES = 48


@pytest.fixture(scope="module")
def running(fleet):
    """A robot that learns runs an imported model; return what the import told."""
    fleet.everywhere = {"EDGE_AGENT_INSTALL__PROBATION_S": "0", "EDGE_AGENT_INSTALL__SLOWER": "50"}
    fleet.environment = {"FLEETLEARN_TRAINING__EPOCHS": "1", "FLEETLEARN_ROUNDS__QUORUM": "1"}
    fleet.type("cloud-server", "init", fleet.server, *INIT, "--port", fleet.port)
    fleet.start_server()
    data = yolo_set(fleet.root / "data", FRAMES)
    fleet.add_robot("r1", "--examples", data)
    fleet.wait("version 0", lambda: fleet.status("r1").get("active_version") == 0)
    made = bring(fleet, write_yolox(fleet.root / "yolox.onnx"), "--sample", data / "images")
    fleet.wait("the imported one", lambda: fleet.status("r1").get("active_version") == 1)
    return made


def bring(fleet, file, *options):
    done = fleet.type("cloud-server", "import-engine", fleet.server, file, *options, "--json")
    return json.loads(done.stdout)


def trial(fleet):
    return fleet.status("r1").get("trial") or {}


def test_what_was_found_is_told(running):
    assert running["version"] == 1
    assert running["reading"]["layout"] == "yolox"
    assert sum(running["sure_boxes"].values()) == FRAMES  # none, one or two of each picture
    assert running["warnings"] == []


def test_a_robot_runs_it_after_its_trial(running, fleet):
    assert (trial(fleet)["measure"], trial(fleet)["after"]) == ("map50", 1.0)
    status = fleet.type("edge-agent", "status", "--config", fleet.root / "robots/r1/agent.toml")
    assert "ONNX Runtime, the imported yolox.onnx, which nobody trains" in status.stdout


def test_predict_finds_and_draws_its_boxes(running, fleet):
    unseen = yolo_set(fleet.root / "unseen", 12, seed=9)
    done = fleet.type(
        "edge-agent", "predict", unseen, "--config", fleet.root / "robots/r1/agent.toml",
        "--json", "--annotate", fleet.root / "drawn",
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert answer["summary"]["measures"]["map50"] == 1.0
    assert len(answer["predictions"]) >= 12
    assert len(list((fleet.root / "drawn").iterdir())) == 12


def test_one_that_is_worse_there_is_refused(running, fleet):
    bring(fleet, write_yolox(fleet.root / "worse.onnx", shift=1.0))
    fleet.wait("its trial", lambda: trial(fleet).get("version") == 2)
    assert trial(fleet)["state"] == "refused"
    assert trial(fleet)["why"] in ("worse", "fallen")  # by how many frames are held out
    assert trial(fleet)["after"] < 0.5
    assert fleet.status("r1")["active_version"] == 1


def test_rounds_go_on_with_the_fleets_own_model_and_do_not_replace_it(running, fleet):
    done = fleet.type("cloud-server", "train", fleet.server, "--rounds", 1, exit_code=16)
    assert "they run version 2, which is worse.onnx and was imported" in done.stderr
    assert "cloud-server models publish" in done.stderr
    status = fleet.admin().status()
    assert status["channels"] == {"stable": 2}
    assert status["last_round"]["robots"][0]["outcome"] == "accepted"
    assert fleet.status("r1")["active_version"] == 1
    server_dir = ServerDirectory(fleet.server)
    assert not ReleaseLog(server_dir.releases).by_version()[3].left_behind


def test_it_is_taken_back_and_what_rounds_have_made_stays(running, fleet):
    done = fleet.type("cloud-server", "models", "rollback", fleet.server)
    assert "version 1 again, as version 4" in done.stdout
    assert "goes on from version 5" in done.stdout
    fleet.wait("version 4", lambda: fleet.status("r1").get("active_version") == 4)
    checkpoints = Checkpoints(fleet.server / "checkpoints")
    learned, newest = checkpoints.load(3).weights, checkpoints.latest()
    assert newest.version == 5
    assert all((newest.weights[name] == learned[name]).all() for name in learned)


def test_a_person_publishes_the_fleets_own(running, fleet):
    fleet.type("cloud-server", "models", "publish", fleet.server, 5)
    manifest = DirectoryStore(fleet.server / "store").latest("stable").manifest
    assert (manifest.version, manifest.imported) == (5, "")


def test_files_that_fit_no_robot_of_this_fleet_are_refused(running, fleet):
    for file, code in ((write_yolox(fleet.root / "three.onnx", classes=3), 2), ("none.onnx", 2)):
        fleet.type("cloud-server", "import-engine", fleet.server, file, exit_code=code)
    cut = fleet.root / "cut.onnx"
    shutil.copy(fleet.root / "yolox.onnx", cut)
    cut.write_bytes(cut.read_bytes()[:500])
    fleet.type("cloud-server", "import-engine", fleet.server, cut, exit_code=3)
