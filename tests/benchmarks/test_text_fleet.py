"""The draw of sentences of benchmarks/text_fleet.py."""

import pytest

pytestmark = pytest.mark.torch


@pytest.fixture
def fleet(monkeypatch):
    from benchmarks import text_fleet
    from benchmarks.vader import DOMAINS, Sentence

    sentences = {
        name: [Sentence(f"{name}-{n}", f"{name} {n % 190}", 1.0) for n in range(200)]
        for name in DOMAINS
    }
    monkeypatch.setattr(text_fleet, "read_vader", lambda: sentences)
    return text_fleet


def test_no_sentence_is_in_two_places(fleet):
    texts = fleet.drawn(1, 40, 30)
    assert len(texts.clients) == len(fleet.DEPARTMENTS) * fleet.CLIENTS
    places = [*texts.clients.values(), texts.test, texts.untrained]
    raw = [one.raw for place in places for one in place]
    assert len(raw) == len(set(raw)), "the same words under two keys"
    assert [len(place) for place in texts.clients.values()] == [40] * len(texts.clients)
    assert len(texts.test) == 30 * len(fleet.DEPARTMENTS)
    assert {one.raw.split()[0] for one in texts.untrained} == {fleet.UNTRAINED}
    assert all(one.held_out for one in (*texts.test, *texts.untrained))
    assert not any(one.held_out for own in texts.clients.values() for one in own)


def test_a_seed_is_a_draw(fleet):
    first, again, other = (keys(fleet.drawn(s, 40, 30).test) for s in (1, 1, 2))
    assert first == again
    assert first != other


def keys(examples):
    return [one.key for one in examples]


def test_rates_are_chosen_by_sentences_that_are_in_no_other_place(fleet):
    texts, others = fleet.drawn(1, 40, 30), fleet.drawn(1, 40, 30, validation=20)
    assert [keys(own) for own in others.clients.values()] == [
        keys(own) for own in texts.clients.values()
    ]
    assert len(others.test) == 20 * len(fleet.DEPARTMENTS)
    places = [*texts.clients.values(), texts.test, others.test]
    raw = [one.raw for place in places for one in place]
    assert len(raw) == len(set(raw))
    with pytest.raises(ValueError, match="tweets has 190 sentences, 191 are needed"):
        fleet.drawn(1, 140, 30, validation=21)
