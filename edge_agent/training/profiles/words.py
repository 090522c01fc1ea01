"""Terms and topics of a text: words and hashtags, of letters alone."""

import re

_WORD = re.compile(r"[^\W\d_]+")
_SHORTEST, _LONGEST = 4, 30  # letters of a term
_TOPIC = re.compile(r"#([^\W\d_]{2,64})(?!\w)")
# What names a person or a place in the net, or holds a number, is no term in any of its parts.
_NAMING = re.compile(r"\S*(?:[\d@#]|://|www\.)\S*")


def terms_of(text: str) -> frozenset[str]:
    """Return the words of a text in lower case: 4 to 30 letters.

    Nothing of what has a digit, "@", "#" or an address in it, up to the next white space.
    """
    words = _WORD.findall(_NAMING.sub(" ", text))
    return frozenset(w.casefold() for w in words if _SHORTEST <= len(w) <= _LONGEST)


def topics_of(text: str) -> frozenset[str]:
    """Return the hashtags of a text in lower case, without those that have a digit."""
    return frozenset(topic.casefold() for topic in _TOPIC.findall(text))
