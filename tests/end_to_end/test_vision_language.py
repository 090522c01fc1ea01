"""Two desks collect posts, train one adapter of a model that sees on them, and one answers."""

import json
import zipfile

import numpy as np
import pytest
from tiny_vision_language import (
    SIZE,
    TOKENS,
    write_posts,
    write_records,
    write_vision_language_model,
)

from cloud_server.state.checkpoints import Checkpoints
from fleet_model.adapters.spec import RESIDUAL

pytestmark = [pytest.mark.slow, pytest.mark.torch]
DESKS = {"desk-1": "board", "desk-2": "field"}  # name: source
BASE = "base_model.safetensors"

SECRETS = ("xanadu", "4915112345678", "lovelace", "what #covert")


def plant(file, secrets):
    """Add a post with each of these words, by an author of their own."""
    export = json.loads(file.read_text())
    export["messages"] += [{"text": f"say {one}", "from_id": "hopper"} for one in secrets]
    file.write_text(json.dumps(export))


@pytest.fixture(scope="module")
def story(fleet):
    fleet.everywhere = {**fleet.without_trials, "EDGE_AGENT_TRAINING__PROFILE": "true"}
    fleet.environment = {
        "FLEETLEARN_TRAINING__EPOCHS": "4",
        "FLEETLEARN_TRAINING__LEARNING_RATE": "0.01",
        "FLEETLEARN_ROUNDS__DEADLINE_S": "1200",  # a busy machine takes a minute to import torch
        "FLEETLEARN_AGGREGATION__RULE": "fedex_lora",
    }
    base = write_vision_language_model(fleet.root / "llava")
    fleet.type(
        "cloud-server", "init", fleet.server, "--workload", "vision-language", "--checkpoint", base,
        "--trainable", "lora", "--rank", "2", "--set", f"image_size={SIZE}", "--set",
        "max_length=24", "--set", "max_new_tokens=6", "--port", fleet.port,
    )  # fmt: skip
    fleet.start_server()
    for number, (name, source) in enumerate(DESKS.items()):
        export = write_posts(fleet.root / "exports" / name, times=8 + number)
        records = fleet.root / "records" / name
        (export / "photos" / "red-1.png").write_bytes(b"no picture")
        plant(export / "result.json", SECRETS)
        fleet.type("edge-agent", "collect", f"{source}={export}", "--out", records, exit_code=13)
        table = records / "records.jsonl"
        first = records / json.loads(table.read_text().splitlines()[0])["image"]
        first.write_bytes(b"no picture any more")
        fleet.add_robot(name, "--examples", table, site=source)
    fleet.wait("all desks", lambda: fleet.online() == set(DESKS))
    run = fleet.train(rounds=1)
    fleet.wait("version 1", lambda: all(fleet.status(n)["active_version"] == 1 for n in DESKS))
    return run


def test_a_round_closes_and_a_broken_picture_costs_its_row_alone(story):
    assert (story["state"], story["published_version"]) == ("finished", 1)
    (record,) = story["closed"]
    for robot in record["robots"]:
        assert robot["outcome"] == "accepted"
        assert robot["metrics"]["loss_after"] < robot["metrics"]["loss_before"]
        assert robot["metrics"]["unreadable"] == 1


def test_adapters_of_the_language_model_alone_go_up_and_what_they_miss_is_added(story, fleet):
    moved = Checkpoints(fleet.server / "checkpoints").latest().weights
    assert all(name.startswith("model/language_model/layers/") for name in moved)
    assert all(np.abs(moved[name]).max() > 0 for name in moved if name.endswith(".lora_b"))
    added = [name for name in moved if name.endswith(RESIDUAL)]
    assert len(added) == 4, "fedex_lora: the mean of products is not the product of means"
    assert all(np.abs(moved[name]).max() > 0 for name in added)


def test_a_picture_passes_the_tower_once_and_the_base_comes_once(story, fleet):
    state = fleet.root / "robots" / "desk-1" / "state" / "models"
    features = next(state.glob("trainers/*/features/*.rows"))
    assert features.stat().st_size > 8 * TOKENS * 12 * 4
    assert len({file.stat().st_ino for file in state.glob(f"versions/*/{BASE}")}) == 1


def test_predict_answers_about_pictures_and_counts_those_that_are_broken(story, fleet):
    config = fleet.root / "robots" / "desk-1" / "agent.toml"
    table = write_records(fleet.root / "tables" / "new", times=2)
    (table.parent / "images" / "red-0.png").write_bytes(b"no picture")
    done = fleet.type("edge-agent", "predict", table, "--config", config, "--json", exit_code=13)
    answer = json.loads(done.stdout)
    assert set(answer["summary"]["measures"]) == {"loss", "perplexity", "exact_match"}
    rows = answer["predictions"]
    assert [row["truth"] for row in rows if row["truth"].count(" ") == 1] == [
        " blue", " blue", " green", " green", " red",
    ]  # fmt: skip
    assert any(row["text"] for row in rows)
    assert "with a picture that cannot be read" in done.stderr


def test_the_merged_model_is_what_transformers_loads(story, fleet):
    from transformers import LlavaForConditionalGeneration

    file = fleet.root / "merged.zip"
    fleet.type(
        "cloud-server", "models", "export", fleet.server, "--format", "merged", "--out", file
    )
    with zipfile.ZipFile(file) as archive:
        archive.extractall(fleet.root / "merged")
    theirs = LlavaForConditionalGeneration.from_pretrained(fleet.root / "merged").state_dict()
    start = LlavaForConditionalGeneration.from_pretrained(fleet.root / "llava").state_dict()
    changed = {name for name in start if (start[name] != theirs[name]).any()}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "v_proj"}
    assert all("language_model" in name for name in changed)
    assert len(changed) == 4


def test_profiles_are_told_fused_and_shown_and_hold_no_record(story, fleet):
    def ask(*command):
        return json.loads(fleet.type("cloud-server", "profiles", *command).stdout)

    run = ask("ask", fleet.server, "--json")
    assert [one["outcome"] for one in run["measured"]["robots"]] == ["accepted"] * 2
    shown = ask("show", fleet.server, "--json")
    assert shown["version"] == 1
    assert {name: one["robots"] for name, one in shown["sources"].items()} == {
        source: [name] for name, source in DESKS.items()
    }
    assert shown["sources"]["board"]["records"] == 25  # 24 posts, 2 pictures less, 4 planted
    assert shown["general"]["terms"] == {"what": 45}
    alike = ask("compare", fleet.server, "--json")["similarity"]["board"]["field"]
    assert 0.5 < alike < 1, "the same words about other pictures"
    file = fleet.root / "profiles.json"
    fleet.type("cloud-server", "profiles", "export", fleet.server, "--out", file)
    assert len(json.loads(file.read_text())["general"]["mean"]) == 16
    everything = [one.read_bytes() for one in fleet.server.rglob("*") if one.is_file()]
    assert any(b"board" in content for content in everything)
    for secret in (*SECRETS, "covert", "hopper", "user3", "photos/", "no picture any more"):
        wide = np.frombuffer(secret.encode(), np.uint8).astype(np.float16).tobytes()
        assert not any(secret.encode() in c or wide in c for c in everything), secret
