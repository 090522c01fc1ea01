"""Which columns have the text and the label."""

from decimal import Decimal

import pytest

from fleet_model.errors import FrameError, SettingsError
from fleet_model.tables.columns import (
    Columns,
    choose_columns,
    columns_of_options,
    label_of,
    text_of,
)

pytestmark = pytest.mark.base

TEXTS = [f"my printer number {n} is on fire again" for n in range(20)]
KINDS = ["bill", "tech"] * 10


def choose(columns, wanted=None, labels=()):
    """Return what is chosen of column -> values."""
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return choose_columns(rows, wanted or Columns(), labels, "t.csv")


def found(columns, **more):
    chosen = choose(columns, **more)
    return (*chosen.text, chosen.label)


@pytest.mark.parametrize(
    ("columns", "text", "label"),
    [
        ({"text": TEXTS, "label": KINDS}, "text", "label"),
        ({"Class": KINDS, "Sentence": TEXTS}, "Sentence", "Class"),
        ({"ticket": range(20), "description": TEXTS, "department": KINDS}, "description", "depart"),
        ({"Message Body": TEXTS, "issueCategory": KINDS}, "Message Body", "issueCategory"),
        ({"body": TEXTS, "text": TEXTS, "topic": KINDS}, "text", "topic"),
        ({"text": list("abcdefghijklmnopqrst"), "label": [0, 1] * 10}, "text", "label"),
        ({"text": ["你好吗"] * 20, "label": KINDS}, "text", "label"),
    ],
)
def test_usual_names_are_known_in_any_case(columns, text, label):
    chosen = choose(columns)
    assert chosen.text == (text,)
    assert chosen.label.startswith(label)
    assert (chosen.text_by, chosen.label_by) == ("by its name", "by its name")


def test_other_names_are_found_by_what_is_in_them():
    columns = {
        "nr": range(20),
        "title": [f"case {n}" for n in range(20)],
        "what": TEXTS,
        "who": KINDS,
    }
    assert found(columns) == ("what", "who")
    assert choose(columns).words == (
        "text in 'what' (by its content), labels in 'who' (by its content)"
    )


def test_labels_of_the_fleet_tell_which_column_has_them():
    columns = {"text": TEXTS, "label": [0, 1] * 10, "label_text": KINDS}
    assert found(columns) == ("text", "label")
    assert found(columns, labels=["bill", "tech"]) == ("text", "label_text")
    assert found(columns, labels=["0", "1", "2"]) == ("text", "label")
    assert choose(columns, labels=["0", "1"]).label_by == "by the fleet's labels"
    assert found(columns, labels=["spam"]) == ("text", "label")  # all are pointed out later


def test_of_several_columns_with_few_values_none_is_taken_for_labels():
    columns = {"text": TEXTS, "language": ["de", "en"] * 10, "queue_name": ["a", "a", "b", "c"] * 5}
    assert found({**columns, "queue_name": range(20)}) == ("text", "language")
    assert found({"text": TEXTS, "language": KINDS, "channel": KINDS}) == ("text", "")
    assert choose({"text": TEXTS}).words == "text in 'text' (by its name), no labels"


def test_splits_and_ids_are_no_labels():
    columns = {"text": TEXTS, "split": ["train", "test"] * 10, "id": range(20), "fold": KINDS}
    chosen = choose(columns)
    assert (chosen.label, chosen.split, chosen.id) == ("fold", "split", "id")
    assert choose({**columns, "id": [1, 1] * 10}).id == ""


def test_columns_that_are_named_are_taken_and_several_texts_are_several():
    columns = {"title": TEXTS, "text": TEXTS, "x": KINDS, "label": KINDS}
    chosen = choose(columns, Columns(("title", "text"), "x"))
    assert (chosen.text, chosen.label, chosen.text_by) == (("title", "text"), "x", "as named")
    assert chosen.words.startswith("text in 'title' and 'text' (as named), labels in 'x' (as n")


def test_a_named_column_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(
        FrameError, match=r"^t\.csv: has no column 'body'; it has 'text', 'lab"
    ) as e:
        choose({"text": TEXTS, "label": KINDS}, Columns(("body",)))
    assert e.value.reason == "no such column"
    many = {f"c{n}": KINDS for n in range(40)}
    with pytest.raises(FrameError, match=r"'c11' and 28 more$"):
        choose(many, Columns((), "label"))


def test_numbers_and_few_words_are_no_texts():
    with pytest.raises(FrameError, match=r"no column looks like texts among 'a', 'b'; name it: ex"):
        choose({"a": range(20), "b": KINDS})


def test_a_first_row_is_not_taken_for_names_of_columns():
    with pytest.raises(FrameError, match="its first line has the label 'bill', so it is a row"):
        choose({TEXTS[0]: TEXTS, "bill": KINDS}, labels=["bill", "tech"])


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        (" a ", "a"), ("", ""), (None, ""), (float("nan"), ""), (1, "1"), (1.0, "1"), (1.5, "1.5"),
        (Decimal("2.0"), "2"), (True, "true"), (["a"], "a"), ([1], "1"), (["a", "b"], None),
        ({}, None), ([], None), (float("inf"), "inf"), (Decimal("1e18"), "1" + "0" * 18),
        (Decimal("1e5000"), "1E+5000"), (Decimal("7" * 5000), "7" * 5000), (7**50, str(7**50)),
        (Decimal("NaN"), "NaN"), (Decimal("-Infinity"), "-Infinity"),
    ],
)  # fmt: skip
def test_a_label_is_a_word_or_a_number(cell, label):
    assert label_of(cell) == label


def test_a_text_keeps_its_white_space():
    assert [text_of(cell) for cell in (" a\n", 7, None, ["a"])] == [" a\n", "7", "", None]


@pytest.mark.parametrize("wrong", [{"text": 3}, {"text": ["a", 3]}, {"text": "a", "label": ["b"]}])
def test_options_that_are_no_names_are_refused(wrong):
    with pytest.raises(SettingsError, match="is no column; expected e"):
        columns_of_options(**{"text": "", "label": "", **wrong})
    assert columns_of_options("", "") == Columns()
    assert columns_of_options(["a", "b"], "c") == Columns(("a", "b"), "c")
