"""The parts of benchmarks/compression.py that can be wrong without anyone noticing."""

import pytest

from benchmarks import compression, compression_arms
from benchmarks.compression import result
from benchmarks.vader import Sentence


def model(size, accuracy, p50_ms, text_ms):
    return {"bytes": size, "accuracy": accuracy, "p50_ms": p50_ms, "text_ms": text_ms}


def draw(student):
    return {
        "teacher": model(100.0, 0.8, 6.0, 7.0),
        "student": model(40.0, student, 2.0, 3.5),
        "student_int8": model(10.0, student - 0.01, 1.0, 2.5),
    }


def test_the_student_is_compared_with_its_own_teacher():
    figures = result([draw(0.8), draw(0.79)], limited=True).figures
    expected = {
        "student_size_cut": 0.6, "student_speedup": 3.0, "student_speedup_from_text": 2.0,
        "student_drop": 0.005, "student_drop_most": 0.01, "int8_size_cut": 0.9, "int8_drop": 0.01,
        "student_accuracy": 0.795,
    }  # fmt: skip
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def test_few_sentences_are_held_against_no_limit():
    assert [one.key for one in result([draw(0.8)], limited=True).limits] == ["student_drop"]
    assert not result([draw(0.8)], limited=False).limits


def test_no_sentence_is_in_two_places(monkeypatch):
    sentences = {
        kind: [Sentence(f"{kind}-{n}", f"{kind} number {n // 2}", 1.0) for n in range(80)]
        for kind in compression_arms.KINDS
    }
    monkeypatch.setattr(compression_arms, "read_vader", lambda: sentences)
    parts = compression_arms.drawn(1, labelled=10, transfer=25, tests=12)
    assert [len(part) for part in parts] == [20, 30, 24]  # 40 different texts of each kind
    texts = [one.text for part in parts for one in part]
    assert len(set(texts)) == len(texts)
    assert parts != compression_arms.drawn(2, labelled=10, transfer=25, tests=12)


def test_what_another_recipe_has_trained_is_not_taken(monkeypatch, tmp_path):
    for name in ("environment", "read_vader", "distilbert_folder"):
        monkeypatch.setattr(compression, name, lambda *given: None)
    before = compression.prepare(tmp_path / "work", 6)
    assert compression.prepare(tmp_path / "work", 6) == before
    (tmp_path / "other.py").write_text("EPOCHS = 7")
    monkeypatch.setattr(compression, "RECIPE", tmp_path / "other.py")
    assert compression.prepare(tmp_path / "work", 6) != before
    assert not before.exists()
