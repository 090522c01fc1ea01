"""Terms are words of letters alone, topics hashtags."""

import pytest

from edge_agent.training.profiles.words import author_of, terms_of, topics_of


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
        ("ß" * 15 + " " + "ß" * 16, {"ss" * 15}),
        ("it is ⁴⁹¹⁵¹² or ④⑨①⑤ or Ⅳ٤٩١٥", set()),
        ("see secret.example/path, /home/ada/pictures, C:\\Users\\lovelace then", {"then"}),
        ("see http://intranet then", {"then"}),
        ("this ends.Then that", {"this", "that"}),
        ("", set()),
    ],
)
def test_terms(text, expected):
    assert terms_of(text) == expected


def test_topics():
    text = "#Grasping, again #grasping #a #launch2024 (#arm) #" + "x" * 65
    assert topics_of(text) == {"grasping", "arm"}
    assert topics_of("https://example.org/#moon a.example/b#sun &#xab; #⁴⁹¹⁵ #" + "ß" * 33) == set()


@pytest.mark.parametrize(
    ("ways", "author"),
    [
        (["Ada Lovelace", "@ada_lovelace", " ADA  LOVELACE ", "\uff21da.lovelace"], "adalovelace"),
        (["7", " 7", "#7"], "7"),
        (["", " ", "-", "N/A", "None", "null", "NaN", "[deleted]", "Unknown", "anonymous"], ""),
    ],
)
def test_an_author_who_is_written_in_several_ways_is_one(ways, author):
    assert {author_of(way) for way in ways} == {author}
