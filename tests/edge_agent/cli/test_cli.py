"""What a person types on a robot: outputs, exit codes, one line for every error."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloud_server.state.model_store import DirectoryStore
from edge_agent.agent.status import Status, StatusFile, write_status
from edge_agent.cli import app
from edge_agent.models import predict
from edge_agent.models.deploy import Models
from edge_agent.models.predictions import PredictSummary
from edge_agent.models.trials import TrialFile, Trials, Tried
from edge_agent.robot.settings import load_settings
from fleet_model import __version__
from fleet_model.durable import point_durably
from fleet_model.errors import LossError
from fleet_model.following import FollowingEngine
from fleet_model.litert.runtime import Measured, RuntimeChoice
from fleet_model.protocol.proof import fingerprint
from fleet_model.protocol.trial import TrialOutcome
from fleet_model.workload import Details

pytestmark = pytest.mark.base

TINY = Path(__file__).parents[2] / "data" / "tiny_bundle"
COMMANDS = ["enroll", "doctor", "run", "status", "pause", "resume", "predict"]


@pytest.fixture
def kit(tmp_path):
    kit = tmp_path / "kit"
    kit.mkdir()
    (kit / "kit.toml").write_text('address = "localhost:8443"\nchannel = "stable"\n')
    (kit / "ca.crt").write_text("a certificate")
    return kit


@pytest.fixture
def config(kit, tmp_path):
    type_("enroll", kit, "--dir", tmp_path / "robot")
    return tmp_path / "robot" / "agent.toml"


def type_(*words, code=0):
    """Run in this process; return (stdout, stderr)."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout, done.stderr


def type_outside(*words, code):
    """Run as a process, where main() turns errors into a line and an exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "edge_agent.cli", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("word", ["--version", "version"])
def test_the_version_is_the_packages(word):
    assert type_(word)[0] == f"fleetlearn {__version__}\n"


def test_help_names_every_command_exit_code_and_the_completion(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = " ".join(type_("--help")[0].split())
    for word in [*COMMANDS, "--version", "--install-completion", "--show-completion"]:
        assert word in text
    for code in ("2 wrong settings", "3 damaged", "12 disk full", "13 done but"):
        assert code in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    assert f"{command} [OPTIONS]" in type_(command, "--help")[0]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_completes_the_commands(shell):
    """As the shell asks: the script that --show-completion prints sets these variables."""
    words = {"COMP_WORDS": "edge-agent ", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "edge-agent "}
    code = "import sys; sys.argv = ['edge-agent']; from edge_agent.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **words, "_EDGE_AGENT_COMPLETE": f"complete_{shell}",
             "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("words", [["fly"], ["run", "--fast"], ["enroll"], ["predict", "--fast"]])
def test_what_is_no_command_ends_with_2(words):
    type_(*words, code=2)


def test_enroll_prints_the_key_alone_and_the_next_step_beside_it(kit, tmp_path):
    out, hint = type_(
        "enroll", kit, "--dir", tmp_path / "robot", "--examples", "bags", "--no-train"
    )
    assert out == (tmp_path / "robot" / "robot.pub").read_text()
    assert hint.count("ecdsa-") == 0  # one sees the key once, in a terminal too
    assert f"the line above is in {tmp_path}/robot/robot.pub. Copy that file" in hint
    assert re.search(r"cloud-server robots add DIR \S+ --site SITE --key robot\.pub\n", hint)
    assert f"fingerprint: {fingerprint(out.strip())}\n" in hint
    assert f"edge-agent run --config {tmp_path}/robot/agent.toml" in hint
    settings = load_settings(tmp_path / "robot" / "agent.toml", {})
    assert settings.examples.paths == (Path("bags").absolute(),)
    assert not settings.training.enabled


def test_with_a_token_in_the_kit_enroll_says_that_the_robot_admits_itself(kit, tmp_path):
    (kit / "token").write_text("abc.secret\n")
    _, hint = type_("enroll", kit, "--dir", tmp_path / "robot", "--name", "r7", "--no-train")
    assert "with the kit's token it admits itself when this runs:" in hint
    assert "robots add" not in hint
    assert (tmp_path / "robot" / "token").read_text() == "abc.secret\nr7\n"


def test_enroll_warns_of_examples_that_are_not_there_or_not_readable(kit, tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("there", "nope", "locked")]
    for path in (paths[0], paths[2]):
        path.mkdir()
    access = os.access  # root may read everything
    monkeypatch.setattr(os, "access", lambda path, mode: path != paths[2] and access(path, mode))
    words = ["enroll", kit, "--dir", tmp_path / "robot", "--json"]
    for path in paths:
        words += ["--examples", path]
    told = [one["text"] for one in json.loads(type_(*words)[0])["findings"]]
    assert f"{tmp_path}/nope: no such file or folder yet" in told
    assert f"{tmp_path}/locked: this user may not read it" in told
    settings = load_settings(tmp_path / "robot" / "agent.toml", {})
    assert settings.examples.paths == tuple(paths)


def test_enroll_opens_the_examples_and_compares_them_with_the_kits_labels(
    kit, tmp_path, image_folder
):
    (kit / "kit.toml").write_text((kit / "kit.toml").read_text() + 'labels = ["brick", "grass"]\n')
    folder = image_folder("signs", {"brick": 30, "gras": 30})
    _, told = type_("enroll", kit, "--dir", tmp_path / "robot", "--examples", folder)
    assert "30 labelled 'gras', which is not learned (did you mean 'grass'?)" in told
    assert "examples: can train: 24 to learn from, 6 held out; 30 brick, 0 grass; none of" in told
    assert "warn examples: many labels that this fleet does not learn" in told
    assert type_("status", "-c", tmp_path / "robot")[0] == "the agent has not run yet\n"
    assert type_("status", "--dir", tmp_path / "robot")[0] == "the agent has not run yet\n"


def test_enroll_looks_at_boxes_where_the_kit_says_so(kit, tmp_path, picture_bytes):
    (kit / "kit.toml").write_text(
        (kit / "kit.toml").read_text() + 'labels = ["cup", "jug"]\nboxes = true\n'
    )
    folder = tmp_path / "data"
    folder.mkdir()
    for index in range(3):
        (folder / f"{index}.jpg").write_bytes(picture_bytes(index))
    (folder / "labels.csv").write_text("file,label,x0,y0,x1,y1\n0.jpg,,,,,\n1.jpg,cup,1,2,9,8\n")
    _, told = type_("enroll", kit, "--dir", tmp_path / "robot", "--examples", folder)
    assert "left out: 1 in which nobody has said what is there" in told
    assert "1 show nothing" in told


def test_enroll_without_examples_says_that_the_robot_never_trains(kit, tmp_path):
    _, told = type_("enroll", kit, "--dir", tmp_path / "robot")
    assert "warn examples: none are named: this robot never trains\n     next: name" in told


def test_enroll_answers_in_json(kit, tmp_path):
    out, hint = type_("enroll", kit, "--dir", tmp_path / "robot", "--json")
    answer = json.loads(out)
    assert answer["fingerprint"] == fingerprint(answer["public_key"])
    assert hint == ""


def test_a_folder_that_is_no_kit_ends_with_2(tmp_path):
    assert "not a robot kit" in type_outside("enroll", tmp_path, "--dir", tmp_path / "r", code=2)


def test_the_status_of_a_robot_that_never_ran(config):
    assert type_("status", "-c", config)[0] == "the agent has not run yet\n"
    assert type_("status", "-c", config, "--json")[0] == "{}\n"


def test_the_status_shows_what_the_agent_wrote(config):
    state = config.parent / "state"
    metrics = {"accuracy_before": 0.5, "accuracy_after": 0.75}
    status = Status(name="r1", site="hall", state="offline", reason="no answer", active_version=3)
    status.rounds.append({"round": 1, "metrics": {}})
    write_status(state, status)
    out, _ = type_("status", "-c", config)
    assert "robot    r1 at site hall" in out
    assert "state    offline no answer" in out
    assert "standing" not in out
    assert "notice" not in out
    assert "paused" not in out
    assert "version  3" in out
    assert "accuracy" not in out  # nothing was held out
    metrics |= {"held_out": 4.0, "left_out_unknown_label": 60.0, "labels": 1.0}
    status.rounds.append({"round": 2, "num_examples": 88, "metrics": metrics})
    write_status(state, status)
    out, _ = type_("status", "-c", config)
    assert "accuracy 0.500 before its own training, 0.750 after (last round, of 4 held-out" in out
    assert (
        "examples 88 to train on, 4 held out; left out: 60 with a label that this fleet does not "
        "learn (`edge-agent doctor` says which)\n"
    ) in out
    assert (
        "WARNING  many labels that this fleet does not learn, so look at their spelling: 60 of"
        in out
    )
    assert "WARNING  fewer than 20 held-out examples, so scores say little: 4 held-out ex" in out
    assert json.loads(type_("status", "-c", config, "--json")[0])["name"] == "r1"


def test_predict_without_a_model_says_where_one_comes_from(config, image_folder):
    folder = image_folder("frames", {"circle": 1})
    text = type_outside("predict", folder, "-c", config, code=3)
    assert "no model is installed yet" in text


def test_predict_runs_the_active_model_at_the_settings_precision(config, image_folder, tmp_path):
    store = DirectoryStore(tmp_path / "store")
    models = Models(config.parent / "state" / "models")
    store.publish(TINY, "stable", TINY)
    models.install(store, store.latest("stable"), "int8")
    folder = image_folder("frames", {"circle": 2, "square": 1})
    answer_of = ["predict", folder, "-c", config, "--json"]
    assert "trunk.tflite: missing" in type_outside(*answer_of, code=3)
    answer = json.loads(type_(*answer_of, "--precision", "int8")[0])
    assert answer["summary"]["frames"] == 3
    config.write_text(config.read_text().replace('precision = "fp32"', 'precision = "int8"'))
    assert json.loads(type_(*answer_of)[0])["summary"]["frames"] == 3


def test_predict_needs_no_settings_when_a_bundle_is_given(image_folder, tmp_path):
    folder = image_folder("frames", {"circle": 1})
    out, _ = type_("predict", folder, "--bundle", TINY, "-c", tmp_path / "none.toml", "--json")
    assert json.loads(out)["summary"]["model_version"] == 1


def test_predictions_of_a_folder_that_is_half_damaged_end_with_13(image_folder, tmp_path):
    folder = image_folder("frames", {"circle": 4})
    for name in ("000", "002"):
        (folder / "circle" / f"{name}.png").write_bytes(b"spoilt")
    with pytest.raises(LossError, match=r"2 x unknown format, first frames/circle/000\.png"):
        type_("predict", folder, "--bundle", TINY, "--csv", tmp_path / "rows.csv")
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 3
    assert LossError.exit_code == 13


def test_a_robot_that_was_moved_says_so_until_a_person_gives_it_the_site(config):
    state = config.parent / "state"
    write_status(state, Status(name="r1", site="yard", models_site="hall", state="idle"))
    told = "WARNING  this robot chooses models by site hall, which it was told first; the server"
    assert told in type_("status", "-c", config)[0]
    assert "chooses models by site yard" in type_("site", "yard", "-c", config)[0]
    assert (state / "trust/site").read_text() == "yard\n"
    assert "expected letters" in type_outside("site", "../up", "-c", config, code=2)


def test_the_status_shows_what_became_of_new_bags(config):
    ingest = {"recordings": 9, "unreadable": 1, "frames": 90, "kept": 80, "examples": 80}
    more = {"megabytes": 3.2, "dropped": {"near duplicate": 2, "no label topic": 8}}
    status = Status(ingest={**ingest, **more, "error": "r7: no label topic /label; it has none"})
    write_status(config.parent / "state", status)
    out, _ = type_("status", "-c", config)
    assert "store    80 examples (3 MB) from 9 bags; 1 bags cannot be read\n" in out
    assert "left out 8 no label topic, 2 near duplicate\n" in out
    assert "bag      not added, the last one: r7: no label topic /label; it has none\n" in out


def test_the_status_says_how_many_labels_people_gave(config):
    state = config.parent / "state"
    write_status(state, Status(name="r1"))
    assert "labels " not in type_("status", "-c", config)[0]
    (state / "labels").mkdir()
    frames = (["r1", "/camera", 1], "star"), (["r1", "/camera", 2], "star")
    lines = [
        {"frame": frame, "kind": "label", "label": label, "by": "ann", "at": "2026-12-01T10:00:00"}
        for frame, label in frames
    ]
    lines.append(
        {"frame": ["r1", "/camera", 3], "kind": "unsure", "by": "bob", "at": "2026-12-01T11"}
    )
    (state / "labels" / "answers.jsonl").write_text("".join(f"{json.dumps(o)}\n" for o in lines))
    out, _ = type_("status", "-c", config)
    assert (
        "labels   2 frames labelled by a person: 2 star; 1 not sure, 0 skipped; by ann, bob, "
        "the last 2026-12-01 11 UTC\n"
    ) in out
    told = json.loads(type_("status", "-c", config, "--json")[0])["labels"]
    assert (told["frames"], told["labels"], told["unsure"]) == (2, {"star": 2}, 1)


def test_the_status_shows_what_the_server_thinks(config):
    status = Status(state="idle", standing="suspended", standing_reason="3 refused updates")
    status.last_notice = "run a round 3: refused: norm 40 times the median"
    write_status(config.parent / "state", status)
    out, _ = type_("status", "-c", config)
    assert "standing suspended 3 refused updates\n" in out
    assert "notice   run a round 3: refused: norm 40 times the median\n" in out


def test_the_status_shows_what_the_agent_could_not_do_and_what_it_measured(config):
    status = Status(state="idle", active_version=3)
    status.not_installed = "manifest.json is of protocol 9: update the agent"
    status.last_failure = "failed: this agent does not know the training option x"
    status.evaluation = {"version": 5, "num_examples": 12, "accuracy": 0.75, "loss": 0.5}
    status.sums = {"version": 5, "num_examples": 40, "left_out_waiting": 3.0}
    write_status(config.parent / "state", status)
    out, _ = type_("status", "-c", config)
    assert "newest   not installed: manifest.json is of protocol 9: update the agent\n" in out
    assert "request  last one: failed: this agent does not know" in out
    assert "measured version 5: accuracy 0.750, loss 0.500 (12 held-out examples)\n" in out
    assert "sums     of 40 examples were told; left out: 3 new ones that wait" in out


def test_the_status_shows_what_became_of_the_last_model_once(config):
    folder = config.parent / "state" / "models"
    outcome = TrialOutcome(version=4, state="refused", why="hung")
    file = TrialFile(folder)
    with file.locked():
        file.write(Trials(tried=[Tried(name="000004-aaaaaaaa", refused=True, outcome=outcome)]))
    write_status(config.parent / "state", Status(active_version=3, not_installed=outcome.words))
    out, _ = type_("status", "-c", config)
    assert out.count("version 4 is refused: it did not answer in time\n") == 1
    assert "trial    version 4" in out
    assert json.loads(type_("status", "-c", config, "--json")[0])["trial"]["why"] == "hung"


def test_the_status_shows_what_runs_the_model_and_what_was_measured(config):
    gpu = Measured(accelerator="gpu", why="cannot run a.tflite: it finds no GPU")
    cpu = Measured(accelerator="cpu", why="it is not faster", compiled_ms=4.2, interpreter_ms=4.1)
    choice = RuntimeChoice(
        asked="auto", accelerator="gpu", precision="fp32", litert="2.3.0", measured=[gpu, cpu]
    )
    write_status(config.parent / "state", Status(active_version=3, runtime=choice.model_dump()))
    out, _ = type_("status", "-c", config)
    assert (
        "runs by  LiteRT Interpreter (CompiledModel on the GPU: cannot run a.tflite: it finds no "
        "GPU; CompiledModel on the CPU: it is not faster, 4.2 ms, the Interpreter 4.1 ms)\n"
    ) in out
    told = json.loads(type_("status", "-c", config, "--json")[0])["runtime"]
    assert told["chosen"] == {"name": "interpreter", "accelerator": "cpu"}


@pytest.mark.parametrize(("path", "follows"), [("/dev/video0", True), (str(TINY), False)])
def test_what_is_live_follows_the_model_in_use_and_all_else_stays_with_one(
    config, monkeypatch, path, follows
):
    versions = config.parent / "state" / "models" / "versions"
    shutil.copytree(TINY, versions / "000001-aaaaaaaa")
    point_durably(config.parent / "state" / "models" / "current", "versions/000001-aaaaaaaa")
    asked = []

    def look(options, _, open_engine):
        engine = open_engine(options.bundle, options.precision)
        asked.append((options.bundle.name, isinstance(engine, FollowingEngine)))
        return PredictSummary(0, 0, {}, None, engine.manifest.version, None, {})

    monkeypatch.setattr(predict, "run_predict", look)
    type_("predict", path, "-c", config)
    assert asked == [("current" if follows else "000001-aaaaaaaa", follows)]


def test_options_for_boxes_reach_predict_and_the_details_follow_the_summary(monkeypatch, tmp_path):
    asked = []

    def look(options, *_):
        asked.append((options.coco, options.curves, options.min_score))
        details = Details({"cup": {"ap": 0.5}, "a jug": {"ap": math.nan}})
        return PredictSummary(2, 1, {"map": 0.5}, None, 7, None, {}, details=details)

    monkeypatch.setattr(predict, "run_predict", look)
    files = tmp_path / "c.json", tmp_path / "c.png"
    named = ("--coco", files[0], "--curves", files[1], "--min-score", "0.25", "--csv", "rows.csv")
    out, _ = type_("predict", tmp_path, "--bundle", TINY, *named)
    assert asked == [(*files, 0.25)]
    assert out.splitlines() == [
        "version 7: 2 frames; map 0.500 of 1 labelled frames",
        "        ap",
        "cup    0.5",
        "a jug    -",
    ]


def test_a_refused_model_is_allowed_again_by_hand(config):
    assert type_("install", "-c", config)[0].startswith("no model is refused; ")
    file = TrialFile(config.parent / "state" / "models")
    outcome = TrialOutcome(version=4, state="refused", why="hung")
    with file.locked():
        file.write(Trials(tried=[Tried(name="a", tries=3, refused=True, outcome=outcome)]))
    out, _ = type_("install", "-c", config, "--force")
    words = "until now version 4 is refused: it did not answer in time"
    assert out == f"the agent tries it again at its next poll; {words}\n"
    assert file.read() == Trials(tried=[Tried(name="a", outcome=outcome)], forced="a")


def test_the_last_error_is_shown_with_its_time_after_a_stop(config):
    file = StatusFile(config.parent / "state", "litert")
    file.set_state("offline", "no answer from fleet:8443")
    file.set_state("stopped")
    out, _ = type_("status", "-c", config)
    assert "state    stopped\n" in out
    assert re.search(r"error    the last one, 20\S+: no answer from fleet:8443\n", out)


def test_settings_that_the_agent_has_not_read_yet_are_told(config):
    StatusFile(config.parent / "state", "litert").set_state("idle")
    assert "was changed" not in type_("status", "-c", config)[0]
    later = time.time() + 60
    os.utime(config, (later, later))
    assert "was changed after the agent started: restart" in type_("status", "-c", config)[0]


@pytest.mark.parametrize(
    ("state", "robot"), [("refused", "not admitted yet"), ("offline", "not known yet")]
)
def test_the_status_before_the_server_knows_the_robot(config, state, robot):
    write_status(config.parent / "state", Status(state=state, reason="unknown key"))
    type_("pause", "-c", config)
    out, _ = type_("status", "-c", config)
    assert f"robot    {robot}\nstate    {state} unknown key\n" in out
    assert "version  none yet\n" in out
    assert "paused   no training until `edge-agent resume`\n" in out


def test_a_status_of_an_earlier_version_is_shown(config):
    old = {"name": "r1", "site": "hall", "state": "idle", "reason": "", "rounds": []}
    old |= {"active_version": 1, "idle_mb": 90.0, "peak_mb": 100.0}
    (config.parent / "state").mkdir()
    (config.parent / "state" / "status.json").write_text(json.dumps(old))
    assert "robot    r1 at site hall" in type_("status", "-c", config)[0]


def test_a_pause_is_shown_until_it_is_resumed(config):
    write_status(config.parent / "state", Status(name="r1", state="idle"))
    assert "paused" in type_("pause", "-c", config, "--reason", "docking")[0]
    assert "paused   docking" in type_("status", "-c", config)[0]
    assert json.loads(type_("status", "-c", config, "--json")[0])["paused"] == "docking"
    assert type_("resume", "-c", config)[0] == "resumed\n"
    assert json.loads(type_("status", "-c", config, "--json")[0])["paused"] == ""
    assert type_("resume", "-c", config)[0] == "it was not paused\n"


def test_a_reason_that_is_too_long_ends_with_2(config):
    text = type_outside("pause", "-c", config, "--reason", "x" * 101, code=2)
    assert "expected one line of at most 100 characters" in text


@pytest.mark.parametrize("name", ["kers", ""])
def test_a_trainer_that_does_not_exist_ends_a_run_with_2(config, name):
    config.write_text(config.read_text().replace('"litert"', f'"{name}"'))
    text = type_outside("run", "-c", config, code=2)
    known = "choose keras, litert, torch or module:Class"
    assert text == f"edge-agent: training.trainer: no trainer {name!r}; {known}\n"


@pytest.mark.parametrize(("name", "enabled"), [("my.own:Trainer", True), ("kers", False)])
def test_a_plug_in_or_a_trainer_that_is_not_used_is_not_looked_up(config, name, enabled):
    text = config.read_text().replace('"litert"', f'"{name}"')
    config.write_text(text.replace("enabled = true", f"enabled = {str(enabled).lower()}"))
    assert "ca.crt: not a CA certificate" in type_outside("run", "-c", config, code=2)


@pytest.mark.parametrize("command", [["run"], ["status"], ["pause"], ["resume"], ["predict", "x"]])
def test_missing_settings_end_with_2(command, tmp_path):
    text = type_outside(*command, "-c", tmp_path / "agent.toml", code=2)
    assert (
        text == f"edge-agent: {tmp_path}/agent.toml: no such file; `edge-agent enroll` makes one\n"
    )


def test_predict_without_a_path_or_settings_says_where_it_looked(tmp_path):
    assert "none.toml" in type_outside("predict", "-c", tmp_path / "none.toml", code=2)
