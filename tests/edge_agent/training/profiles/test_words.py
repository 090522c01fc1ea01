"""Terms are words of letters alone, topics hashtags."""

import pytest

from edge_agent.training.profiles.words import terms_of, topics_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Gripper slips, the GRIPPER!", {"gripper", "slips"}),
        ("call +49 151 1234567 or door4711 or four-4-you", {"call"}),
        ("mail ada.lovelace@example.com, see https://secret.example/path then", {"mail", "then"}),
        ("ask @lovelace about #grasping www.example.org", {"about"}),
        ("Größe naïveté 机器人抓取", {"grösse", "naïveté", "机器人抓取"}),
        ("x" * 31 + " " + "y" * 30, {"y" * 30}),
        ("snake_case_words well-known", {"snake", "case", "words", "well", "known"}),
        ("", set()),
    ],
)
def test_terms(text, expected):
    assert terms_of(text) == expected


def test_topics():
    text = "#Grasping, again #grasping #a #launch2024 (#arm) #" + "x" * 65
    assert topics_of(text) == {"grasping", "arm"}
