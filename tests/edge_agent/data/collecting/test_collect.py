"""Exports become a table and pictures; what is left out is counted."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.data.collecting import collect as module
from edge_agent.data.collecting.collect import Export, collect, export_of
from edge_agent.examples.texts.text_store import open_texts
from fleet_model.errors import FrameError, SettingsError


def picture(file, shade=90):
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), np.full((8, 8, 3), shade, np.uint8))
    return file


def write(file, value):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(value if isinstance(value, str) else json.dumps(value))
    return file


def rows(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def kinds(log):
    return {one.kind: one.count for one in log.all()}


@pytest.fixture
def export(tmp_path):
    """Return an export with one of everything."""
    folder = tmp_path / "board"
    picture(folder / "photos" / "a.png")
    (folder / "photos" / "cut.png").write_bytes((folder / "photos" / "a.png").read_bytes()[:-9])
    picture(tmp_path / "secret.png", 200)
    posts = [
        {"text": "two robots", "photo": "photos/a.png", "date": "2026-12-03", "author": "ada"},
        {"text": "Two  ROBOTS ", "photo": "photos/a.png", "author": "bob"},
        {"text": "two robots", "author": "bob"},
        {"text": "", "photo": "photos/a.png"},
        {"text": "cut", "photo": "photos/cut.png"},
        {"text": "gone", "photo": "photos/none.png"},
        {"text": "far", "photo": "https://example.com/a.png"},
        {"text": "out", "photo": "../secret.png"},
        {"text": "x" * 100_001},
    ]
    write(folder / "result.json", {"name": "Board", "messages": posts})
    return folder


def test_records_are_kept_once_and_what_is_left_out_is_counted(export, tmp_path):
    told = collect([Export(export, "")], tmp_path / "out")
    assert (told.found, told.written, told.pictures) == (9, 2, 1)
    first, second = rows(tmp_path / "out")
    name = first.pop("image")
    assert first == {
        "text": "two robots", "time": "2026-12-03T00:00:00Z", "source": "board", "author": "ada"
    }  # fmt: skip
    assert second["image"] == second["time"] == ""
    assert (tmp_path / "out" / name).read_bytes() == (export / "photos" / "a.png").read_bytes()
    assert [file.name for file in (tmp_path / "out" / "images").iterdir()] == [name[7:]]
    assert kinds(told.left_out) == {
        "already there": 1,
        "without a text": 1,
        "with a broken picture": 1,
        "with a picture that is not there": 1,
        "with a picture at an address": 1,
        "with a picture outside of the export": 1,
        "longer than 100000 characters": 1,
    }
    assert {one.begins for one in told.left_out.all()} >= {"result.json object 2"}
    assert sum(one.count for one in told.losses) == 3, "empty and double records are no loss"


def test_a_link_out_of_the_export_is_not_followed(export, tmp_path):
    (export / "photos" / "link.png").symlink_to(tmp_path / "secret.png")
    write(export / "result.json", [{"text": "out", "photo": "photos/link.png"}])
    told = collect([Export(export, "")], tmp_path / "out")
    assert kinds(told.left_out) == {"with a picture outside of the export": 1}


@pytest.mark.parametrize("name", ["a\0b.jpg", "x\ud800.jpg", "x" * 5000 + ".jpg", "loop/x.jpg"])
def test_a_picture_with_a_name_that_no_file_has_is_not_there(tmp_path, name):
    write(tmp_path / "x" / "a.json", [{"text": "a", "image": name}])
    (tmp_path / "x" / "loop").symlink_to("loop")
    told = collect([Export(tmp_path / "x", "")], tmp_path / "out")
    assert kinds(told.left_out) == {"with a picture that is not there": 1}


def test_files_with_odd_names_are_told_in_one_line(tmp_path):
    file = write(tmp_path / "x" / "a\n\udcff.json", '[{"text": "a"}, {"text": ""}')
    told = collect([Export(file, "")], tmp_path / "out")
    lines = [*told.sources, *(one.begins for one in (*told.left_out.all(), *told.damage.all()))]
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


def test_pictures_of_somebody_else_stay(export, tmp_path):
    mine = picture(tmp_path / "out" / "images" / "holiday.jpg")
    collect([Export(export, "")], tmp_path / "out")
    assert mine.is_file()


def test_what_is_collected_is_what_a_model_that_sees_learns_from(export, tmp_path):
    collect([Export(export, "")], tmp_path / "out")
    examples = open_texts([str(tmp_path / "out" / "records.jsonl")], (), answers=True, held_out=0)
    one, other = (example.raw for example in examples.examples())
    assert one.answer == other.answer == "two robots"
    assert sorted(Path(raw.image).is_file() for raw in (one, other)) == [False, True]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.json", '[{"text": "a"}, {"text": "b"}]', 2),
        ("a.jsonl", '{"text": "a"}\n\n{"text": "b"}\n', 2),
        ("a.json", '{"text": "a"}', 1),
        ("a.js", 'window.YTD.tweets.part0 = [{"tweet": {"full_text": "a"}}];', 1),
        ("a.json", '{"data": {"posts": [{"text": "a"}, {"text": "b"}], "users": [{"n": 1}]}}', 2),
        ("a.json", '\ufeff{"orderedItems": [{"object": {"content": "a"}}, {"text": "b"}]}', 2),
    ],
)
def test_files_of_any_layout_are_read(tmp_path, name, content, found):
    file = write(tmp_path / "x" / name, content)
    told = collect([Export(file, "")], tmp_path / "out")
    assert (told.found, told.written, told.damage.all()) == (found, found, ())
    assert rows(tmp_path / "out")[0]["text"] == "a"


def test_damage_costs_what_is_damaged_alone(tmp_path):
    folder = tmp_path / "x"
    write(folder / "a.jsonl", '{"text": "a"}\n{"text": \n["b"]\n{"text": "c"}\n')
    write(folder / "b.json", '[{"text": "d"}, {"text"')
    write(folder / "c.json", "no JSON")
    write(folder / "d.json", '{"profile": 1}')
    told = collect([Export(folder, "")], tmp_path / "out")
    assert [row["text"] for row in rows(tmp_path / "out")] == ["a", "c", "d"]
    assert kinds(told.damage) == {"damaged row": 4}
    assert kinds(told.left_out) == {"without a text": 1}


def test_a_picture_is_found_from_its_file_or_from_above(tmp_path):
    folder = tmp_path / "instagram"
    picture(folder / "media" / "a.jpg")
    picture(folder / "your_activity" / "near.png", 10)
    posts = [{"title": "one", "uri": "media/a.jpg"}, {"title": "two", "uri": "near.png"}]
    write(folder / "your_activity" / "posts_1.json", posts)
    assert collect([Export(folder, "")], tmp_path / "out").pictures == 2
    assert {Path(row["image"]).suffix for row in rows(tmp_path / "out")} == {".jpg", ".png"}


def test_a_source_is_named_said_or_that_of_the_export(tmp_path):
    said = write(tmp_path / "x.json", [{"text": "a", "platform": "forum"}, {"text": "b"}])
    told = collect([Export(said, "")], tmp_path / "out")
    assert told.sources == {"forum": 1, "x": 1}
    assert collect([Export(said, "board")], tmp_path / "out").sources == {"board": 2}
    assert export_of(f"board={said}") == Export(said, "board")
    assert export_of(str(said)) == Export(said, "")


def test_the_same_call_ends_with_the_same_folder_and_old_pictures_go(export, tmp_path):
    out = tmp_path / "out"
    collect([Export(export, "")], out)
    before = {file: file.read_bytes() for file in out.rglob("*.*")}
    collect([Export(export, "")], out)
    assert {file: file.read_bytes() for file in out.rglob("*.*")} == before
    write(export / "result.json", [{"text": "a"}])
    collect([Export(export, "")], out)
    assert list((out / "images").iterdir()) == []


def test_pictures_of_others_stay_whatever_they_are_called(export, tmp_path):
    own = [picture(tmp_path / "out" / "images" / name) for name in ("a.png", f"{'0' * 32}.png")]
    collect([Export(export, "")], tmp_path / "out")
    assert all(file.is_file() for file in own)


def test_what_a_kill_has_left_aside_goes(export, tmp_path):
    out = tmp_path / "out"
    for aside in (out / ".records.jsonl.99999999.new", out / "images" / ".a.png.99999999.new"):
        write(aside, "half")
    collect([Export(export, "")], out)
    assert list(out.rglob(".*.new")) == []


@pytest.mark.parametrize("content", ["", "\n", "[]"])
def test_a_file_with_nothing_in_it_is_told(tmp_path, content):
    file = write(tmp_path / "x.json", content)
    told = collect([Export(file, "")], tmp_path / "out")
    assert kinds(told.damage) == {"file without records": 1}


def test_a_picture_that_is_not_read_is_not_called_broken(tmp_path):
    file = write(tmp_path / "x.json", [{"text": "a", "image": "a.gif"}])
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    told = collect([Export(file, "")], tmp_path / "out")
    assert [one.kind for one in told.losses] == ["with a picture of another format"]


def test_a_call_that_dies_leaves_the_old_table(export, tmp_path, monkeypatch):
    out = tmp_path / "out"
    write(export / "result.json", [{"text": "a"}])
    collect([Export(export, "")], out)

    def dies(thing):
        raise MemoryError

    monkeypatch.setattr(module, "post_of", dies)
    with pytest.raises(MemoryError):
        collect([Export(export, "")], out)
    assert [row["text"] for row in rows(out)] == ["a"]


def test_an_export_that_is_none_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FrameError, match="empty: has no JSON"):
        collect([Export(tmp_path / "empty", "")], tmp_path / "out")
    with pytest.raises(FrameError, match="none: there is no such export"):
        collect([Export(tmp_path / "none", "")], tmp_path / "out")
    with pytest.raises(SettingsError, match="is in the export"):
        collect([Export(tmp_path, "")], tmp_path / "out")
