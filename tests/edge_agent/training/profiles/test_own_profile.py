"""A profile says what many records have in common, and of none of them anything."""

import itertools
import json
import random

import numpy as np
import pytest
from tiny_vision_language import COLORS, SIZE, write_picture, write_vision_language_model

from edge_agent.examples.texts.text_store import open_texts
from edge_agent.training.trainer import NoExamplesError
from fleet_model.bundle import WorkloadSpec, parse_trainer
from fleet_model.errors import TrainingError
from fleet_model.profiles.profile import unpack_profile
from fleet_model.types import PROFILE, Checkpoint
from fleet_model.weights import read_weights

pytestmark = pytest.mark.torch
SHORT = ("a", "it", "is", "of", "how", "are", "you", "say", "sky", "one")  # no terms
SECRETS = ("xanadu", "moonbase", "4915112345678", "hunter", "#covert", "lovelace")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from cloud_server.models.adapters import AdapterPlan
    from cloud_server.models.export import InitJob
    from cloud_server.models.export.model_directory import write_model_directory

    root = tmp_path_factory.mktemp("model")
    job = InitJob(
        workload=WorkloadSpec(
            name="vision-language",
            config={"max_length": 50, "max_new_tokens": 5, "image_size": SIZE},
        ),
        trainable="lora",
        batch_size=16,
        directory=root / "model",
        checkpoint=write_vision_language_model(root / "llava"),
        adapter=AdapterPlan(rank=2, alpha=4.0),
    )
    write_model_directory(job, lambda line: None)
    return root / "model"


@pytest.fixture(scope="module")
def trainer(folder):
    from edge_agent.training.trainers.torch import TorchTrainer

    return TorchTrainer(parse_trainer((folder / "trainer.json").read_bytes()), folder)


@pytest.fixture(scope="module")
def start(folder):
    return Checkpoint(version=3, weights=read_weights(folder / "weights.safetensors"))


def counted(number):
    return " ".join(SHORT[int(digit)] for digit in str(number))


def posts(count, source, authors=10, first=0, text="the {color} grass #arms", **more):
    return [
        {"text": f"{text.format(color=list(COLORS)[n % 3])} {counted(n)}", "image": "",
         "source": source, "author": f"user{n % authors}", **more}
        for n in range(first, first + count)
    ]  # fmt: skip


def write(folder, rows):
    folder.mkdir(exist_ok=True)
    write_picture(folder / "shown.png", "green")  # so that the column of pictures is one
    rows = [{"text": "a sky", "image": "shown.png", "source": "one"}, *rows]
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "records.jsonl"


def told(trainer, start, table, sent):
    examples = open_texts([str(table)], (), answers=True, held_out=0.2).examples()
    return trainer.profile(start, examples, sent)


def single(trainer, start, folder, row):
    """Return the embedding of one record, as the trainer makes it."""
    from edge_agent.training.trainer import encoded_rows

    (folder / "single").mkdir(exist_ok=True)
    table = folder / "single.jsonl"
    rows = [row, {"text": "a", "image": "shown.png"}]
    table.write_text("".join(json.dumps(one) + "\n" for one in rows))
    examples = open_texts([str(table)], (), answers=True, held_out=0).examples()
    training, *_ = encoded_rows(trainer._learner, list(examples)[:1])
    weights = start.weights
    (found,) = training.answers(1, lambda f: trainer._learner.model.embeddings(weights, f)).values()
    return found[0]


def test_counts_terms_and_means_are_those_of_the_records(trainer, start, tmp_path):
    rows = [*posts(28, "board"), *posts(14, "board", text="say {color} twice", first=28)]
    rows += posts(23, "field", first=100, topic="pick")
    update = told(trainer, start, write(tmp_path / "a", rows), tmp_path / "sent")
    assert (update.kind, update.base_version, update.weights) == (PROFILE, 3, {})
    found = unpack_profile(update.groups["profile"])
    assert list(found) == ["board", "field"]
    board, field = found["board"], found["field"]
    assert (board.whole.records, field.whole.records, update.num_examples) == (40, 20, 60)
    assert board.terms == {"grass": 25}, "twice is in 14 records, a color in fewer"
    assert (board.labels, field.labels, field.terms) == ({}, {"pick": 20}, {"grass": 20})
    assert board.topics == {}, "14 records would be left"
    assert field.topics["arms"].records == 20
    np.testing.assert_array_equal(field.topics["arms"].mean, field.whole.mean)
    each = [single(trainer, start, tmp_path / "a", row) for row in rows[:42]]
    np.testing.assert_allclose(board.whole.mean, np.mean(each, 0), rtol=1e-4, atol=1e-5)
    assert update.metrics["too_few_records"] == 0, "one record, rounded down"


def test_the_same_records_are_told_again_wherever_they_stand(trainer, start, tmp_path):
    rows = posts(30, "board")
    first = told(trainer, start, write(tmp_path / "a", rows), tmp_path / "sent")
    random.Random(1).shuffle(rows)
    more = [*rows, *posts(12, "board", first=30)]
    again = told(trainer, start, write(tmp_path / "b", more), tmp_path / "sent")
    for name, tensor in first.groups["profile"].items():
        np.testing.assert_allclose(again.groups["profile"][name], tensor, rtol=0, atol=1e-5)
    assert again.metrics["waiting_records"] == 10


def planted(folder):
    """Return records of 12 authors, with what must never be told."""
    rows = [*posts(60, "board", authors=12), *posts(24, "field", authors=12)]
    rows += posts(1, "board", first=60, text="xanadu grass")
    rows += [
        {
            "text": f"moonbase grass {counted(n)}",
            "image": "",
            "source": "board",
            "author": "lovelace",
        }
        for n in range(50)
    ]
    rows += posts(30, "board", first=200, text="call 4915112345678 hunter@two.org grass")
    rows += posts(10, "board", first=300, text="grass #covert")
    rows += posts(19, "secret-source", text="grass")
    unique = folder / "unique-picture.png"
    write_picture(unique, "red", 33, 41)
    rows.append({**posts(1, "board", first=400)[0], "image": unique.name})
    return rows, unique


def leaving(update):
    """Return every byte of a reply, as Flower sends it and as a reader would look at it."""
    from fleet_model.protocol.wire import pack_update

    content = pack_update(update)
    arrays = [a.data for r in content.array_records.values() for a in r.values()]
    names = [name for r in content.array_records.values() for name in r]
    texts = [repr(dict(r)) for r in (*content.config_records.values(),)]
    texts += [repr(dict(r)) for r in content.metric_records.values()]
    about = update.groups["profile"]["about"].astype(np.uint8).tobytes()
    return b"\n".join([*arrays, about, *map(str.encode, [*names, *texts])])


def test_no_planted_secret_leaves(trainer, start, tmp_path):
    (tmp_path / "a").mkdir()
    rows, unique = planted(tmp_path / "a")
    random.Random(2).shuffle(rows)
    update = told(trainer, start, write(tmp_path / "a", rows), tmp_path / "sent")
    sent = leaving(update)
    assert b"grass" in sent, "what is looked at is what is sent"
    for secret in (*SECRETS, "secret-source", unique.name, "user1", "records.jsonl"):
        assert secret.encode() not in sent.lower(), secret
        wide = np.frombuffer(secret.encode(), np.uint8).astype(np.float16).tobytes()
        assert wide not in sent, secret
    picture = unique.read_bytes()
    assert not any(picture[at : at + 16] in sent for at in range(8, len(picture) - 16))
    assert b"4915112345678" not in sent
    assert np.float32(4915112345678).tobytes() not in sent


def test_no_mean_and_no_difference_of_means_is_that_of_one_record(trainer, start, tmp_path):
    (tmp_path / "a").mkdir()
    secret = posts(1, "board", first=200, text="xanadu grass")[0]
    rows = [
        *posts(60, "board", text="the {color} grass #arms #most"),
        *posts(40, "board", first=60, text="the {color} grass #most"),
        secret,
    ]
    update = told(trainer, start, write(tmp_path / "a", rows), tmp_path / "sent")
    (board,) = unpack_profile(update.groups["profile"]).values()
    assert set(board.topics) == {"arms"}, "all but one have the other topic"
    own = single(trainer, start, tmp_path / "a", secret)
    sums = [0 * own, 101 * board.whole.mean, 60 * board.topics["arms"].mean]
    for one, other in itertools.product(sums, repeat=2):
        assert np.abs(one - other - own).max() > 0.05 * np.abs(own).max()


def test_too_few_records_tell_nothing_and_a_copy_is_none(trainer, start, tmp_path):
    with pytest.raises(NoExamplesError, match="no source has 20 records of 5 authors"):
        told(trainer, start, write(tmp_path / "a", posts(19, "board")), tmp_path / "sent")
    table = write(tmp_path / "b", [*posts(19, "board"), *posts(5, "board")])
    with pytest.raises(NoExamplesError, match="no source has 20 records of 5 authors"):
        told(trainer, start, table, tmp_path / "sent")
    table = write(tmp_path / "c", posts(100, "board", authors=1))
    with pytest.raises(NoExamplesError, match="no source has 20 records of 5 authors"):
        told(trainer, start, table, tmp_path / "sent")
    ways = ["Ada", "@ada", "ADA", " ada", "a d a", "", "None", "-", "unknown", "N/A"]
    rows = [{**row, "author": ways[n % 10]} for n, row in enumerate(posts(60, "board"))]
    with pytest.raises(NoExamplesError, match="no source has 20 records of 5 authors"):
        told(trainer, start, write(tmp_path / "d", rows), tmp_path / "sent")
    assert not (tmp_path / "sent" / "profile.json").exists()


def test_nothing_is_told_where_it_is_not_known_what_was(trainer, start, tmp_path):
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "profile.json").write_text("[[1]]")
    table = write(tmp_path / "a", posts(30, "board"))
    with pytest.raises(TrainingError, match="it is not known what was told before"):
        told(trainer, start, table, tmp_path / "sent")
