import json

import pytest
from typer.testing import CliRunner

from cloud_server.cli import app
from cloud_server.models.release_log import ReleaseLog
from cloud_server.runs.conditions import note
from cloud_server.runs.run_store import Run, RunStore
from cloud_server.state.round_record import RobotRecord, RoundRecord
from cloud_server.state.settings import ServerSettings
from fleet_model.errors import SettingsError
from fleet_model.protocol.outcome import ACCEPTED


def typed(*command):
    return CliRunner().invoke(app, ["runs", "compare", *map(str, command)])


@pytest.fixture
def two_runs(server_dir):
    """Runs a (accuracy .2, .5, then .8) and b (.8, then .9); b takes fewer epochs."""
    store, version = RunStore(server_dir.runs), 0
    for run, values, last, epochs in (("a", (0.2, 0.5), 0.8, 5), ("b", (0.8,), 0.9, 3)):
        made = Run(id=run, rounds=2, started_at=1.0, state="finished", rounds_closed=len(values))
        store.save(made)
        settings = ServerSettings.model_validate({"training": {"epochs": epochs}})
        note(store.directory(run), 1, settings, "ab" * 32)
        for number, value in enumerate(values, start=1):
            version += 1
            robot = RobotRecord(name="r1", site="hall", outcome=ACCEPTED, update_bytes=250_000)
            record = RoundRecord(
                run=run, round=number, version=version, seconds=4.0, robots=(robot,),
                metrics={"accuracy_before": value, "loss_before": 1 - value},
            )  # fmt: skip
            server_dir.append_history(record.as_json())
        after = {"accuracy": last, "loss": 1 - last}
        ReleaseLog(server_dir.releases).add(version, "published", f"run {run}", after=after)
    return server_dir


def test_runs_are_compared_by_what_all_have_reached(two_runs, tmp_path):
    told = typed(two_runs.root, "a", "b", "--plot", tmp_path / "runs.png")

    assert told.exit_code == 0, told.output
    assert "until accuracy 0.8, which all have reached:" in told.stdout
    assert "  a: 2 rounds, 0.5 MB, 8.0 s" in told.stdout
    assert "  b: 0 rounds, 0 MB, 0.0 s" in told.stdout
    assert "training.epochs" in told.stdout
    assert (tmp_path / "runs.png").stat().st_size > 10_000


def test_with_json_and_another_measure(two_runs):
    told = json.loads(typed(two_runs.root, "a", "b", "--measure", "loss", "--json").stdout)

    assert (told["measure"], told["better"]) == ("loss", "lower")
    assert told["target"] == pytest.approx(0.2)
    assert told["differences"] == {"training.epochs": ["5", "3"]}


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        (("a",), "name 2 to 5 different runs, as `cloud-server runs list"),
        (("a", "a"), "name 2 to 5 different runs"),
        (("a", "c"), "there is no run c; `cloud-server runs list"),
        (("a", "../a"), "there is no run ../a"),
        (("a", "m"), "run m only measures a model"),
        (("a", "n"), "run n has closed no round"),
    ],
)
def test_what_cannot_be_compared_is_told(two_runs, runs, words):
    store = RunStore(two_runs.runs)
    store.save(Run(id="m", kind="evaluate", rounds=1, started_at=1.0, state="finished"))
    store.save(Run(id="n", rounds=1, started_at=1.0, state="failed"))

    told = typed(two_runs.root, *runs)

    assert isinstance(told.exception, SettingsError)
    assert words in str(told.exception)
