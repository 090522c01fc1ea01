"""What of a post is text, picture, time and author: by the names of its fields, at any depth."""

import html
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, NamedTuple

from edge_agent.data.collecting.times import moment_of
from fleet_model.errors import one_line

# Names of fields, in lower case; of two the earlier one counts, then the one nearer to the top.
_TEXT = (
    *("text", "full_text", "content", "body", "message", "caption", "post", "selftext"),
    *("description", "comment", "note", "summary", "title"),
)
_IMAGE = (
    *(
        "image",
        "image_path",
        "image_url",
        "photo",
        "picture",
        "img",
        "media_url_https",
        "media_url",
    ),
    *("media", "uri", "url", "path", "file", "filename", "name"),
)
_TIME = (
    *("time", "date", "created_at", "created_utc", "timestamp", "published", "creation_timestamp"),
    *("date_unixtime", "posted_at", "ts", "created", "datetime"),
)
_AUTHOR = ("author", "user", "username", "from_id", "from", "sender", "actor", "account", "by")
_AUTHOR_PARTS = ("id", "id_str", "username", "screen_name", "acct", "login", "handle", "name")
_SOURCE = ("source", "platform", "network")
_IS_IMAGE = re.compile(r"(?i)[^\n]+\.(jpe?g|png|webp|bmp|tiff?|gif|heic|avif)(\?[^\n]*)?")
_TAG = re.compile(r"(?i)</?(p|br|a|span|div|b|i|em|strong|u|ul|ol|li|img|h[1-6]|code)\b[^<>]*>")
_BREAK = re.compile(r"(?i)<br\b[^<>]*>|</p>|</div>|</li>")
_DEEPEST, _MOST = 24, 2000  # of what is looked at in one post: levels, values
_LONGEST_NAME = 200  # characters of a source, an author


class Post(NamedTuple):
    """What one object of an export says."""

    text: str  # "": nothing
    images: tuple[str, ...]  # names of files, or addresses, as they stand there
    time: str  # as times.moment_of
    source: str  # "": it does not say
    author: str  # "": it does not say


def post_of(thing: dict[str, Any]) -> Post:
    """Return what an object says; what is not found is ""."""
    values = list(_values(thing, ()))[:_MOST]
    return Post(
        text=plain(_first(values, _TEXT)),
        images=tuple(dict.fromkeys(_images(values))),
        time=next(filter(None, map(moment_of, _all(values, _TIME))), ""),
        source=one_line(_first([v for v in values if len(v[0]) == 1], _SOURCE))[:_LONGEST_NAME],
        author=one_line(_author(values))[:_LONGEST_NAME],
    )


def plain(text: str) -> str:
    """Return a text without the tags of HTML, and with its letters where they were read twice.

    Exports of Facebook and Instagram write each byte of UTF-8 as a letter of its own.
    """
    if _TAG.search(text):
        text = html.unescape(_TAG.sub("", _BREAK.sub("\n", text)))
    with suppress(UnicodeError):
        text = text.encode("latin-1").decode("utf-8")
    return text.strip()


def _values(
    thing: Any, path: tuple[str, ...], depth: int = 0
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (path in lower case, text) of what is no object and no list; lists are not in paths.

    Halves of characters, which JSON may hold, and no file, become "?".
    """
    if depth > _DEEPEST:
        return
    if isinstance(thing, dict):
        for name, value in thing.items():
            yield from _values(value, (*path, str(name).lower()), depth + 1)
    elif isinstance(thing, list):
        if len(thing) > 1 and (joined := _joined(thing)):
            yield path, _whole(joined)
            return
        for value in thing[:_MOST]:
            yield from _values(value, path, depth + 1)
    elif isinstance(thing, str | int | float | Decimal) and not isinstance(thing, bool) and path:
        yield path, _whole(str(thing))


def _whole(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _joined(parts: Sequence[Any]) -> str:
    """Return the text of parts that are texts or have one, as Telegram writes links; else ""."""
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    if any(isinstance(part, str) for part in parts) and all(isinstance(t, str) for t in texts):
        return "".join(texts)  # type: ignore[arg-type]
    return ""


def _all(values: Sequence[tuple[tuple[str, ...], str]], names: Sequence[str]) -> list[str]:
    """Return what fields of these names hold, the best first."""
    found = [
        (names.index(path[-1]), len(path), number, value)
        for number, (path, value) in enumerate(values)
        if path[-1] in names and value.strip()
    ]
    return [value for *_, value in sorted(found)]


def _first(values: Sequence[tuple[tuple[str, ...], str]], names: Sequence[str]) -> str:
    return next(iter(_all(values, names)), "")


def _images(values: Sequence[tuple[tuple[str, ...], str]]) -> list[str]:
    """Return what is called as pictures are, and ends so."""
    return [value.strip() for value in _all(values, _IMAGE) if _IS_IMAGE.fullmatch(value.strip())]


def _author(values: Sequence[tuple[tuple[str, ...], str]]) -> str:
    """Return who wrote a post: a field itself, or what a field's object is known by."""
    found = []
    for number, (path, value) in enumerate(values):
        for depth, name in enumerate(path[-2:], start=max(0, len(path) - 2)):
            rest = path[depth + 1 :]
            if name in _AUTHOR and value.strip() and (not rest or rest[0] in _AUTHOR_PARTS):
                part = _AUTHOR_PARTS.index(rest[0]) if rest else -1
                found.append((len(path), _AUTHOR.index(name), part, number, value.strip()))
    return min(found)[-1] if found else ""
