"""Instructions in tables: which columns they are in, what a row asks and answers."""

import json

import pytest

from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog
from fleet_model.tables.columns import Columns
from fleet_model.tables.texts import NO_TEXT, TextTables
from fleet_model.types import Instruction

pytestmark = pytest.mark.base

COMPLETED = [{"prompt": f"{n} plus 1 is", "completion": f" {n + 1}"} for n in range(4)]
ALPACA = [
    {"instruction": "Add.", "input": "1 and 2", "output": "3"},
    {"instruction": "Greet.", "input": "", "output": "Hello"},
]
CHAT = [
    {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Say A."},
            {"role": "assistant", "content": "A"},
        ]
    },
    {"messages": [{"role": "user", "content": "Say B."}]},
]


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def read(path, wanted=Columns(), instructions="answered"):  # noqa: B008
    damage = DamageLog()
    tables = TextTables(path, wanted, instructions=instructions)
    rows = list(tables.rows(damage))
    return tables.columns, rows, damage


def test_a_prompt_is_gone_on_with_its_completion(tmp_path):
    columns, rows, _ = read(write(tmp_path / "t.jsonl", COMPLETED))
    assert (
        columns.words == "prompt in 'prompt' (by its name), answers in 'completion' (by its name)"
    )
    assert rows[1].instruction == Instruction(prompt="1 plus 1 is", answer=" 2")
    assert (rows[1].text, rows[1].label, rows[1].number) == ("1 plus 1 is", " 2", 2)


def test_an_instruction_has_an_input_or_none(tmp_path):
    columns, rows, _ = read(write(tmp_path / "t.jsonl", ALPACA))
    assert columns.form == "instruction"
    assert [row.instruction for row in rows] == [
        Instruction(turns=(("user", "Add.\n\n1 and 2"),), answer="3"),
        Instruction(turns=(("user", "Greet."),), answer="Hello"),
    ]


def test_the_last_message_is_the_answer(tmp_path):
    columns, rows, _ = read(write(tmp_path / "t.jsonl", CHAT))
    assert columns.words == "messages in 'messages' (by its content)"
    assert [row.instruction for row in rows] == [
        Instruction(turns=(("system", "Be short."), ("user", "Say A.")), answer="A"),
        Instruction(turns=(("user", "Say B."),)),
    ]
    assert rows[0].text == "system: Be short.\nuser: Say A."


def test_columns_may_be_named(tmp_path):
    rows = [{"q": "one", "more": "two", "r": "three", "prompt": "x", "answer": "y"}]
    path = write(tmp_path / "t.jsonl", rows)
    columns, (row,), _ = read(path, Columns(("q", "more"), "r"))
    assert row.instruction == Instruction(prompt="one\ntwo", answer="three")
    assert "as named" in columns.words
    for wanted in (Columns(("z",)), Columns((), "z")):
        with pytest.raises(FrameError, match=r"t\.jsonl: has no column 'z'; it has 'q', 'more'"):
            read(path, wanted)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"prompt": "one"}], "not clear which column has the answers; expected messages, instr"),
        ([{"a": "one", "b": "two"}], "not clear which column has what is asked"),
        ([{"messages": [{"role": "robot", "content": "x"}]}], "has what is asked"),
        ([{"messages": "hello"}], "has what is asked"),
    ],
)
def test_a_missing_column_is_told_in_one_line(tmp_path, rows, words):
    with pytest.raises(FrameError, match=words) as error:
        read(write(tmp_path / "t.jsonl", rows))
    assert "\n" not in str(error.value)


def test_prompts_alone_can_be_asked(tmp_path):
    _, (row,), _ = read(write(tmp_path / "t.jsonl", [{"prompt": "one"}]), instructions="asked")
    assert row.instruction == Instruction(prompt="one")


@pytest.mark.parametrize(
    "bad",
    [
        {"prompt": ""},
        {"prompt": None, "completion": "x"},
        {"prompt": ["a"], "completion": "x"},
        {"completion": "x"},
    ],
)
def test_a_row_that_asks_nothing_is_left_out_and_counted(tmp_path, bad):
    _, rows, damage = read(write(tmp_path / "t.jsonl", [*COMPLETED, bad]))
    assert len(rows) == 4
    assert damage.first(NO_TEXT) if hasattr(damage, "first") else NO_TEXT in damage


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "assistant", "content": "A"}],
        [{"role": "user", "content": " "}, {"role": "assistant", "content": "A"}],
        [{"role": "user", "content": ["a"]}],
        [{"role": "tool", "content": "a"}],
        "no list",
    ],
)
def test_messages_that_ask_nothing_are_left_out(tmp_path, messages):
    _, rows, damage = read(write(tmp_path / "t.jsonl", [*CHAT, {"messages": messages}]))
    assert len(rows) == 2
    assert NO_TEXT in damage


def test_a_csv_has_instructions_too(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Question,Reply,split\nhow many?,two,train\nand now?,three,test\n")
    columns, rows, _ = read(path)
    assert [row.instruction.answer for row in rows] == ["two", "three"]
    assert [row.held_out for row in rows] == [False, True]
    assert columns.split == "split"


def test_halves_of_characters_are_replaced(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"prompt": "a\\ud800", "completion": "b\\ud800"}\n')
    _, (row,), _ = read(path)
    assert row.instruction == Instruction(prompt="a?", answer="b?")
