"""What reaches an assistant is bounded, finite, and holds no key."""

import json
import math

import pytest

from cloud_server.cli.assistants.results import MAX_ITEMS, MAX_TEXT, packed, page, plain
from fleet_model.errors import SettingsError


def test_numbers_that_are_not_finite_are_null():
    told = plain({"loss": math.nan, "best": [math.inf, 0.5], "n": 3, "yes": True, "none": None})
    assert told == {"loss": None, "best": [None, 0.5], "n": 3, "yes": True, "none": None}
    json.dumps(told, allow_nan=False)


def test_a_long_list_is_cut_and_what_is_missing_is_counted_beside_it():
    told = plain({"robots": [*range(MAX_ITEMS + 7)], "rows": [[*range(MAX_ITEMS + 1)]]})
    assert told["robots"] == [*range(MAX_ITEMS)]
    assert told["robots_left_out"] == 7
    assert told["rows"][0][-1] == {"left_out": 1}


def test_a_long_object_and_a_long_text_are_cut_and_say_so():
    told = plain({str(number): number for number in range(MAX_ITEMS + 2)})
    assert (len(told), told["left_out"]) == (MAX_ITEMS + 1, 2)
    assert plain("a" * (MAX_TEXT + 5)) == "a" * MAX_TEXT + " ... (5 more characters)"


def test_a_public_key_and_what_moves_a_cursor_do_not_pass():
    key = "ecdsa-sha2-nistp384 " + "AAAAE2VjZHNhLXNoYTItbmlzdHAzODQ" * 3 + "="
    told = plain({"words": f"cloud-server robots add DIR NAME --key '{key}'\n\x1b[2J"})
    assert told["words"] == "cloud-server robots add DIR NAME --key '(key)'\\n\\x1b[2J"


def test_a_page_tells_where_the_next_one_begins():
    items = [*range(5)]
    first = page("robots", items, 0, 2)
    assert first == {"robots": [0, 1], "total": 5, "left_out": 3, "next_offset": 2}
    assert page("robots", items, 4, 2)["next_offset"] is None
    assert page("robots", items, 9, 2) == {
        "robots": [], "total": 5, "left_out": 5, "next_offset": None
    }  # fmt: skip


def test_an_answer_that_is_too_long_is_refused_with_what_to_do():
    rows = plain({"rows": [{"text": "a" * 1900, "more": "b" * 1900} for _ in range(150)]})
    with pytest.raises(SettingsError, match=r"570 kB|smaller limit"):
        packed(rows)
