"""Find the pictures that a label file names: it was written elsewhere, by another tool.

One rule for all formats. A backslash is a slash; scheme and host, what is before `?d=`, and the
drive are cut off. Then the longest end of the name that a picture of the data set ends with counts,
in any case, and with or without the picture's suffix. Of several pictures the one counts that lies
near the label file or in its split (train, val). What is still not clear finds nothing.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import takewhile
from operator import eq
from typing import NamedTuple
from unicodedata import normalize
from urllib.parse import unquote

from edge_agent.data.frames.source import IMAGE_SUFFIXES

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_ADDRESS = re.compile(r"(?:^[a-z][a-z0-9+.-]+:(?://[^/]*/|/*))", re.IGNORECASE)
_DRIVE = re.compile(r"^[A-Za-z]:")
_MOST = 64  # pictures of one name that are compared; beyond, only a name with its folders is clear


class Written(NamedTuple):
    """A picture's name as a label file spells it."""

    name: str
    file: str = ""  # the label file, relative to the data set, with "/"


class _Match(NamedTuple):
    """How well a picture fits; the larger the better."""

    parts: int  # length of the end that both names have
    in_split: bool
    exact: bool  # the name is right from the data set's root or the label file's folder
    shared: int  # how many folders it has in common with the label file
    same_case: bool


class _Found(NamedTuple):
    image: str
    match: _Match
    spelled: str
    is_whole: bool  # no part of the spelled name is left over


@dataclass(slots=True)
class _Ends:
    """The pictures whose names have one end, and what may stand before it."""

    images: list[str] = field(default_factory=list)
    depth: int = 0  # parts of the end
    _longer: "dict[str, _Ends] | None" = None

    def longer(self, key: str) -> "_Ends | None":
        """Return those with one more part; looked for when asked for, or names take 1.5 kB each."""
        if self._longer is None:
            self._longer = {}
            for image in self.images:
                keys = _keys(image.split("/"))
                if len(keys) > self.depth:
                    ends = self._longer.setdefault(keys[self.depth], _Ends(depth=self.depth + 1))
                    ends.images.append(image)
        return self._longer.get(key)


def find_images(images: Iterable[str], written: Iterable[Written]) -> Mapping[Written, str]:
    """Return written name -> image; names that no picture, or more than one, fits are not in it.

    A picture whose name fits only in part, like b/1.jpg for a/1.jpg, is nobody's as soon as another
    name fits it as well.

    Args:
        images: names of all pictures, relative to the data set.
        written: the names to find. Nothing outside `images` is ever found.
    """
    ends = _Ends(list(images))
    found = {each: match for each in written if (match := _best(ends, each))}
    whole = {each.image for each in found.values() if each.is_whole}
    claims: dict[str, dict[_Match, set[str]]] = {}
    for each in (each for each in found.values() if each.image not in whole):
        claims.setdefault(each.image, {}).setdefault(each.match, set()).add(each.spelled)
    return {
        written: each.image
        for written, each in found.items()
        if each.is_whole or (each.image not in whole and _is_clear(each.match, claims[each.image]))
    }


@lru_cache(maxsize=1 << 12)
def split_words(path: str) -> frozenset[str]:
    """Return the splits that a path names: "train2017/x" and "instances_train" are "train"."""
    words = re.findall(r"[a-z]+", path.lower())
    return frozenset(_SPLITS[word] for word in words if word in _SPLITS)


def _is_clear(match: _Match, claims: Mapping[_Match, set[str]]) -> bool:
    return match == max(claims) and len(claims[match]) == 1


def _parts(name: str) -> list[str]:
    """Return the folders and the bare name of a spelled name."""
    text = name.strip().replace("\\", "/")
    address = _ADDRESS.match(text)
    if address or "?d=" in text:  # Label Studio serves local files so
        text = text[address.end() :] if address else text
        text = unquote(re.split(r"[?#]", text.partition("?d=")[2] or text)[0]).replace("\\", "/")
    parts: list[str] = []
    for part in _DRIVE.sub("", text).split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return parts


def _keys(parts: list[str]) -> list[str]:
    """Return what is compared: without case and suffix, letters spelled in one way, last first."""
    return [_folded(_stem(parts[-1])), *map(_folded, reversed(parts[:-1]))]


def _folded(text: str) -> str:
    return text.casefold() if text.isascii() else normalize("NFC", text).casefold()


def _stem(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    return stem if f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def _best(ends: _Ends, written: Written) -> _Found | None:
    """Return the picture with the longest end in common, if it is clear which."""
    parts = _parts(written.name)
    if not parts:
        return None
    keys = _keys(parts)
    for key in keys:
        if ends.depth and len(ends.images) == 1:
            break
        longer = ends.longer(key)
        if longer is None:
            break
        ends = longer
    if not ends.depth or len(ends.images) > _MOST:
        return None
    same = map(eq, keys, _keys(ends.images[0].split("/")))
    common = sum(1 for _ in takewhile(bool, same))
    bare = _folded(parts[-1]) if _stem(parts[-1]) != parts[-1] else ""
    matches = sorted(
        (_match(image, parts, common, written.file), image)
        for image in ends.images
        if bare in ("", _folded(image.rpartition("/")[2]))
        and not (common == 1 and _is_elsewhere(image, written.file))
    )
    if not matches or [each for each, _ in matches].count(matches[-1][0]) > 1:
        return None
    match, image = matches[-1]
    return _Found(image, match, "/".join(parts), common == len(parts))


def _is_elsewhere(image: str, file: str) -> bool:
    """Return whether a picture is of another split than its label file: train, not val."""
    own, splits = split_words(image.rpartition("/")[0]), split_words(file)
    return bool(own and splits) and not own & splits


def _match(image: str, parts: list[str], common: int, file: str) -> _Match:
    own, near = image.split("/"), file.split("/")[:-1]
    shared = 0
    while shared < min(len(own) - 1, len(near)) and own[shared] == near[shared]:
        shared += 1
    words = _words(file)
    return _Match(
        common,
        any(
            folder.lower() in words or split_words(folder) & split_words(file)
            for folder in own[:-1]
        ),
        own in ([*near, *parts], parts),
        shared,
        own[-common:] == parts[-common:],
    )


@lru_cache(maxsize=1 << 12)
def _words(file: str) -> frozenset[str]:
    return frozenset(re.split(r"[/_.\s-]+", file.lower()))
