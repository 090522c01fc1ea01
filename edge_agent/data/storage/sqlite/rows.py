"""The rows of a table in an SQLite file, and those that no path leads to any more.

https://www.sqlite.org/fileformat2.html#b_tree_pages
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeAlias

from edge_agent.data.storage.sqlite.pages import Pages
from fleet_model.errors import FrameError

Value: TypeAlias = int | float | str | bytes | None

LEAF, INTERIOR = 0x0D, 0x05
_INDEX_LEAF, _INDEX_INTERIOR = 0x0A, 0x02
LARGEST_ROW = 2**22  # bytes, of the small tables: a message definition has some ten thousand
MOST_BYTES = 2**26  # of all rows of such a table
_ROW_COST = 2**10  # what a row adds, however small
SCHEMA_ROOT = 1  # the page that the table of tables begins at
_FILE_HEADER = 100  # in front of page 1
_LARGEST_PAGE = 2**16
INTEGER_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_REAL, ZERO, ONE = 7, 8, 9


class Cell(NamedTuple):
    """One row in a leaf page: its first bytes are at hand, the others in overflow pages."""

    rowid: int
    types: tuple[int, ...]  # serial type of each column
    begin: int  # of the columns' content in the page
    local: bytes | memoryview  # the beginning of that content
    size: int  # of all columns together
    overflow: int  # first overflow page; 0 where everything is local


class Lost(NamedTuple):
    """A part of a table that no path leads to."""

    page: int
    after: int  # the rows that are lost have larger ids
    up_to: int | None  # and none above this; None is unknown
    reason: str


def leaf_pages(
    pages: Pages, root: int, lost: list[Lost], seen: bytearray
) -> Iterator[tuple[int, bytes]]:
    """Yield the leaf pages below `root` with their numbers, in the order of row ids.

    Pages that cannot be read are added to `lost`; those that were visited are marked in `seen`.
    """
    stack: list[tuple[int, int, int | None]] = [(root, 0, None)]
    while stack:
        number, after, up_to = stack.pop()
        try:
            page = pages.page(number)
            if seen[number]:
                raise FrameError("a page with two parents", "damaged file")
            begin = _begin(number)
            if page[begin] == LEAF:
                seen[number] = 1
                yield number, page
            else:
                children = _children(page, begin, pages.usable, after, up_to)
                seen[number] = 1
                stack.extend(reversed(children))
        except FrameError as error:
            lost.append(Lost(number, after, up_to, error.reason))


def _children(
    page: bytes, begin: int, usable: int, after: int, up_to: int | None
) -> list[tuple[int, int, int | None]]:
    """Return (page, smallest id - 1, largest id) of what hangs below an interior page."""
    if page[begin] != INTERIOR:
        raise FrameError("not a page of a table", "damaged file")
    children: list[tuple[int, int, int | None]] = []
    try:
        (count,) = struct.unpack_from(">H", page, begin + 3)
        (last,) = struct.unpack_from(">I", page, begin + 8)
        taken = 0
        for at in struct.unpack_from(f">{count}H", page, begin + 12):
            (child,) = struct.unpack_from(">I", page, at)
            key, end = varint(page, at + 4)
            children.append((child, after, key))
            after = key
            taken += end - at
    except (struct.error, IndexError):
        raise FrameError("a pointer leads out of its page", "damaged file") from None
    if not adds_up(page, begin, taken, usable):
        raise FrameError("pointers are missing", "damaged file")
    return [*children, (last, after, up_to)]


def adds_up(page: bytes, begin: int, taken: int, usable: int) -> bool:
    """Return whether cells of `taken` bytes are all there are in a page.

    Nothing else shows that a count became too small. Pages with gaps, where rows were deleted, are
    taken as they are.
    """
    first_gap, _, content, fragments = struct.unpack_from(">HHHB", page, begin + 1)
    return bool(first_gap) or taken + fragments == usable - (content or _LARGEST_PAGE)


def count_index_entries(pages: Pages, root: int) -> int | None:
    """Return how many rows the index that begins at `root` has; None if it is damaged."""
    seen = bytearray(pages.count + 1)
    stack, entries = [root], 0
    try:
        while stack:
            number = stack.pop()
            page = pages.page(number)
            count, kind = int.from_bytes(page[3:5], "big"), page[0]
            if seen[number] or kind not in (_INDEX_LEAF, _INDEX_INTERIOR):
                return None
            seen[number] = 1
            entries += count
            if kind == _INDEX_INTERIOR:
                positions = struct.unpack_from(f">{count}H", page, 12)
                stack += [int(struct.unpack_from(">I", page, at)[0]) for at in (8, *positions)]
    except (FrameError, struct.error):
        return None
    return entries


def cell_positions(pages: Pages, number: int, page: bytes) -> tuple[int, ...]:
    """Return where the cells of a leaf page are; raises FrameError."""
    begin = _begin(number)
    try:
        (count,) = struct.unpack_from(">H", page, begin + 3)
        return struct.unpack_from(f">{count}H", page, begin + 8)
    except struct.error:
        raise FrameError(f"{pages.position(number)}: too many rows", "damaged file") from None


def read_cell(page: bytes, at: int, usable: int) -> Cell:
    """Return the cell at offset `at` of a leaf page; raises FrameError if it cannot be one."""
    try:
        payload, at = varint(page, at)
        rowid, at = varint(page, at)
        local = payload if payload <= usable - 35 else local_size(payload, usable)
        overflow = 0
        if local < payload:
            (overflow,) = struct.unpack_from(">I", page, at + local)
        header, content = varint(page, at)
        end = at + header
        types = []
        while content < end:
            kind, content = varint(page, content)
            types.append(kind)
        begin = end - at
        size = sum(map(size_of, types))
    except (IndexError, struct.error):
        raise FrameError("a row leads out of its page", "damaged file") from None
    if content != end or begin > local or at + local > usable or size != payload - begin:
        raise FrameError("a row does not add up", "damaged file")
    return Cell(rowid, tuple(types), end, page[end : at + local], size, overflow)


def read_row(pages: Pages, cell: Cell) -> list[Value]:
    """Return all columns of a row of a small table; raises FrameError."""
    if cell.size > min(LARGEST_ROW, pages.count * pages.page_size):
        raise FrameError(f"a row claims {cell.size} bytes", "damaged file")
    content = bytearray(cell.size)
    content[: len(cell.local)] = cell.local
    if cell.overflow:
        pages.chain(cell.overflow, memoryview(content)[len(cell.local) :])
    values, at = [], 0
    for kind in cell.types:
        values.append(_decode_value(content, at, kind, pages.encoding))
        at += size_of(kind)
    return values


def table_rows(pages: Pages, root: int) -> Iterator[tuple[int, list[Value]]]:
    """Yield (row id, columns) of every row of a small table that can be read."""
    leaves = leaf_pages(pages, root, [], bytearray(pages.count + 1))
    return small_rows(pages, leaves, lambda _: True)


def small_rows(
    pages: Pages, leaves: Iterable[tuple[int, bytes]], wanted: Callable[[Cell], bool]
) -> Iterator[tuple[int, list[Value]]]:
    """Yield (row id, columns) of the wanted rows that can be read; no more than MOST_BYTES."""
    left = MOST_BYTES
    for number, page in leaves:
        try:
            positions = cell_positions(pages, number, page)
        except FrameError:
            continue
        for at in positions:
            try:
                cell = read_cell(page, at, pages.usable)
                if not wanted(cell):
                    continue
                left -= cell.size + _ROW_COST
                if left < 0:
                    return
                yield cell.rowid, read_row(pages, cell)
            except FrameError:
                continue


def orphan_leaves(pages: Pages, seen: bytearray) -> Iterator[tuple[int, bytes]]:
    """Yield the pages outside `seen` that look like leaves of some table."""
    for number in range(1, pages.count + 1):
        if seen[number]:
            continue
        try:
            page = pages.page(number)
        except FrameError:
            continue
        if page[_begin(number)] == LEAF:
            yield number, page


def _decode_value(content: bytes | bytearray | memoryview, at: int, kind: int, text: str) -> Value:
    """Return the column of serial type `kind` at offset `at`."""
    size = size_of(kind)
    if kind in INTEGER_SIZES:
        return int.from_bytes(content[at : at + size], "big", signed=True)
    if kind in (ZERO, ONE):
        return kind - ZERO
    if kind == _REAL:
        return float(struct.unpack_from(">d", content, at)[0])
    if kind >= 12:
        data = bytes(content[at : at + size])
        return data.decode(text, "replace") if kind & 1 else data
    return None


def size_of(kind: int) -> int:
    """Return how many bytes a column of serial type `kind` has."""
    if kind >= 12:
        return (kind - 12) // 2
    return 8 if kind == _REAL else INTEGER_SIZES.get(kind, 0)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length integer at `at` and the offset behind it; raises IndexError."""
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for i in range(at + 1, at + 8):
        byte = data[i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, i + 1
    value = value << 8 | data[at + 8]
    return (value - 2**64 if value >= 2**63 else value), at + 9


def local_size(payload: int, usable: int) -> int:
    """Return how much of a row that does not fit a page is kept in its leaf."""
    least = (usable - 12) * 32 // 255 - 23
    size = least + (payload - least) % (usable - 4)
    return size if size <= usable - 35 else least


def _begin(number: int) -> int:
    return _FILE_HEADER if number == 1 else 0
