import pytest

from edge_agent.examples.left_out import by_kind, tell, unknown_label

LEARNED = ("brick", "grass")


@pytest.mark.parametrize(
    ("label", "hint"),
    [
        ("Brick", " (did you mean 'brick'?)"),
        ("GRASS", " (did you mean 'grass'?)"),
        ("gras", " (did you mean 'grass'?)"),
        ("water", ""),
    ],
)
def test_an_unknown_label_names_the_one_that_is_like_it(label, hint):
    assert unknown_label(label, LEARNED) == f"labelled {label!r}, which is not learned{hint}"


def test_reasons_become_kinds_and_words_stay_here():
    reasons = {
        unknown_label("Brick", LEARNED): 60,
        unknown_label("gras", LEARNED): 50,
        "without a label": 3,
        "in which nobody has said what is there": 4,
        "between training and held out": 8,
        "a copy of another frame": 1,
        "cut jpeg": 2,
        "unreadable source": 1,
    }
    assert by_kind(reasons) == {
        "unknown_label": 110, "unlabelled": 7, "too_near": 8, "copy": 1, "unreadable": 3,
    }  # fmt: skip
    assert by_kind({"broken gauge": 2}, "other") == {"other": 2}


def test_the_largest_numbers_come_first_and_thousands_of_labels_are_a_few_lines():
    told = tell({"few": 1, "many": 9, **{f"label {i}": 2 for i in range(1000)}})
    assert told.startswith("9 many, 2 label 0, ")
    assert told.endswith(", and 982 more reasons")
