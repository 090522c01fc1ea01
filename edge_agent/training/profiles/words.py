"""Terms and topics of a text: words and hashtags, of letters alone; and who somebody is."""

import re
import unicodedata

_WORD = re.compile(r"[^\W\d_]+")
_SHORTEST, _LONGEST = 4, 30  # letters of a term
_LONGEST_TOPIC = 64
# Not the end of an address: https://example.org/#part
_TOPIC = re.compile(r"(?<![\w/&=?#.-])#([^\W\d_]{2,})(?!\w)")
# What names a person or a place in the net or on a disk, or holds a number, is no term in any part.
_NAMING = re.compile(r"\S*(?:[\d@#]|://|\w[./\\]\w)\S*")
_NOBODY = {"none", "null", "nan", "na", "unknown", "anonymous", "deleted", "undefined"}


def terms_of(text: str) -> frozenset[str]:
    """Return the words of a text in lower case: 4 to 30 letters.

    Nothing of what has a digit, "@", "#", an address or a path in it, up to the next white space.
    """
    words = map(str.casefold, _WORD.findall(_NAMING.sub(" ", text)))
    return frozenset(w for w in words if w.isalpha() and _SHORTEST <= len(w) <= _LONGEST)


def topics_of(text: str) -> frozenset[str]:
    """Return the hashtags of a text in lower case, without those that have a digit."""
    topics = map(str.casefold, _TOPIC.findall(text))
    return frozenset(t for t in topics if t.isalpha() and len(t) <= _LONGEST_TOPIC)


def author_of(name: str) -> str:
    """Return one name of an author who is written in several ways; "" is nobody that is known.

    Letters and digits alone, in lower case: "@Ada ", "a.d.a" and "ADA" are one, "N/A" is nobody.
    """
    letters = filter(str.isalnum, unicodedata.normalize("NFKC", name).casefold())
    found = "".join(letters)
    return "" if found in _NOBODY else found
