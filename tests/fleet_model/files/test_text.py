import pytest

from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.files.text import encoding_of, read_text, text_lines

pytestmark = pytest.mark.base

TEXT = "1 größe\r\n2 日本\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        "\ufeff".encode("utf-16-be") + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
    ],
)
def test_a_text_is_the_same_in_every_encoding(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    damage = DamageLog()
    assert read_text(tmp_path / "a.txt", "set/a.txt", damage) == TEXT
    assert list(text_lines(tmp_path / "a.txt", damage)) == ["1 größe\r\n", "2 日本\n"]
    assert not damage
    assert content.decode(encoding_of(content[:4])) == TEXT


def test_an_old_windows_text_is_read_and_said(tmp_path):
    content = "a;größe\nb;klein\n".encode("cp1252")
    (tmp_path / "a.csv").write_bytes(content)
    damage = DamageLog()
    assert read_text(tmp_path / "a.csv", "set/a.csv", damage) == "a;größe\nb;klein\n"
    assert list(text_lines(tmp_path / "a.csv", damage)) == ["a;größe\n", "b;klein\n"]
    (found,) = damage.all()
    assert (found.kind, found.count) == ("text not in UTF-8", 2)
    assert found.begins == "set/a.csv; read as Windows-1252"


def test_halves_of_characters_in_file_names_survive(tmp_path):
    line = "a\udc80\ud83d.jpg\n"
    damage = DamageLog()
    (tmp_path / "a.csv").write_bytes(line.encode("utf-8", "surrogatepass"))
    assert list(text_lines(tmp_path / "a.csv", damage)) == [line]
    assert not damage


def test_what_is_no_text_is_named_without_its_directory(tmp_path):
    with pytest.raises(FrameError, match=r"^set/a.txt: No such file"):
        read_text(tmp_path / "a.txt", "set/a.txt", DamageLog())
    with (tmp_path / "b.txt").open("wb") as stream:
        stream.truncate((64 << 20) + 1)
    with pytest.raises(FrameError, match=r"^set/b.txt: has more than 64 MiB"):
        read_text(tmp_path / "b.txt", "set/b.txt", DamageLog())
    (tmp_path / "c.txt").write_bytes(b"\xff\xfea")  # UTF-16 that ends in the middle
    assert read_text(tmp_path / "c.txt", "set/c.txt", DamageLog()) == "\ufffd"
