"""Every command of README.md and docs is run: the tutorial as a person follows it, then the rest.

Only what runs for minutes, installs, or needs another machine is run elsewhere; COVERED says where.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest_docs import PAGES, ROOT, typed_commands

BIN = Path(sys.executable).parent
PATIENCE_S = 300.0
SERVICES = ("cloud-server start", "edge-agent run")  # they run until they are ended
TUTORIAL = next(page for page in PAGES if page.name == "tutorial.md")
# How a command begins -> the file that runs it. Long suites and other machines are not for here.
COVERED = {
    "make demo-detection": ("Makefile", "demo-detection:"),
    "make demo": ("Makefile", "demo:"),
    "make test": (".ci/run", "make test"),
    "make check": ("Makefile", "check:"),
    "make bench": ("Makefile", "bench:"),
    "python -m benchmarks.": ("tests/benchmarks/test_benchmarks.py", "benchmarks"),
    "python tests/fuzz/": ("tests/fuzz/test_fuzz_messages.py", "fuzz_messages.py"),
    "site-relay init": ("tests/end_to_end/test_site_relay.py", '"init"'),
    "site-relay start": ("tests/end_to_end/test_site_relay.py", '"start"'),
    "cloud-server robots add fleet relay-1": ("tests/end_to_end/test_site_relay.py", '"add"'),
    "cloud-server robots relay fleet": ("tests/end_to_end/test_site_relay.py", '"relay"'),
    "edge-agent enroll hall-2/kit": ("tests/end_to_end/conftest.py", '"enroll"'),
    "cloud-server robots add hall-2": ("tests/end_to_end/conftest.py", '"add"'),
    "edge-agent serve": ("tests/edge_agent/serving/conftest.py", '"serve"'),
    "cloud-server init server --workload object-detector": (
        "tests/end_to_end/test_detection.py",
        '"--workload", "object-detector"',
    ),
    "edge-agent predict tickets.csv": (
        "tests/edge_agent/cli/test_texts.py",
        '"predict", tickets, "--config"',
    ),
    "edge-agent predict recording/ --config robot/agent.toml --annotate seen/": (
        "tests/end_to_end/test_detection.py",
        '"--curves"',
    ),
    "cloud-server import-engine fleet": (
        "tests/end_to_end/test_imported_engine.py",
        '"cloud-server", "import-engine"',
    ),
    "edge-agent label --config robot/agent.toml --teacher": (
        "tests/edge_agent/labeling/teacher/test_lesson.py",
        '"--teacher"',
    ),
    "edge-agent label": ("tests/edge_agent/labeling/test_server.py", '"label"'),
    "cloud-server k8s apply": ("tests/cloud_server/cli/test_k8s_commands.py", '"apply"'),
    "cloud-server k8s status": ("tests/cloud_server/cli/test_k8s_commands.py", '"status"'),
    "pip install": ("pyproject.toml", "scikit-image"),
    "ros2 bag record": ("tests/edge_agent/data/frames/publish_camera.py", "rclpy"),
    "flower-superlink": ("tests/end_to_end/test_separate_superlink.py", "flower-superlink"),
    "flower-superexec": ("tests/end_to_end/test_separate_superlink.py", "flower-superexec"),
    "flower-supernode": ("tests/end_to_end/test_stock_supernode.py", "supernode"),
    "cloud-server init fleet --labels clear,blocked": (
        "tests/cloud_server/cli/test_cli.py",
        "--host",
    ),
    "cloud-server init DIR --channel": ("tests/cloud_server/cli/test_cli.py", '"--channel"'),
    "cloud-server init fleet --workload text-classifier": (
        "tests/end_to_end/test_text.py",
        '"text-classifier"',
    ),
    "cloud-server init fleet --workload causal-lm": (
        "tests/end_to_end/test_language_model.py",
        '"causal-lm"',
    ),
    "cloud-server models export fleet --format peft": (
        "tests/end_to_end/test_language_model.py",
        '"peft"',
    ),
    "cloud-server init fleet --workload vision-language": (
        "tests/end_to_end/test_vision_language.py",
        '"vision-language"',
    ),
    "cloud-server models export fleet --format bundle": (
        "tests/deploy/test_predictor.py",
        '"--format", "bundle"',
    ),
    "cloud-server models export fleet --format merged": (
        "tests/end_to_end/test_vision_language.py",
        '"merged"',
    ),
    "edge-agent enroll fleet/kit --dir desk --examples records.jsonl": (
        "tests/end_to_end/test_vision_language.py",
        '"--examples"',
    ),
    "cloud-server profiles": ("tests/end_to_end/test_vision_language.py", '"profiles"'),
    "edge-agent collect": ("tests/end_to_end/test_vision_language.py", '"collect"'),
    "edge-agent predict records.jsonl": (
        "tests/end_to_end/test_vision_language.py",
        '"predict"',
    ),
    "cloud-server simulate out --workload causal-lm": (
        "tests/cloud_server/rehearsal/test_rehearse.py",
        '"--workload", "causal-lm"',
    ),
    "cloud-server compare": ("tests/cloud_server/compared_models.py", '"compare"'),
    "cloud-server web DIR": ("tests/cloud_server/console/test_routes.py", '"web"'),
    "cloud-server serve-adapters": (
        "tests/cloud_server/departments/test_service.py",
        '"serve-adapters"',
    ),
    "cloud-server mcp": ("tests/cloud_server/cli/assistants/conftest.py", '"mcp"'),
    "cloud-server adapters": (
        "tests/cloud_server/departments/test_upload.py",
        '"adapters"',
    ),
    "edge-agent predict prompts.jsonl": ("tests/end_to_end/test_language_model.py", '"predict"'),
    "cloud-server pipeline kubeflow": (
        "tests/cloud_server/kubeflow/test_pipeline.py",
        '"pipeline", "kubeflow"',
    ),
    "cloud-server pipeline run": (
        "tests/cloud_server/pipelines/test_pipeline.py",
        '"pipeline", "run"',
    ),
    "cloud-server compress": (
        "tests/cloud_server/compression/recipes/test_pipeline.py",
        '"cloud_server.cli", "compress"',
    ),
    "cloud-server init fleet --workload gripper": (
        "tests/end_to_end/test_foreign_workload.py",
        "--set",
    ),
    "cloud-server models sync": ("tests/cloud_server/signing/test_sync.py", '"models", "sync"'),
    "cloud-server labels add": ("tests/end_to_end/test_added_labels.py", '"labels", "add"'),
    "cloud-server labels rename": ("tests/cloud_server/cli/test_cli.py", '"labels", "rename"'),
    "cloud-server robots add fleet --from": ("tests/cloud_server/cli/test_cli.py", "--from"),
    "cloud-server train DIR --rounds 5 --closed-form": (
        "tests/end_to_end/test_closed_form.py",
        "--closed-form",
    ),
    "cloud-server robots forget DIR r1 --unlearn": (
        "tests/end_to_end/test_closed_form.py",
        "--unlearn",
    ),
    "cloud-server models publish fleet 6 --site": ("tests/cloud_server/test_rollback.py", "site"),
    "cloud-server models assign fleet 7 --site": (
        "tests/cloud_server/cli/test_channel_commands.py",
        '"assign"',
    ),
    "cloud-server train fleet --rounds 5": (
        "tests/cloud_server/cli/runs/test_run_commands.py",
        "train",
    ),
    "cloud-server train fleet --rounds 3 --every": (
        "tests/cloud_server/cli/runs/test_run_commands.py",
        "--every",
    ),
    "cloud-server train fleet --continuous": (
        "tests/cloud_server/cli/runs/test_run_commands.py",
        "--continuous",
    ),
    "cloud-server runs compare": (
        "tests/cloud_server/cli/runs/test_compare_command.py",
        '"runs", "compare"',
    ),
    "cloud-server status fleet --watch": (
        "tests/cloud_server/cli/test_status_commands.py",
        "--watch",
    ),
    "cloud-server models promote": ("tests/end_to_end/test_staged_rollout.py", '"--groups"'),
    "cloud-server rollout": ("tests/end_to_end/test_staged_rollout.py", '"rollout", "abort"'),
    "cloud-server status DIR --watch": (
        "tests/cloud_server/cli/test_status_commands.py",
        "--watch",
    ),
}
# What a reader replaces by names of their own -> what this test has.
NAMES = {
    "DIR": "fleet", "kit": "fleet/kit", "BAG": "monday.mcap", "YOLO_DIR": "set",
    "robot/agent.toml": "r1/agent.toml", "bag/": "bags/hall-1/r1", "/data/bags": "bags/hall-1/r1",
    "20260101-120000": "RUN",
    "fleet 1": "fleet 3",  # the version that the tutorial publishes
}  # fmt: skip
# What makes a command end sooner.
SHORTER = {"python datasets/robot_camera.py datasets/data": " --frames 20"}
OUTPUTS = {"edge-agent extract BAG": "of-bag", "edge-agent extract YOLO_DIR": "of-yolo"}


class Reader:
    """Somebody who types what the pages say, in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.services = {}
        self.environment = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "FLEETLEARN_TRAINING__EPOCHS": "1",
        }

    def type(self, text):
        done = subprocess.run(
            ["/bin/sh", "-c", text], cwd=self.folder, env=self.environment, capture_output=True,
            text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    def start(self, text):
        log = (self.folder / f"service-{len(self.services)}.log").open("wb")
        self.services[text] = subprocess.Popen(
            text.split(), cwd=self.folder, env=self.environment, stdout=log, stderr=log
        )

    def until(self, what, done):
        end = time.monotonic() + PATIENCE_S
        while not done():
            logs = [file.read_text()[-1500:] for file in sorted(self.folder.glob("service-*.log"))]
            assert time.monotonic() < end, f"{what}: did not happen\n" + "\n".join(logs)
            time.sleep(0.2)

    def answers(self, text):
        run = subprocess.run(
            ["/bin/sh", "-c", text], cwd=self.folder, env=self.environment, capture_output=True,
            text=True,
        )  # fmt: skip
        return run.stdout if run.returncode == 0 else ""

    def close(self):
        for process in self.services.values():
            process.terminate()
        for process in self.services.values():
            process.wait(240)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Return the reader after the tutorial, its services still running."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "datasets").mkdir()
    shutil.copy(ROOT / "datasets" / "robot_camera.py", folder / "datasets")
    real_bags(folder)
    reader = Reader(folder)
    try:
        for command in typed_commands(TUTORIAL):
            follow(reader, command.text)
        yield reader
    finally:
        reader.close()


def follow(reader, text):
    """Type a command of the tutorial; wait for what its text promises before the next one."""
    if not text.startswith(SERVICES):
        reader.type(text)
        return
    reader.start(text)
    if text.startswith("cloud-server"):
        reader.until("the server answers", lambda: reader.answers("cloud-server status fleet"))
    elif "r2" in text:
        online = '"online": true'
        look = "cloud-server status fleet --json"
        reader.until("both online", lambda: reader.answers(look).count(online) == 2)


def real_bags(folder):
    """Write monday.mcap and tuesday/: real robot frames, with boxes; and a table of texts."""
    kinds = ("circle", "square")  # of the tutorial's fleet
    rows = [f"door number {n} is {('shut', 'open')[n % 2]},{kinds[n % 2]}\n" for n in range(60)]
    (folder / "tickets.csv").write_text("text,label\n" + "".join(rows))
    bags = _module(ROOT / "tests" / "edge_agent" / "conftest.py").BagWriter()
    frames = _module(ROOT / "tests" / "edge_agent" / "data" / "test_robot_frames.py")
    for name in ("monday", "tuesday"):
        (folder / f"made-{name}").mkdir()
        bag, _, _ = frames.labels_in_a_topic(
            bags, list(frames.real_frames()), folder / f"made-{name}"
        )
        shutil.move(bag, folder / name)
    (mcap,) = (folder / "monday").glob("*.mcap")
    shutil.copy(mcap, folder / "monday.mcap")
    shutil.copytree(ROOT / "tests" / "data" / "robot_frames" / "images", folder / "photos")


def _module(file):
    spec = importlib.util.spec_from_file_location(f"docs_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def covered(text):
    return any(text.startswith(begin) for begin in COVERED)


OTHERS = [
    command
    for page in PAGES
    if page != TUTORIAL
    for command in typed_commands(page)
    if not covered(command.text) and not command.text.startswith(SERVICES)
]


@pytest.mark.slow
@pytest.mark.tensorflow
def test_the_tutorial_leads_from_a_bag_to_predictions(reader):
    assert (reader.folder / "matrix.png").stat().st_size > 1000
    assert len(list((reader.folder / "out").iterdir())) == 120
    assert "stable" in reader.type("cloud-server models list fleet")
    for process in reader.services.values():
        assert process.poll() is None


@pytest.mark.slow
@pytest.mark.tensorflow
@pytest.mark.parametrize("command", OTHERS, ids=lambda one: f"{one.page}:{one.line}")
def test_a_command_of_the_pages_does_what_it_says(reader, command):
    text = command.text
    for begin, out in OUTPUTS.items():
        if text.startswith(begin):
            text = text.replace("--out DIR", f"--out {out}")
    for name, mine in NAMES.items():
        text = re.sub(rf"(?<![\w/.-]){re.escape(name)}(?![\w])", mine, text)
    text += next((more for begin, more in SHORTER.items() if text.startswith(begin)), "")
    if "--key" in text:
        text = re.sub(r"--key ('[^']*'|robot\.pub)", f"--key '{_new_key(reader)}'", text)
        text = text.replace(" r1 ", f" robot-{command.page.split('.')[0]} ")
        reader.named = f"robot-{command.page.split('.')[0]}"
    elif re.search(r"robots (suspend|approve|label|revoke|forget)", text):
        text = text.replace(" r1", f" {reader.named}")
    if "--run RUN" in text:
        runs = reader.type("cloud-server runs list fleet")
        text = text.replace("RUN", re.search(r"\d{8}-\d{6}", runs)[0])
    if "enroll" in text:
        text = text.replace("--dir robot", f"--dir robot-{command.line}")
    reader.type(text)


def _new_key(reader):
    number = getattr(reader, "keys", 0)
    reader.keys = number + 1
    reader.type(f"edge-agent enroll fleet/kit --dir key-{number} --no-train")
    return (reader.folder / f"key-{number}" / "robot.pub").read_text().strip()


@pytest.mark.parametrize("begin", COVERED)
def test_what_is_run_elsewhere_is_on_a_page_and_its_test_names_it(begin):
    file, word = COVERED[begin]
    assert any(c.text.startswith(begin) for page in PAGES for c in typed_commands(page)), begin
    assert word in (ROOT / file).read_text(), f"{file} does not run {begin}"


def test_paths_in_the_readme_exist():
    files = {str(f.relative_to(ROOT)) for f in ROOT.rglob("*.py") if ".venv" not in f.parts[0:9]}
    named = set(re.findall(r"`([a-z_0-9/]+\.py)`", (ROOT / "README.md").read_text()))
    assert named
    assert not {n for n in named if not any(f == n or f.endswith(f"/{n}") for f in files)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_the_pages_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]
