"""`edge-agent doctor` against a real server and real examples."""

import json

import pytest
from typer.testing import CliRunner

from edge_agent.cli import app
from edge_agent.cli.doctor import examine, labels_of_kit, learns_answers
from edge_agent.examples.look import look_at_examples
from edge_agent.models.deploy import Models
from edge_agent.robot.settings import AgentSettings, ExampleSettings, ServerLink, load_settings
from fleet_model.command_line.app import Finding
from fleet_model.workloads.object_detector import ObjectDetector


def findings(config, labels=()):
    return {one.subject: one for one in examine(load_settings(config), labels)}


@pytest.fixture
def labelled(image_folder):
    return image_folder("labelled", {"circle": 60, "square": 60, "star": 60})


def test_a_robot_that_can_train_is_found_good(shared_server, tmp_path, labelled):
    from cloud_server.state.model_store import DirectoryStore

    config = shared_server.admit(tmp_path / "r1", "well", train=True, examples=(labelled,))
    store = DirectoryStore(shared_server.server_dir.store)
    Models(tmp_path / "r1" / "state" / "models").install(store, store.latest("stable"), "fp32")

    found = findings(config)

    assert {one.state for one in found.values()} == {"ok"}
    assert found["server"].text.endswith("knows this robot as well, site hall")
    assert found["model"].text == "version 1"
    assert found["examples"].text.startswith("can train: 144 to learn from, 36 held out; 60 circle")


def test_what_is_wrong_is_told_with_exit_code_1(shared_server, tmp_path, image_folder):
    folder = image_folder("signs", {"Circle": 9})
    config = shared_server.admit(tmp_path / "r2", "ill", train=True, examples=(folder,))
    kit = shared_server.server_dir.kit
    (kit / "kit.toml").write_text((kit / "kit.toml").read_text() + 'labels = ["circle", "star"]\n')
    assert labels_of_kit(kit) == (["circle", "star"], False)

    done = CliRunner().invoke(app, ["doctor", "-c", str(config), "--kit", str(kit)])

    assert done.exit_code == 1
    assert "warn model: none is installed yet\n     next: start the agent\n" in done.stdout
    assert "9 labelled 'Circle', which is not learned (did you mean 'circle'?)" in done.stdout
    assert "fail examples: cannot train: no example has a label of the fleet" in done.stdout
    answer = CliRunner().invoke(app, ["doctor", "-c", str(config), "--json"]).stdout
    assert {one["subject"] for one in json.loads(answer)["findings"]} == {
        "server", "model", "examples",
    }  # fmt: skip


def test_a_server_that_does_not_answer_or_does_not_know_the_key_fails(shared_server, tmp_path):
    config = shared_server.admit(tmp_path / "r3", "off", train=False)
    text = config.read_text()
    address = load_settings(config).server.address
    config.write_text(text.replace(address, "127.0.0.1:9"))
    assert "no answer from 127.0.0.1:9" in findings(config)["server"].text
    (tmp_path / "r3" / "robot.key").unlink()
    assert findings(config)["key"].state == "fail"
    assert findings(config)["training"].text.startswith("off: ")


def test_examples_are_looked_at_for_boxes_where_the_model_answers_them(
    tmp_path, picture_bytes, monkeypatch
):
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(picture_bytes(index))
    (tmp_path / "labels.csv").write_text("file,label,x0,y0,x1,y1\n0.jpg,,,,,\n1.jpg,cup,1,2,9,8\n")
    settings = AgentSettings(
        server=ServerLink(address="localhost:1"),
        state=tmp_path / "state",
        examples=ExampleSettings(paths=(tmp_path,)),
    )
    workload = ObjectDetector(["cup"])
    monkeypatch.setattr("edge_agent.cli.doctor._server", lambda _: iter(()))
    monkeypatch.setattr(
        "edge_agent.cli.doctor._model", lambda _: (Finding("model", "ok", "version 3"), workload)
    )
    texts = [one.text for one in examine(settings) if one.subject == "examples"]
    assert texts[0].endswith(
        ": 2 examples; left out: 1 in which nobody has said what is there; 1 show nothing"
    )
    assert texts[1] == "can train: 1 to learn from, 1 held out; 1 cup"


def test_a_kit_says_whether_answers_are_learned(tmp_path):
    (tmp_path / "kit.toml").write_text("answers = true\n")
    assert learns_answers(tmp_path)
    (tmp_path / "kit.toml").write_text('labels = ["cup"]\n')
    assert not learns_answers(tmp_path)


def test_instructions_are_looked_at_where_answers_are_learned(tmp_path):
    table = tmp_path / "t.jsonl"
    table.write_text("".join(f'{{"prompt": "{n} is", "completion": "x"}}\n' for n in range(30)))
    (tmp_path / "agent.toml").write_text(
        f'[server]\naddress = "localhost:1"\n[examples]\nsource = "texts"\npaths = ["{table}"]\n'
    )
    settings = load_settings(tmp_path / "agent.toml")
    found = look_at_examples(settings, (), answers=True)
    assert "prompt in 'prompt' (by its name), answers in 'completion'" in found[0].text
    assert found[1].text.startswith("can train: ")
    table.write_text('{"prompt": "1 is", "completion": ""}\n')
    assert look_at_examples(settings, (), answers=True)[-1].state == "fail"


def test_a_kit_of_an_earlier_version_names_no_labels(tmp_path):
    (tmp_path / "kit.toml").write_text('address = "localhost:8443"\n')
    assert labels_of_kit(tmp_path) == ([], False)


def test_a_kit_says_whether_boxes_have_its_labels(tmp_path):
    (tmp_path / "kit.toml").write_text('labels = ["cup"]\nboxes = true\n')
    assert labels_of_kit(tmp_path) == (["cup"], True)
