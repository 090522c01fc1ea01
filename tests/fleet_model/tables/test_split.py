"""Which texts are held out, and which contradict each other."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_model.errors import SettingsError
from fleet_model.tables.split import TextSplit, digest_of

pytestmark = pytest.mark.base


def split_of(rows, held_out=0.2):
    """Return the decided split of (text, label, side) rows."""
    split = TextSplit(held_out)
    for text, label, told in rows:
        split.add(digest_of(text), label, told)
    split.decide()
    return split


def held(rows, split):
    return [text for text, _, told in rows if split.holds_out(digest_of(text), told)]


def many(count, label="a", told=None, start=0):
    return [(f"{label} text {n}", label, told) for n in range(start, start + count)]


def test_every_label_gives_its_share():
    rows = many(1000) + many(200, "b")
    labels = Counter(text[0] for text in held(rows, split_of(rows)))
    assert 160 <= labels["a"] <= 240
    assert 25 <= labels["b"] <= 55


def test_rows_that_come_never_move_a_text_of_a_label_with_many():
    rows = many(300)
    before = set(held(rows, split_of(rows)))
    more = [*many(200, start=300), *rows]
    random.Random(1).shuffle(more)
    after = set(held(more, split_of(more)))
    assert {text for text in after if int(text.split()[-1]) < 300} == before


def test_a_label_with_few_texts_holds_out_one_all_the_same():
    rows = many(300) + many(3, "b") + many(1, "c")
    counts = Counter(text[0] for text in held(rows, split_of(rows)))
    assert 1 <= counts["b"] < 3
    assert counts["c"] <= 1
    pair = [("one thing", "a", None), ("another", "b", None)]
    assert len(held(pair, split_of(pair))) == 1
    assert held(pair[:1], split_of(pair[:1])) in ([], ["one thing"])
    assert held(rows, split_of(rows, 0)) == []


def test_what_tables_say_counts_where_both_sides_are_there():
    rows = [*many(10, told=False), *many(4, told=True, start=8), ("a text 20", "a", None)]
    split = split_of(rows)
    assert held(rows, split) == [f"a text {n}" for n in (8, 9, 10, 11)]
    copies = [text for text, _, told in rows if split.is_held_copy(digest_of(text), told)]
    assert copies == ["a text 8", "a text 9"]
    only = many(100, told=True)  # a test set alone is divided as any other
    assert 5 < len(held(only, split_of(only))) < 40


def test_a_text_with_several_labels_contradicts_itself_in_any_case_and_white_space():
    rows = [("OK  then", "a", None), ("ok then\n", "b", None), ("fine", "a", None)] * 2
    split = split_of([*rows, ("fine", "", None)])
    assert [split.is_contradicted(digest_of(text)) for text, *_ in rows[:3]] == [True, True, False]


def test_nothing_is_asked_of_nothing():
    split = split_of([])
    assert not split.is_contradicted(1)
    with pytest.raises(SettingsError, match=r"held_out is 0\.7, expected 0 to 0\.5"):
        TextSplit(0.7)


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from([*"abcdefgh", "A ", " b"]),
            st.sampled_from(["", "x", "y"]),
            st.sampled_from([None, True, False]),
        ),
        max_size=25,
    ),
    share=st.sampled_from([0, 0.2, 0.5]),
)
def test_no_text_is_ever_on_both_sides(rows, share):
    split = split_of(rows, share)
    sides = {}
    for text, _, told in rows:
        digest = digest_of(text)
        labels = {other for t, other, _ in rows if digest_of(t) == digest and other}
        assert split.is_contradicted(digest) == (len(labels) > 1)
        if not split.is_held_copy(digest, told):
            sides.setdefault(digest, set()).add(split.holds_out(digest, told))
    assert all(len(side) == 1 for side in sides.values())
