from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_versions import write_versions

from edge_agent.labeling.advice import Advice, other_bundle
from edge_agent.labeling.views import ROW, feature_row
from edge_agent.models.trials import Probation, TrialFile, Trials, Tried
from fleet_model.durable import point_durably
from fleet_model.engine import Answer, TFLiteEngine
from fleet_model.errors import BundleError
from fleet_model.types import Frame, Prediction

pytestmark = pytest.mark.base


def engine(version, *scores, answer="class"):
    task = SimpleNamespace(answer=answer, classes=("a", "b"))
    found = [Prediction(label=n, score=s) for n, s in zip("ab", scores, strict=False)]
    return SimpleNamespace(
        workload=SimpleNamespace(task=task),
        manifest=SimpleNamespace(version=version),
        answer=lambda frame: Answer({}, found, {"features": np.array([3.0, 4.0])}),
    )


@pytest.fixture
def models(tmp_path):
    return write_versions(tmp_path / "models", 3, 4)


@pytest.fixture
def advice(models):
    engines = {"3": engine(3, 0.5, 0.5), "4": engine(4, 1.0, 0.0)}
    return Advice(models, lambda bundle: engines[bundle.name])


def use(models, version):
    point_durably(models / "current", f"versions/{version}")


def test_without_a_model_every_frame_is_worth_the_same(advice):
    assert not advice.look()
    assert advice.of(None).value == 1.0
    assert advice.of(None).version is None
    assert advice.problem == "no model is installed yet"


def test_the_active_model_is_followed(models, advice):
    use(models, 3)
    assert advice.look()
    assert not advice.look()
    assert advice.versions == [3]
    assert advice.of(None).value == pytest.approx(1.0)
    use(models, 4)
    assert advice.look()
    assert advice.of(None).value == pytest.approx(0.0)
    assert advice.of(None).found[0].label == "a"
    expected = feature_row({"features": np.array([3.0, 4.0])})
    assert advice.of(None).sight.row == pytest.approx(expected)
    assert advice.of(None).sight.scores.tolist() == [1.0, 0.0]


def test_boxes_that_the_workload_does_not_show_are_no_proposals_and_tell_nothing(models):
    def detector(version, *scores):
        one = engine(version, answer="boxes")
        one.workload.sure_score = 0.3
        boxes = [Prediction(label="a", score=s, box=(0, 0, 9, 9)) for s in scores]
        one.answer = lambda frame: Answer({}, boxes)
        return one

    engines = {"4": detector(4, 0.9, 0.3, 0.29, 0.01), "3": detector(3, 0.9, 0.3)}
    advice = Advice(models, lambda bundle: engines[bundle.name])
    use(models, 4)
    TrialFile(models).write(Trials(probation=Probation(name="4", before="3", since_s=0.0)))
    advice.look()
    told = advice.of(None)
    assert [one.score for one in told.found] == [0.9, 0.3]
    assert told.sight is None
    # The models agree, and 1 - |2 * .9 - 1| = .2 and 1 - |2 * .3 - 1| = .6 are .4 on average.
    assert told.value == pytest.approx(0.4)


def test_what_two_models_disagree_on_is_worth_more(models, advice):
    use(models, 4)
    TrialFile(models).write(Trials(probation=Probation(name="4", before="3", since_s=0.0)))
    assert advice.look()
    assert advice.versions == [4, 3]
    assert advice.of(None).value == pytest.approx(0.5)  # they differ by .5, and 4 is certain


def test_the_other_model_is_the_one_that_is_tried_or_the_one_before(models):
    trials = TrialFile(models)
    assert other_bundle(models, "3") is None
    trials.write(Trials(tried=[Tried(name="4", tries=1)]))
    assert other_bundle(models, "3") == models / "versions" / "4"
    assert other_bundle(models, "4") is None
    trials.write(Trials(tried=[Tried(name="4", tries=1, refused=True)]))
    assert other_bundle(models, "3") is None
    trials.write(Trials(probation=Probation(name="4", before="5", since_s=0.0)))
    assert other_bundle(models, "4") is None  # its files are gone


def test_a_model_that_does_not_load_leaves_the_one_before(models):
    def opened(bundle):
        if bundle.name == "4":
            raise BundleError("head.tflite: missing")
        return engine(3, 0.5, 0.5)

    advice = Advice(models, opened)
    use(models, 3)
    advice.look()
    use(models, 4)
    assert not advice.look()
    assert advice.versions == [3]
    assert advice.problem == "the model does not load: head.tflite: missing"


def test_a_published_model_tells_what_it_makes_of_a_frame(models):
    bundle = Path(__file__).parents[2] / "data" / "tiny_bundle"
    advice = Advice(models, lambda _: TFLiteEngine(bundle))
    use(models, 3)
    advice.look()
    gray, dark = (
        advice.of(Frame(
            source="s", topic="t", stamp_ns=0, data=b"", format="rgb8",
            decode=lambda shade=shade: np.full((48, 64, 3), shade, np.uint8),
        ))
        for shade in (96, 20)
    )  # fmt: skip
    assert gray.sight.row.shape == (ROW,)
    assert not np.array_equal(gray.sight.row, dark.sight.row)
    best = {one.label: one.score for one in gray.found}
    assert gray.sight.scores.tolist() == pytest.approx([best[n] for n in advice.task.classes])
