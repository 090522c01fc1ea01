"""Sentences with a sentiment by people, of four kinds (Hutto and Gilbert 2014, MIT license).

From the source package of vaderSentiment, of which nothing is run: tweets, film reviews, Amazon
reviews, New York Times editorials; each sentence rated by about 20 people, -4 to 4.
"""

import html
import io
import tarfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.packages import package_file

PACKAGE = "vaderSentiment==3.3.2"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
INSIDE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
DOMAINS = {
    "tweets": "tweets",
    "film": "movieReviewSnippets",
    "amazon": "amazonReviewSnippets",
    "nyt": "nytEditorialSnippets",
}
LABELS = ("negative", "positive")


class Sentence(NamedTuple):
    """One of them."""

    key: str
    text: str
    rating: float  # mean of all people, -4..4

    @property
    def label(self) -> str:
        """Return the class of two; a rating of 0 counts as positive."""
        return LABELS[self.rating >= 0]


def read_vader() -> Mapping[str, Sequence[Sentence]]:
    """Return the sentences of each domain in the order of the files."""
    file = package_file(PACKAGE, SHA256, "--no-binary", ":all:")
    with tarfile.open(file) as outer:
        inside = outer.extractfile(INSIDE)
        assert inside is not None
        content = inside.read()
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for domain, name in DOMAINS.items():
            stream = archive.extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
            assert stream is not None
            rows = (line.split("\t", 2) for line in stream.read().decode("latin-1").splitlines())
            found[domain] = [
                Sentence(f"{domain}-{key}", html.unescape(text).strip(), float(rating))
                for key, rating, text in rows
            ]
    return found
