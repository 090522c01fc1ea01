import pytest

from edge_agent.data.label_formats.annotations import xml
from edge_agent.data.label_formats.annotations.xml import read_xml
from fleet_model.errors import FrameError

pytestmark = pytest.mark.base

LAUGHS = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))


def read(tmp_path, content):
    (tmp_path / "a.xml").write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_xml(tmp_path / "a.xml", "set/a.xml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "cp1252"])
def test_any_encoding_that_the_file_declares_is_read(tmp_path, encoding):
    declared = "utf-8" if encoding == "utf-8-sig" else encoding
    text = f'<?xml version="1.0" encoding="{declared}"?><annotation><name>größe</name></annotation>'
    assert read(tmp_path, text.encode(encoding)).findtext("name") == "größe"


@pytest.mark.parametrize(
    "head",
    [
        f'<!DOCTYPE a [<!ENTITY a0 "ha">{LAUGHS}]>',
        '<!DOCTYPE a [<!ENTITY a11 SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd">',
        "<!DOCTYPE a>",
    ],
)
def test_a_document_type_is_refused_before_it_is_read(tmp_path, head):
    with pytest.raises(FrameError, match="declares a document type") as caught:
        read(tmp_path, f"{head}<a>&a11;</a>")
    assert caught.value.reason == "bad label file"
    assert "passwd" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "no", "<a>", "<a>&x;</a>", b"\xff\xfe<", '<?xml encoding="gb2312"?><a/>', "\0"]
)
def test_what_is_no_xml_is_named_without_its_directory(tmp_path, content):
    with pytest.raises(FrameError, match=r"^set/a.xml: "):
        read(tmp_path, content)


def test_a_hundred_thousand_levels_do_no_harm(tmp_path):
    root = read(tmp_path, "<a>" * 100_000 + "</a>" * 100_000)
    assert root.find("name") is None


def test_a_small_file_cannot_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(xml, "_MOST_ELEMENTS", 1000)
    assert len(read(tmp_path, f"<a>{'<b/>' * 999}</a>")) == 999
    with pytest.raises(FrameError, match=r"set/a.xml: has more than 1000 elements"):
        read(tmp_path, f"<a>{'<b/>' * 1000}</a>")
