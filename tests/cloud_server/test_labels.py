"""Labels of a trained fleet, with real exports of the tiny bundle's network in this process."""

import importlib.util
import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from cloud_server import labels as labels_module
from cloud_server.labels import Labels, labels_of, relabel
from cloud_server.models import publish as publish_module
from cloud_server.models.export import ExportResult, InitJob
from cloud_server.models.older_agents import OlderAgents
from cloud_server.models.own_weights import Rows
from cloud_server.models.release_log import ReleaseLog
from cloud_server.runs.run_rounds import _with_its_labels, request_of
from cloud_server.runs.run_store import Run, RunStore
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.kit import write_kit
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import RoundSettings, load_settings
from fleet_model.bundle import (
    MANIFEST,
    TRAINER,
    entry_of,
    parse_manifest,
    parse_trainer,
    to_json,
)
from fleet_model.errors import SettingsError
from fleet_model.types import Checkpoint
from fleet_model.workload import rebuild

OLD = ("circle", "square", "star")
DATA = Path(__file__).parents[1] / "data"
MAKE_TINY, TINY = DATA / "make_tiny_bundle.py", DATA / "tiny_bundle"
real = pytest.mark.tensorflow


class KilledError(Exception):
    """In the place of SIGKILL."""


def run_export(job, progress=lambda line: None, stop=lambda: False):
    """Export in this process, where the network of 8 features is."""
    from cloud_server.models.export.bundle_directory import write_bundle_directory
    from cloud_server.models.export.model_directory import write_model_directory

    write = write_model_directory if isinstance(job, InitJob) else write_bundle_directory
    return write(job, progress)


def copy_tiny(job, progress=lambda line: None, stop=lambda: False):
    """Be done at once: nothing that was exported matters but the labels."""
    shutil.copytree(TINY, job.directory, dirs_exist_ok=True)
    trainer = job.directory / TRAINER
    if isinstance(job, InitJob):
        task = rebuild(job.workload).task.model_copy(update={"former": job.former})
        spec = parse_trainer((TINY / TRAINER).read_bytes())
        changed = spec.model_copy(update={"workload": job.workload, "task": task})
        trainer.write_bytes(to_json(changed))
    else:
        shutil.copy(job.model / TRAINER, trainer)
        manifest = parse_manifest((TINY / MANIFEST).read_bytes())
        update = {"version": job.version, "trainer": entry_of(trainer.read_bytes())}
        (job.directory / MANIFEST).write_bytes(to_json(manifest.model_copy(update=update)))
    return ExportResult(metrics={})


@contextmanager
def exporting(by):
    with pytest.MonkeyPatch.context() as patch:
        for module in (labels_module, publish_module):
            patch.setattr(module, "run_export", by)
        yield patch


def change(server_dir, labels, lines=None):
    settings = load_settings(server_dir.settings, {}).publish
    change = labels if callable(labels) else lambda _: labels
    return relabel(server_dir, settings, change, (lines if lines is not None else []).append)


class Fleet(NamedTuple):
    """A directory of which version 3 has two more labels, and version 4 another name for one."""

    server_dir: ServerDirectory
    lines: list


@pytest.fixture(scope="module")
def fleet(new_server_dir, tmp_path_factory):
    pytest.importorskip("tensorflow")
    from fleet_model.workloads.image_classifier.networks import NETWORKS

    spec = importlib.util.spec_from_file_location("make_tiny_bundle", MAKE_TINY)
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    server_dir, lines = new_server_dir(tmp_path_factory.mktemp("labels") / "server"), []
    checkpoints = Checkpoints(server_dir.checkpoints)
    state = {"rule/momentum": np.ones((8, 3), np.float32)}
    weights = checkpoints.latest().weights
    checkpoints.save(Checkpoint(version=2, weights=weights, server_state=state, seed=7))
    with exporting(run_export) as patch:
        patch.setitem(NETWORKS, "mobilenet-v2-035", tiny.tiny_network())
        assert change(server_dir, labels_of(server_dir).with_added(["moon", "sun"]), lines) == 3
        third = checkpoints.latest()
        state = {"rule/momentum": np.ones((8, 5), np.float32)}
        checkpoints.save(replace(third, version=4, server_state=state))
        assert change(server_dir, labels_of(server_dir).renamed("square", "box")) == 5
    return Fleet(server_dir, lines)


def logits(server_dir, version):
    """Return what the published engine of a version answers to a few pictures: (8, labels)."""
    from fleet_model.engine import StagedModel

    store = DirectoryStore(server_dir.store)
    manifest = {m.version: m for m in store.versions()}[version]
    files = [store.object(manifest.files[n].sha256) for n in manifest.engines["fp32"]]
    task = manifest.described_task
    model = StagedModel(files, task.inputs, task.outputs)
    pictures = np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 3)).astype(np.float32)
    return np.stack([model({"image": picture})["logits"] for picture in pictures])


def test_labels_are_added_behind_and_none_twice():
    assert Labels(("a", "b")).with_added(["c", "d"]).names == ("a", "b", "c", "d")
    with pytest.raises(SettingsError, match="label 'b' is there already: a, b"):
        Labels(("a", "b")).with_added(["b"])


def test_a_former_name_leads_to_the_last_one_over_every_renaming():
    labels = Labels(("brick", "grass")).renamed("brick", "stone").renamed("stone", "masonry")
    assert labels == Labels(("masonry", "grass"), {"brick": "masonry", "stone": "masonry"})
    assert labels.renamed("masonry", "brick") == Labels(
        ("brick", "grass"), {"stone": "brick", "masonry": "brick"}
    )


def test_a_former_name_that_is_learned_again_means_itself():
    labels = Labels(("brick", "grass")).renamed("brick", "stone").with_added(["brick"])
    assert labels == Labels(("stone", "grass", "brick"), {})


@pytest.mark.parametrize(
    ("old", "new", "words"), [("c", "d", "no label 'c'"), ("a", "b", "'b' is there already")]
)
def test_a_name_that_is_not_there_or_taken_cannot_be_renamed(old, new, words):
    with pytest.raises(SettingsError, match=words):
        Labels(("a", "b")).renamed(old, new)


@real
def test_old_rows_keep_their_bits_and_the_version_goes_on(fleet):
    checkpoints = Checkpoints(fleet.server_dir.checkpoints)
    before, after = checkpoints.load(2), checkpoints.load(3)
    for name, axis in (("head/kernel", 1), ("head/bias", 0)):
        old, new = before.weights[name], np.moveaxis(after.weights[name], axis, -1)
        assert new[..., :3].tobytes() == old.tobytes()
        mean = old.mean(-1, dtype=np.float64).astype(np.float32)
        np.testing.assert_array_equal(new[..., 3], mean)
        np.testing.assert_array_equal(new[..., 4], mean)
    assert after.seed == 7
    told = "note: taken by name: circle, square, star; new, to begin with the mean of the others: "
    assert f"{told}moon, sun" in fleet.lines


@real
def test_the_old_checkpoint_and_its_trainer_stay_as_they_are(fleet):
    server_dir = fleet.server_dir
    assert Checkpoints(server_dir.checkpoints).load(2).weights["head/kernel"].shape == (8, 3)
    folders = [server_dir.model_of(version).name for version in (1, 2, 3, 4, 5)]
    assert folders == ["model", "model", "model-000003", "model-000003", "model-000005"]


@real
def test_what_is_published_has_the_labels_and_the_same_frozen_files(fleet):
    store = DirectoryStore(fleet.server_dir.store)
    first, added, renamed = store.versions()
    assert store.channels() == {"stable": 5}
    assert (first.labels, added.labels) == (OLD, (*OLD, "moon", "sun"))
    assert renamed.labels == ("circle", "box", "star", "moon", "sun")
    same = {name for name in first.files if first.files[name] == renamed.files[name]}
    assert same == {"trunk.tflite", "trunk_int8.tflite"}


@real
def test_engines_answer_the_old_labels_as_before(fleet):
    np.testing.assert_allclose(
        logits(fleet.server_dir, 3)[:, :3], logits(fleet.server_dir, 1), atol=1e-5
    )


@real
@pytest.mark.parametrize("version", [2, 3, 5])
def test_a_request_names_the_trainer_of_its_checkpoint_and_the_store_has_it(fleet, version):
    server_dir = fleet.server_dir
    checkpoint = Checkpoints(server_dir.checkpoints).load(version)
    request = request_of(server_dir, load_settings(server_dir.settings), "run", 1, checkpoint)
    content = DirectoryStore(server_dir.store).object(request.trainer).read_bytes()
    classes = parse_trainer(content).workload.config["labels"]
    assert len(classes) == checkpoint.weights["head/bias"].size
    own = request.first_trainer  # as agents of protocol 1 understand it
    assert own is None or OlderAgents(server_dir.model).object(own[0]) is not None


@real
def test_a_renamed_label_keeps_all_bits_and_robots_are_told_both_names(fleet):
    checkpoints = Checkpoints(fleet.server_dir.checkpoints)
    before, after = checkpoints.load(4), checkpoints.load(5)
    for ours, theirs in (
        (after.weights, before.weights),
        (after.server_state, before.server_state),
    ):
        assert {n: t.tobytes() for n, t in ours.items()} == {
            n: t.tobytes() for n, t in theirs.items()
        }
    manifest = DirectoryStore(fleet.server_dir.store).versions()[-1]
    spec = parse_trainer((fleet.server_dir.model_of(5) / "trainer.json").read_bytes())
    assert manifest.task.former == spec.task.former == {"square": "box"}


@real
def test_the_tensors_of_a_rule_begin_anew_where_their_rows_are_others(fleet):
    assert Checkpoints(fleet.server_dir.checkpoints).load(3).server_state == {}


def test_no_answer_changes_until_robots_have_trained_the_new_label():
    rng = np.random.default_rng(3)
    kernel, bias = rng.normal(size=(8, 4)), rng.normal(size=4)
    rows = Rows((*"abcd", "new"), {"kernel": 1, "bias": 0})
    features = rng.normal(size=(1000, 8))
    before = features @ kernel + bias
    after = features @ rows.placed("kernel", kernel, "abcd") + rows.placed("bias", bias, "abcd")
    assert set(before.argmax(-1)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(after.argmax(-1), before.argmax(-1))


def test_rows_are_matched_by_label_and_what_became_of_them_is_told():
    rows = Rows(("c", "new", "B"), {"bias": 0}, {"b": "B"})
    bias = np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(rows.placed("bias", bias, ("a", "b", "c")), [3, 2.5, 2])
    assert rows.told(("a", "b", "c")) == (
        "taken by name: c, B; new, to begin with the mean of the others: new; left out: a"
    )
    assert rows.told(("c", "new", "b")) == rows.told(()) == ""


def test_killed_before_its_checkpoint_is_there_nothing_has_changed(server_dir):
    def die(*_, **__):
        raise KilledError

    wanted = labels_of(server_dir).with_added(["moon"])
    checkpoints = Checkpoints(server_dir.checkpoints)
    with exporting(copy_tiny) as patch:
        patch.setattr(Checkpoints, "save", die)
        with pytest.raises(KilledError):
            change(server_dir, wanted)
    assert DirectoryStore(server_dir.store).channels() == {"stable": 1}
    assert labels_of(server_dir).names == OLD
    # A round makes version 2 meanwhile; its trainer is the old one, not what was left behind.
    checkpoints.save(Checkpoint(version=2, weights=checkpoints.latest().weights))
    assert server_dir.model_of(2) == server_dir.model
    with exporting(copy_tiny):
        assert change(server_dir, wanted) == 3
    assert sorted(p.name for p in server_dir.home.glob("*model*")) == ["model", "model-000003"]


@pytest.mark.parametrize("step", ["offer", "write_kit"])
@pytest.mark.parametrize(
    ("wanted", "other"),
    [
        (lambda labels: labels.with_added(["moon"]), lambda labels: labels.with_added(["sun"])),
        (lambda labels: labels.renamed("star", "moon"), lambda labels: labels.renamed("star", "x")),
    ],
)
def test_killed_after_its_checkpoint_the_same_command_does_what_was_left(
    server_dir, step, wanted, other
):
    def die(*_, **__):
        raise KilledError

    write_kit(server_dir, load_settings(server_dir.settings, {}))
    with exporting(copy_tiny) as patch:
        patch.setattr(*((DirectoryStore, step) if step == "offer" else (labels_module, step)), die)
        with pytest.raises(KilledError):
            change(server_dir, wanted)
    store, lines = DirectoryStore(server_dir.store), []
    assert store.channels() == {"stable": 1 if step == "offer" else 2}
    made = labels_of(server_dir)
    with exporting(None):  # nothing is exported again
        assert change(server_dir, wanted, lines) == 2
    assert (store.channels(), labels_of(server_dir)) == ({"stable": 2}, made)
    assert f"labels = {json.dumps(made.names)}" in (server_dir.kit / "kit.toml").read_text()
    assert lines == [
        "note: version 2 has these labels already; channel stable and the kit, which a command "
        "that did not end has left, get it now"
    ]
    with pytest.raises(SettingsError):  # done is done
        change(server_dir, wanted)


def test_another_change_after_a_killed_one_comes_on_top_of_it(server_dir):
    def die(*_, **__):
        raise KilledError

    with exporting(copy_tiny) as patch:
        patch.setattr(DirectoryStore, "offer", die)
        with pytest.raises(KilledError):
            change(server_dir, lambda labels: labels.with_added(["moon"]))
    with exporting(copy_tiny):
        assert change(server_dir, lambda labels: labels.with_added(["sun"])) == 3
    assert labels_of(server_dir).names == (*OLD, "moon", "sun")


def test_labels_are_added_to_what_robots_run_not_to_a_checkpoint_that_is_withheld(server_dir):
    checkpoints = Checkpoints(server_dir.checkpoints)
    good = checkpoints.latest().weights
    bad = {name: tensor + 7 for name, tensor in good.items()}
    checkpoints.save(Checkpoint(version=2, weights=bad))
    ReleaseLog(server_dir.releases).add(2, "withheld", "run a")
    with exporting(copy_tiny):
        version = change(server_dir, labels_of(server_dir).with_added(["moon"]))
    assert version == 4
    again = checkpoints.load(3).weights
    assert all((again[name] == good[name]).all() for name in good)


def test_labels_do_not_change_under_a_run(server_dir):
    run = Run(id="20260101-000000", rounds=1, state="publishing", started_at=0)
    RunStore(server_dir.runs).save(run)
    words = rf"run 20260101-000000 goes on \(publishing\).*runs stop {server_dir.root} 20260101"
    with pytest.raises(SettingsError, match=words):
        change(server_dir, Labels((*OLD, "moon")))


def test_updates_from_before_the_change_are_too_old_and_no_offense(server_dir):
    checkpoints = Checkpoints(server_dir.checkpoints)
    weights = checkpoints.latest().weights
    checkpoints.save(Checkpoint(version=5, weights=weights), model="model-000005")
    checkpoints.save(Checkpoint(version=6, weights=weights))  # of a round
    rules = RoundSettings(mode="buffered", max_staleness=20)
    oldest = {v: v - _with_its_labels(rules, checkpoints, v).max_staleness for v in (1, 5, 6)}
    assert oldest == {1: 0, 5: 5, 6: 5}


def test_a_checkpoint_without_other_labels_is_written_as_ever(server_dir):
    """An older release reads it, so that going back stays possible."""
    about = json.loads((server_dir.checkpoints / "000001" / "checkpoint.json").read_text())
    assert set(about) == {"version", "seed", "sha256"}
