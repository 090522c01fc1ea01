"""What of a platform's post is text, picture, time, source and author."""

import pytest

from edge_agent.data.collecting.fields import Post, plain, post_of

POSTS = {
    "a flat record": (
        {"text": "two robots", "image": "a.jpg", "time": "2026-12-03T08:00:00+01:00",
         "source": "board", "author": "ada"},
        Post("two robots", ("a.jpg",), "2026-12-03T07:00:00Z", "board", "ada"),
    ),
    "twitter": (
        {"tweet": {
            "id": "17", "full_text": "on it", "created_at": "Wed Oct 10 20:19:24 +0000 2018",
            "source": "<a>Web</a>", "user": {"id_str": "9", "name": "Ada"},
            "entities": {"media": [{"media_url_https": "https://x.org/a.jpg"},
                                   {"media_url_https": "https://x.org/b.jpg"}]},
        }},
        Post("on it", ("https://x.org/a.jpg", "https://x.org/b.jpg"), "2018-10-10T20:19:24Z", "",
             "9"),
    ),
    "mastodon": (
        {"type": "Create", "actor": "https://m.org/users/ada", "published": "2024-01-02T03:04:05Z",
         "object": {"content": "<p>a &amp; b<br>c</p>", "attachment": [{"url": "/m/a.png"}]}},
        Post("a & b\nc", ("/m/a.png",), "2024-01-02T03:04:05Z", "", "https://m.org/users/ada"),
    ),
    "instagram": (
        {"title": "CafÃ©", "media": [{"uri": "media/a.webp", "creation_timestamp": 1700000000}]},
        Post("Café", ("media/a.webp",), "2023-11-14T22:13:20Z", "", ""),
    ),
    "telegram": (
        {"id": 1, "date": "2024-05-06T07:08:09", "date_unixtime": "1714979289", "from": "Ada",
         "from_id": "user7", "photo": "photos/p.jpg",
         "text": ["see ", {"type": "link", "text": "here"}, "!"]},
        Post("see here!", ("photos/p.jpg",), "2024-05-06T07:08:09Z", "", "user7"),
    ),
    "slack": (
        {"user": "U1", "ts": "1700000000.000100", "text": "done",
         "files": [{"name": "x.png", "url_private": "https://s.org/x"}]},
        Post("done", ("x.png",), "2023-11-14T22:13:20Z", "", "U1"),
    ),
    "reddit": (
        {"title": "gripper", "selftext": "it slips", "created_utc": 1700000000.0, "author": "ada",
         "url": "https://i.org/a.png"},
        Post("it slips", ("https://i.org/a.png",), "2023-11-14T22:13:20Z", "", "ada"),
    ),
    "an author with a name alone": (
        {"body": "x", "author": {"name": "Ada", "avatar": {"url": "ada.png"}}},
        Post("x", ("ada.png",), "", "", "Ada"),
    ),
    "facebook": (
        {"timestamp": 1700000000, "title": "Ada wrote", "data": [{"post": "it slips"}],
         "attachments": [{"data": [{"media": {"uri": "posts/a.jpg", "title": "x"}}]}]},
        Post("it slips", ("posts/a.jpg",), "2023-11-14T22:13:20Z", "", ""),
    ),
    "an author with a picture alone": (
        {"body": "x", "author": {"avatar": "ada"}}, Post("x", (), "", "", "")
    ),
    "nothing": ({"likes": 7, "deleted": True, "text": None}, Post("", (), "", "", "")),
}  # fmt: skip


@pytest.mark.parametrize(("thing", "expected"), POSTS.values(), ids=POSTS)
def test_fields_are_found_as_platforms_call_them(thing, expected):
    assert post_of(thing) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a < b and b > c", "a < b and b > c"),
        ("R&D", "R&D"),
        ("<b>R&amp;D</b> <p>one</p><p>two</p>", "R&D one\ntwo"),
        ("GruÌ\x88ße", "GruÌ\x88ße"),
        ("Grüße", "Grüße"),
        ("ð\x9f¤\x96", "🤖"),
    ],
)
def test_texts_lose_tags_and_nothing_else(text, expected):
    assert plain(text) == expected


def test_an_object_that_is_deeper_than_a_post_ends():
    thing = deep = {}
    for _ in range(500):
        deep["text"] = {}
        deep = deep["text"]
    deep["text"] = "never seen"
    assert post_of(thing).text == ""
    for _ in range(5000):
        deep = [deep]
    assert post_of({"text": "seen", "more": deep}).text == "seen"


def test_what_no_file_and_no_line_can_hold_is_replaced():
    post = post_of({"text": "a \ud800 b", "source": "\x1b[31mred\nnext", "author": "x\ud800"})
    assert (post.text, post.author) == ("a ? b", "x?")
    assert post.source.isprintable()
    assert len(post_of({"text": "a", "author": "x" * 1000}).author) == 200
