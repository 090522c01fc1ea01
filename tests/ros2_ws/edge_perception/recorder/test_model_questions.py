"""A real model is asked which frames it is unsure of."""

import json
import shutil
import time
from pathlib import Path

import pytest
from bag_writer import encode
from edge_perception.recorder.model_questions import ModelQuestions, Questions
from edge_perception.recorder.uncertainty import disagree, entropy, margin
from recorded import TYPES, frame

from edge_agent.data.frames.message import frame_of
from edge_agent.data.storage import Topic
from fleet_model.durable import point_durably
from fleet_model.types import Prediction

pytestmark = pytest.mark.base
BUNDLE = Path(__file__).parents[3] / "data/tiny_bundle"


def ranked(*scores):
    return [Prediction(label="abcd"[i], score=s) for i, s in enumerate(scores)]


def test_the_margin_is_the_lead_of_the_best_class():
    assert margin(ranked(0.1, 0.7, 0.2)) == pytest.approx(0.5)
    assert margin(ranked(0.5, 0.5)) == 0


def test_the_entropy_is_0_for_a_certain_model_and_1_for_one_that_guesses():
    assert entropy(ranked(1.0, 0.0, 0.0)) == 0
    assert entropy(ranked(0.25, 0.25, 0.25, 0.25)) == pytest.approx(1)
    assert entropy(ranked(0.5, 0.5, 0.0, 0.0)) == pytest.approx(0.5)


def test_models_disagree_where_their_best_classes_differ():
    assert not disagree(ranked(0.6, 0.4), ranked(0.9, 0.1))
    assert disagree(ranked(0.6, 0.4), ranked(0.4, 0.6))


@pytest.fixture
def asking(tmp_path):
    """Return asking(...): the questions on a link to the tiny bundle, and what they want kept."""
    link, opened = tmp_path / "current", []
    point_durably(link, str(BUNDLE))

    def ask(**questions):
        wanted = []
        asked = Questions(**{"current": link, "rate_hz": 1000, **questions})
        opened.append(ModelQuestions(asked, parsed, lambda m, why: wanted.append((m, why))))
        return opened[-1], wanted

    yield ask
    for questions in opened:
        questions.close()


def parsed(message):
    topic = Topic(message.topic, TYPES[message.topic].replace("/msg/", "/"), "cdr", "", 0)
    return frame_of(message.data, topic, "ros", message.arrived_ns)


def answered(questions, message, count=1):
    before = questions.counts.total()
    questions.offer(message)
    end = time.monotonic() + 240
    while questions.counts.total() < before + count:
        assert time.monotonic() < end, questions.error
        time.sleep(0.01)


def test_a_frame_is_wanted_where_the_model_leads_by_less_than_the_margin(asking):
    (unsure, few), (all_of_them, every) = asking(margin_below=1e-9), asking(margin_below=1.0)
    picture = frame(0, encode(90))
    answered(unsure, picture)
    answered(all_of_them, picture)
    assert few == []
    assert every == [(picture, "by margin")]


def test_a_frame_is_wanted_where_the_entropy_is_above_the_limit(asking):
    (certain, every), (guessing, few) = (
        asking(entropy_above=0.0001),
        asking(entropy_above=0.9999999),
    )
    picture = frame(0, encode(90))
    answered(certain, picture)
    answered(guessing, picture)
    assert every == [(picture, "by entropy")]
    assert few == []


def test_a_frame_is_wanted_where_the_next_version_says_something_else(asking, tmp_path):
    shutil.copytree(BUNDLE, tmp_path / "same")
    shutil.copytree(BUNDLE, tmp_path / "other")
    manifest = json.loads((tmp_path / "other/manifest.json").read_text())
    manifest["workload"]["config"]["labels"].reverse()
    (tmp_path / "other/manifest.json").write_text(json.dumps(manifest))
    (same, few), (other, every) = asking(next=tmp_path / "same"), asking(next=tmp_path / "other")
    picture = frame(0, encode(90))
    answered(same, picture)
    answered(other, picture)
    assert few == []
    assert every == [(picture, "by disagreement")]


def test_a_damaged_frame_is_counted(asking):
    questions, wanted = asking(margin_below=1.0)
    answered(questions, frame(0, encode(90)[:100]))
    assert wanted == []
    assert questions.counts == {"unreadable: cut jpeg": 1}


def test_a_model_that_comes_later_is_waited_for(asking, tmp_path):
    questions, wanted = asking(current=tmp_path / "later", margin_below=1.0)
    answered(questions, frame(0))
    assert questions.error
    point_durably(tmp_path / "later", str(BUNDLE))
    picture = frame(1000, encode(90))
    answered(questions, picture)
    assert wanted == [(picture, "by margin")]
    assert questions.counts == {"without a model": 1, "asked": 1}
    assert questions.error == ""
