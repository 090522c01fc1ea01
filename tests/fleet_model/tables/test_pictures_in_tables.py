"""Tables whose rows name pictures."""

import json

import pytest

from fleet_model.files.damage import DamageLog
from fleet_model.tables.columns import Columns
from fleet_model.tables.texts import TextTables
from fleet_model.types import Instruction

HUMAN = [{"from": "human", "value": "<image>\nwhat is it ?"}, {"from": "gpt", "value": "a gripper"}]


def rows_of(tmp_path, rows, wanted=Columns(), instructions="answered"):  # noqa: B008
    file = tmp_path / "set" / "records.jsonl"
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tables = TextTables(file, wanted, instructions=instructions)
    return tables, list(tables.rows(DamageLog()))


def test_a_picture_with_its_text_needs_no_question(tmp_path):
    rows = [
        {"text": "two robots", "image": "images/a.jpg", "time": "2026-01-02", "source": "board"},
        {"text": "no picture", "image": ""},
        {"text": "elsewhere", "image": "https://example.com/b.png"},
        {"text": "whole path", "image": "/data/c.webp"},
    ]
    tables, found = rows_of(tmp_path, rows)
    assert [row.instruction for row in found] == [
        Instruction(answer="two robots", image=str(tmp_path / "set" / "images" / "a.jpg")),
        Instruction(answer="no picture"),
        Instruction(answer="elsewhere", image="https://example.com/b.png"),
        Instruction(answer="whole path", image="/data/c.webp"),
    ]
    assert [row.label for row in found] == [row["text"] for row in rows]
    assert tables.columns.words == (
        "picture in 'text' (by its name), answers in 'text' (by its name), pictures in 'image'"
    )


@pytest.mark.parametrize("instructions", ["asked", "answered"])
def test_a_file_is_read_the_same_way_whether_it_is_asked_or_learned(tmp_path, instructions):
    rows = [{"text": "two robots", "image": "a.jpg"}]
    _, (row,) = rows_of(tmp_path, rows, instructions=instructions)
    assert (row.instruction.prompt, row.instruction.answer) == ("", "two robots")


def test_questions_about_one_picture_are_on_one_side_of_the_split(tmp_path):
    rows = [
        {"prompt": "what is it ?", "image": "a.jpg", "answer": "a gripper"},
        {"prompt": "what color ?", "image": "a.jpg", "answer": "red"},
        {"prompt": "what color ?", "image": "b.jpg", "answer": "blue"},
        {"prompt": "what color ?", "answer": "none"},
    ]
    _, found = rows_of(tmp_path, rows)
    assert [row.text for row in found] == ["a.jpg", "a.jpg", "b.jpg", "what color ?"]
    assert found[0].instruction.prompt == "what is it ?"
    assert found[3].instruction.image == ""


def test_llavas_own_conversations_are_read(tmp_path):
    rows = [{"id": "7", "image": "a.jpg", "conversations": HUMAN}]
    tables, (row,) = rows_of(tmp_path, rows)
    assert row.instruction == Instruction(
        turns=(("user", "<image>\nwhat is it ?"),),
        answer="a gripper",
        image=str(tmp_path / "set" / "a.jpg"),
    )
    assert tables.columns.form == "messages"


def test_a_named_column_counts_more(tmp_path):
    rows = [{"text": "what is it ?", "note": "a gripper", "image": "a.jpg"}]
    _, (row,) = rows_of(tmp_path, rows, Columns(("text",), "note"))
    assert row.instruction.prompt == "what is it ?"
    assert row.instruction.answer == "a gripper"
    _, (row,) = rows_of(tmp_path, rows, Columns((), "note"))
    assert (row.instruction.prompt, row.instruction.answer) == ("", "a gripper")


def test_a_column_of_words_names_no_picture(tmp_path):
    tables, (row,) = rows_of(tmp_path, [{"prompt": "say", "image": "a cat", "answer": "cat"}])
    assert tables.columns.image == ""
    assert row.instruction.image == ""


def test_what_else_is_known_of_a_row_is_read_for_profiles(tmp_path):
    rows = [
        {"text": "two robots", "image": "a.jpg", "source": "board", "author": 7, "topic": "pick"},
        {"text": "one", "image": "b.jpg", "author": None},
    ]
    _, found = rows_of(tmp_path, rows)
    assert [row.known for row in found] == [
        {"source": "board", "author": "7", "topic": "pick"},
        {"source": "", "author": "", "topic": ""},
    ]
    _, (row,) = rows_of(tmp_path, [{"prompt": "say", "label": "cat", "user": "ada"}])
    assert row.known == {"author": "ada"}, "the answer is no topic"
