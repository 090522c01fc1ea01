"""What agents of protocol 1 are sent; tests/end_to_end/test_old_agent.py asks a real one."""

import json
from pathlib import Path

import pytest

from cloud_server.models.older_agents import (
    MANIFEST_FIELDS,
    TRAINER_FIELDS,
    OlderAgents,
    without_new_fields,
)
from fleet_model.bundle import MANIFEST, TRAINER, entry_of

TINY = Path(__file__).parents[2] / "data" / "tiny_bundle"  # written by a server of protocol 1
KNOWN = {MANIFEST: MANIFEST_FIELDS, TRAINER: TRAINER_FIELDS}


def newer(file, **fields):
    """Return the tiny bundle's file as a newer server writes it, with news at every depth."""
    values = json.loads((TINY / file).read_text())
    for objects in ("files", "inputs", "tensors"):
        for one in values.get(objects, {}).values():
            one["news"] = 1
    values["workload"]["news"] = 1
    values["workload"]["config"]["labels"] = ["cup", "fork"]  # free keys: nothing of it is cut
    values |= {"protocol": 2, "critical": ["files"], "task": {"classes": ["cup"]}, **fields}
    return json.dumps(values).encode()


def old_fields(file):
    values = json.loads((TINY / file).read_text())
    values["workload"]["config"]["labels"] = ["cup", "fork"]
    return values


def test_a_trainer_of_adapters_is_not_sent_to_them():
    """They would look for a layer called head/kernel.lora_a."""
    adapter = {"rank": 2, "alpha": 4, "targets": {"head/kernel": [1280, 4]}}
    content = newer(TRAINER, adapter=adapter, critical=["adapter"])
    assert without_new_fields(content, TRAINER_FIELDS) is None


@pytest.fixture
def model(tmp_path):
    (tmp_path / TRAINER).write_bytes(newer(TRAINER))
    return tmp_path


@pytest.mark.parametrize("file", KNOWN)
def test_a_file_without_news_stays_the_same_bytes(file):
    content = (TINY / file).read_bytes()
    assert without_new_fields(content, KNOWN[file]) is content


@pytest.mark.parametrize("file", KNOWN)
def test_what_is_new_is_cut_at_every_depth(file):
    cut = without_new_fields(newer(file), KNOWN[file])
    assert json.loads(cut) == old_fields(file)


@pytest.mark.parametrize("file", KNOWN)
def test_a_new_field_that_is_critical_cannot_be_cut(file):
    assert without_new_fields(newer(file, critical=["task"]), KNOWN[file]) is None


def test_a_manifest_and_its_trainer_fit_together(model):
    full, older = entry_of(newer(TRAINER)), OlderAgents(model)
    sent = json.loads(older.manifest(newer(MANIFEST, trainer=full.model_dump())))
    own = older.trainer()
    assert own.sha256 != full.sha256
    assert sent == {**old_fields(MANIFEST), "trainer": own.model_dump()}
    content = older.object(own.sha256)
    assert entry_of(content) == own
    assert json.loads(content) == old_fields(TRAINER)


def test_another_object_is_none_of_theirs(model):
    assert OlderAgents(model).object("0" * 64) is None


def test_the_trainer_of_another_model_is_not_exchanged(model):
    sent = json.loads(OlderAgents(model).manifest(newer(MANIFEST)))
    assert sent["trainer"] == old_fields(MANIFEST)["trainer"]


def test_a_manifest_that_they_must_refuse_comes_as_it_is(model):
    content = newer(MANIFEST, critical=["task"])
    assert OlderAgents(model).manifest(content) is content


def test_a_trainer_that_they_cannot_use_has_no_entry(model):
    (model / TRAINER).write_bytes(newer(TRAINER, critical=["task"]))
    older = OlderAgents(model)
    assert older.trainer() is None
    assert json.loads(older.manifest(newer(MANIFEST))) == old_fields(MANIFEST)
