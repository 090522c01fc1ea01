"""Read XML that anybody may have written: no document type, so no entity and nothing to fetch."""

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from fleet_model.errors import FrameError
from fleet_model.files.text import read_bounded

_LARGEST = 256 << 20  # bytes; CVAT has all pictures of a task in one file
_MOST_ELEMENTS = 2_000_000  # 0.5 GB in memory; a million boxes


class _Tree(TreeBuilder):
    """Refuses a document type as soon as it begins, before anything in it is read; and bombs."""

    count = 0

    def start(self, tag: str, attrs: dict[str, str], /) -> Element:
        self.count += 1
        if self.count > _MOST_ELEMENTS:
            raise ValueError(f"has more than {_MOST_ELEMENTS} elements")
        return super().start(tag, attrs)

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("declares a document type, which label files do not need")


def read_xml(file: Path, where: str) -> Element:
    """Return the root of a file; expat knows its encoding by itself.

    Raises:
        FrameError: it cannot be read, is no XML ("bad label file"), or declares a document type.
    """
    content = read_bounded(file, where, _LARGEST)
    parser = XMLParser(target=_Tree())  # noqa: S314  (see _Tree)
    try:
        parser.feed(content)
        return parser.close()
    except (ParseError, ValueError, LookupError) as error:
        raise FrameError(f"{where}: {error}", "bad label file") from None
