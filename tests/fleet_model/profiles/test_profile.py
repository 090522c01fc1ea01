"""Profiles travel as tensors; what a stranger sends is one, or is refused."""

import json

import numpy as np
import pytest

from fleet_model.errors import UpdateError
from fleet_model.profiles.profile import (
    Group,
    SourceProfile,
    pack_profile,
    told_count,
    unpack_profile,
)


def made():
    mean = np.arange(3, dtype=np.float32)
    return {
        "böard": SourceProfile(
            whole=Group(records=40, mean=mean),
            topics={"#arm": Group(records=25, mean=mean + 1)},
            labels={"pick": 20},
            terms={"gripper": 35, "robot": 40},
        ),
        "field": SourceProfile(whole=Group(records=20, mean=mean + 2)),
    }


def test_a_profile_comes_back_as_it_went():
    tensors = pack_profile(made())
    assert {t.dtype.name for t in tensors.values()} == {"float16", "float32"}
    found = unpack_profile(tensors)
    assert list(found) == ["böard", "field"]
    board = found["böard"]
    assert (board.whole.records, board.labels, board.terms) == (
        40, {"pick": 20}, {"gripper": 35, "robot": 40},
    )  # fmt: skip
    assert board.topics["#arm"].records == 25
    assert board.topics["#arm"].mean.tolist() == [1, 2, 3]
    assert found["field"].whole.mean.tolist() == [2, 3, 4]


def test_counts_are_told_in_steps():
    assert [told_count(n) for n in (20, 24, 25, 99)] == [20, 20, 25, 95]


def changed(change):
    tensors = dict(pack_profile(made()))
    about = json.loads(tensors["about"].astype(np.uint8).tobytes())
    change(tensors, about)
    if "keep" not in about:
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        tensors["about"] = text.astype(np.float16)
    return tensors


def put(name, value):
    def change(tensors, about):
        about["keep"] = True
        tensors[name] = value

    return change


def say(**values):
    return lambda _, about: about["field"].update(values)


NINE = {f"word{n}": 20 for n in range(101)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("more", np.zeros(1, np.float32)), "and no others"),
        (put("means", np.zeros(3, np.float32)), "are .groups, width., float32"),
        (put("means", np.zeros((3, 0), np.float32)), "are .groups, width., float32"),
        (put("means", np.full((3, 3), np.nan, np.float32)), "are numbers up to"),
        (put("means", np.full((3, 3), 1e7, np.float32)), "are numbers up to"),
        (put("means", np.zeros((4, 3), np.float32)), "has 4 means, expected 3"),
        (put("about", np.zeros(0, np.float16)), "described in 1 to"),
        (put("about", np.zeros((1 << 18) + 1, np.float16)), "described in 1 to"),
        (put("about", np.array([0.5], np.float16)), "described in bytes"),
        (put("about", np.array([np.nan], np.float16)), "described in bytes"),
        (put("about", np.array([300], np.float16)), "described in bytes"),
        (put("about", np.array([123], np.float16)), "described in JSON"),
        (lambda _, about: about.clear(), "is of 1 to 20 sources"),
        (lambda _, about: about.update({f"s{n}": {} for n in range(20)}), "is of 1 to 20 sources"),
        (lambda _, about: about.update(field=7), "and an object"),
        (lambda _, about: about.update({"a\nb": about.pop("field")}), "has a name of up to 64"),
        (lambda _, about: about.update({"a" * 65: about.pop("field")}), "has a name of up to 64"),
        (say(records=19), "at least 20 records, in steps of 5"),
        (say(records=21), "at least 20 records, in steps of 5"),
        (say(records=True), "at least 20 records"),
        (say(records="20"), "at least 20 records"),
        (say(records=None), "at least 20 records"),
        (say(terms={"a": 15}), "terms of a source have at least 20"),
        (say(terms={"a": 25}), "has more records than the source"),
        (say(terms=NINE), "up to 100 names"),
        (say(terms={"": 20}), "names of up to 64"),
        (say(topics=[]), "topics of a source are up to 100 names"),
        (say(labels={"x": 20.0}), "labels of a source have at least 20"),
    ],
)
def test_what_cannot_be_a_profile_is_refused(change, words):
    with pytest.raises(UpdateError, match=words):
        unpack_profile(changed(change))
