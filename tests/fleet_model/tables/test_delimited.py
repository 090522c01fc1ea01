"""CSV and TSV by value: quotes, delimiters, encodings, and rows that are none."""

import csv
import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.tables import delimited, text_file
from fleet_model.tables.delimited import DelimitedTable

pytestmark = pytest.mark.base


@pytest.fixture
def read(tmp_path):
    """Return (rows, damage, guessed) of a file with some content."""

    def call(content, name="tickets.csv", encoding=""):
        content = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(content)
        damage, guessed = DamageLog(), DamageLog()
        table = DelimitedTable(tmp_path / name, name, None, encoding, guessed)
        rows = [(row.number, row.cells) for row in table.rows(damage)]
        return rows, {loss.kind: (loss.count, loss.begins) for loss in damage.all()}, guessed

    return call


def test_the_first_line_names_the_columns_and_a_row_has_the_line_where_it_begins(read):
    rows, damage, _ = read(
        'id,text,label\n1,"two\nlines, and ""quotes""",a\n\n2,five inch 5" disk,b'
    )
    assert rows == [
        (2, {"id": "1", "text": 'two\nlines, and "quotes"', "label": "a"}),
        (5, {"id": "2", "text": 'five inch 5" disk', "label": "b"}),
    ]
    assert damage == {}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_that_of_the_first_line(read, delimiter):
    rows, damage, _ = read(f'text{delimiter}label\r\n"a{delimiter}b, c; d"{delimiter}x\r\n')
    text = f"a{delimiter}b, c; d"
    if delimiter == "\t":  # a tab within quotes is taken for the next cell: two rows in one
        assert (rows, damage) == ([], {"wrong number of fields": (1, "tickets.csv line 2")})
    else:
        assert (rows, damage) == ([(2, {"text": text, "label": "x"})], {})


def test_commas_belong_to_the_text_where_there_is_one_column(read):
    rows, _, _ = read("text\nhello, world; and all\n" + '"quoted, too"\n')
    assert [cells["text"] for _, cells in rows] == ["hello, world; and all", "quoted, too"]


def test_the_line_of_a_spreadsheet_is_no_head(read):
    rows, _, _ = read("sep=;\ntext;label\na, b;x\n")
    assert rows == [(3, {"text": "a, b", "label": "x"})]


@pytest.mark.parametrize(
    ("codec", "words"),
    [("utf-8", 0), ("utf-8-sig", 0), ("utf-16", 0), ("utf-16-le", 0), ("latin-1", 2)],
)
def test_encodings_are_found_out_and_a_guess_is_told(read, codec, words):
    rows, damage, guessed = read("text,label\nnaïve café,é\nplain,b\nÀ vous,c\n".encode(codec))
    assert [cells["text"] for _, cells in rows] == ["naïve café", "plain", "À vous"]
    assert (rows[0][1]["label"], damage) == ("é", {})
    assert sum(loss.count for loss in guessed.all()) == words
    if words:
        assert guessed.sentence().endswith("first tickets.csv line 2; read as Windows-1252")


def test_an_encoding_that_is_named_is_taken(read):
    rows, _, guessed = read("text\nčeština\n".encode("cp1250"), encoding="cp1250")
    assert (rows, bool(guessed)) == ([(2, {"text": "čeština"})], False)


def test_gzip_is_read_and_a_cut_file_gives_what_is_there(read):
    text = "text,label\n" + "".join(f"number {n * 7919 % 10007},b\n" for n in range(5000))
    rows, damage, _ = read(gzip.compress(text.encode()), "t.csv.gz")
    assert (len(rows), damage) == (5000, {})
    rows, damage, _ = read(gzip.compress(text.encode())[:-3000], "t.csv.gz")
    assert 0 < len(rows) < 5000
    assert damage["cut file"][0] == 1
    with pytest.raises(FrameError, match=r"^t\.csv\.gz: is no whole gzip file$"):
        read(b"text,label\na,b\n", "t.csv.gz")


def test_a_stray_quote_costs_one_row_and_not_the_rest_of_the_file(read):
    content = 'text,label\nfine,a\n"stray,b\nnext,c\n"good, one",d\nlast,e\n'
    rows, damage, _ = read(content)
    assert [(number, cells["label"]) for number, cells in rows] == [
        (2, "a"), (4, "c"), (5, "d"), (6, "e"),
    ]  # fmt: skip
    assert damage == {"damaged row": (1, "tickets.csv line 3")}


def test_a_quote_that_nothing_closes_costs_one_row(read):
    rows, damage, _ = read('text,label\n"stray,b\nnext,c\nlast,d\n')
    assert [cells["label"] for _, cells in rows] == ["c", "d"]
    assert damage == {"damaged row": (1, "tickets.csv line 2")}


def test_lines_with_tabs_are_read_without_quotes_where_quotes_do_not_fit(read):
    content = 'text\tlabel\n"Great" he said\ta\n"stray\tb\nplain\tc\n"well"\td\n'
    rows, damage, _ = read(content, "t.tsv")
    assert [tuple(cells.values()) for _, cells in rows] == [
        ('"Great" he said', "a"), ('"stray', "b"), ("plain", "c"), ("well", "d"),
    ]  # fmt: skip
    assert damage == {}


def test_a_wrong_number_of_fields_is_counted_with_its_first_line_and_empty_ends_are_cut(read):
    rows, damage, _ = read("text,label\na,b,,\na\na,b,c\nd,e\n")
    assert [number for number, _ in rows] == [2, 5]
    assert damage == {"wrong number of fields": (2, "tickets.csv line 3")}


def test_a_row_without_an_end_is_left_out_in_bounded_memory(read, monkeypatch):
    for module in (delimited, text_file):
        monkeypatch.setattr(module, "LONGEST", 100)
    long = "x" * 350
    rows, damage, _ = read(f"text,label\n{long},a\nok,b\n" + '"' + "y,z\n" * 200)
    assert (rows[0], len(rows)) == ((3, {"text": "ok", "label": "b"}), 200)
    assert [count for count, _ in damage.values()] == [1, 1]
    assert set(damage) == {delimited.TOO_LONG, "damaged row"}


@pytest.mark.parametrize("content", ["x" * 350 + ",a\nok,b\n", "sep=,\n" + "x" * 96, "\n" * 350])
def test_a_first_line_without_an_end_names_no_columns(read, monkeypatch, content):
    for module in (delimited, text_file):
        monkeypatch.setattr(module, "LONGEST", 100)
    with pytest.raises(FrameError, match=r"^tickets\.csv: its first line does not name the col"):
        read(content)


def test_columns_of_one_name_and_without_a_name_are_told_apart(read):
    rows, _, _ = read("text,,text,label\na,b,c,d\n")
    assert list(rows[0][1]) == ["text", "column 2", "text.1", "label"]


@pytest.mark.parametrize("content", ["", "\n\n", '"text,label\n', f"{'a text ' * 20},b\n", ",,\n"])
def test_a_file_whose_first_line_names_no_columns_is_refused(read, content):
    with pytest.raises(FrameError, match=r"^tickets\.csv: its first line does not name the col"):
        read(content)


CELLS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\x1f"), max_size=30)


@given(
    table=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=8),
    delimiter=st.sampled_from(",;|"),
    ends=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    codec=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_the_csv_module_writes_is_read_cell_by_cell(
    tmp_path_factory, table, delimiter, ends, quoting, codec
):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=ends, quoting=quoting)
    writer.writerows([("id", "text", "label"), *table])
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_bytes(text.getvalue().encode(codec))
    damage = DamageLog()
    rows = [tuple(row.cells.values()) for row in DelimitedTable(path, "t.csv").rows(damage)]
    bare = quoting == csv.QUOTE_MINIMAL and any("\r" in cell for row in table for cell in row)
    if not (bare and ends == "\n"):  # Python 3.10 leaves a lone carriage return unquoted
        assert rows == table
        assert not damage


@given(content=st.binary(max_size=300))
def test_any_bytes_give_rows_or_one_clear_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "t.csv"
    path.write_bytes(b"text,label\n" + content)
    for row in DelimitedTable(path, "t.csv").rows(DamageLog()):
        assert list(row.cells) == ["text", "label"]
