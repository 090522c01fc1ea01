"""A text that grows by tokens, and what of it is certain."""

import pytest

from cloud_server.departments.wording import GrowingText


def grown(numbers, text, stops=()):
    one, sent = GrowingText(text, stops), []
    for number in numbers:
        sent.append(one.add(number))
        if one.stopped:
            break
    return one, [*sent, one.end()]


def letters(numbers):
    return "".join(chr(number) for number in numbers)


def test_a_cut_character_waits_for_its_other_half():
    halves = "é".encode()
    one, sent = grown([97, *halves], lambda n: bytes(n).decode(errors="replace"))
    assert sent == ["a", "", "é", ""]
    assert one.whole == "aé"


@pytest.mark.parametrize(
    ("stops", "whole", "stopped"),
    [
        ((), "abcabd", False),
        (("abd",), "abc", True),
        (("x", "ca"), "ab", True),
        (("abx",), "abcabd", False),
    ],
)
def test_nothing_of_a_stop_is_sent_and_nothing_is_lost(stops, whole, stopped):
    one, sent = grown(map(ord, "abcabd"), letters, stops)
    assert "".join(sent) == one.whole == whole
    assert one.stopped == stopped


def test_a_text_whose_beginning_changes_keeps_what_was_sent():
    one, sent = grown([1, 2, 3], lambda n: {1: "ab", 2: "aX", 3: "abcd"}[len(n)])
    assert sent == ["ab", "", "cd", ""]
    assert one.tokens == 3
