"""Data sets as a batch reads them."""

import pytest
from compared_models import picture

from cloud_server.console.compare import data_sets
from cloud_server.console.compare.contenders import PICTURE, TEXT
from cloud_server.console.compare.data_sets import data_sets_in, read_data_set
from fleet_model.errors import FrameError, SettingsError

CLASSES = ("circle", "square", "star")


@pytest.fixture
def folder(tmp_path):
    for name in ("set/star/1.png", "set/star/2.JPG", "set/other/3.png", "set/star/notes.txt"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(file.suffix.lower()) if file.suffix != ".txt" else b"x")
    return tmp_path / "set"


def told(data):
    return [(one.name, one.truth) for one in data.inputs]


def test_a_folder_names_the_class_of_its_pictures(folder):
    data = read_data_set(folder, PICTURE, CLASSES)
    assert told(data) == [("other/3.png", ""), ("star/1.png", "star"), ("star/2.JPG", "star")]
    assert (data.name, data.of) == ("set", 3)
    assert data.inputs[1].read() == (folder / "star" / "1.png").read_bytes()


def test_a_manifest_says_which_pictures_and_what_they_are(folder):
    rows = "star/1.png,square\nother/3.png,\nstar/gone.png,star\n,star\n"
    (folder / "manifest.csv").write_text("file,label\n" + rows)
    data = read_data_set(folder, PICTURE, CLASSES)
    assert told(data) == [("star/1.png", "square"), ("other/3.png", "")]
    assert data.left_out == "2 x row without its picture, first manifest.csv line 4"


def test_neither_a_manifest_nor_a_link_leads_out_of_the_folder(folder):
    outside = folder.parent / "secret.png"
    outside.write_bytes(picture())
    (folder / "star" / "link.png").symlink_to(outside)
    assert len(read_data_set(folder, PICTURE, CLASSES).inputs) == 3
    (folder / "manifest.csv").write_text(f"file,label\n../secret.png,star\n{outside},star\n")
    with pytest.raises(SettingsError, match="set: has no picture"):
        read_data_set(folder, PICTURE, CLASSES)


def test_tables_of_texts_have_their_labels(tmp_path):
    rows = "a great day,good\nrain again,bad\nso,what\n"
    (tmp_path / "texts.csv").write_text("text,label\n" + rows)
    data = read_data_set(tmp_path / "texts.csv", TEXT, ("bad", "good"))
    assert [(one.text, one.truth) for one in data.inputs] == [
        ("a great day", "good"), ("rain again", "bad"), ("so", ""),
    ]  # fmt: skip
    assert data.inputs[0].name == "texts.csv line 2"
    assert data.inputs[0].read() == b"a great day"
    (tmp_path / "texts.jsonl").write_text('{"text": "so", "label": "bad"}\n{"text": \n')
    data = read_data_set(tmp_path / "texts.jsonl", TEXT, ("bad", "good"))
    assert data.left_out == "1 x damaged row, first texts.jsonl line 2"


def test_of_a_large_folder_some_are_taken_from_all_of_it(folder, monkeypatch):
    monkeypatch.setattr(data_sets, "MOST_INPUTS", 2)
    data = read_data_set(folder, PICTURE, CLASSES)
    assert [one.name for one in data.inputs] == ["other/3.png", "star/2.JPG"]
    assert data.of == 3


@pytest.mark.parametrize("takes", [PICTURE, TEXT])
def test_a_folder_without_inputs_is_refused(tmp_path, takes):
    (tmp_path / "set").mkdir()
    with pytest.raises(SettingsError, match=r"^set: "):
        read_data_set(tmp_path / "set", takes, CLASSES)
    (tmp_path / "set" / "manifest.csv").write_bytes(b"file\n\xff\xfe,\n")
    with pytest.raises(SettingsError, match=r"^set: "):
        read_data_set(tmp_path / "set", takes, CLASSES)


def test_a_file_that_is_too_long_or_gone_is_not_read(folder):
    data = read_data_set(folder, PICTURE, CLASSES)
    with (folder / "star" / "1.png").open("ab") as stream:
        stream.truncate(21 << 20)
    (folder / "star" / "2.JPG").unlink()
    with pytest.raises(FrameError, match="this has 21 MB, at most 20 MB"):
        data.inputs[1].read()
    with pytest.raises(FrameError, match="cannot be read"):
        data.inputs[2].read()


def test_what_can_be_chosen_is_not_hidden_and_not_elsewhere(folder):
    (folder / ".hidden").mkdir()
    (folder / "elsewhere").symlink_to("/")
    (folder / "circle").symlink_to(folder / "circle")
    assert list(data_sets_in(folder)) == ["other", "star"]
    assert data_sets_in(folder / "nothing") == {}
