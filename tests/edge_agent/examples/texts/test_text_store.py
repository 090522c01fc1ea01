"""Examples of texts by value."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from edge_agent.examples.source import SourceSpec, source_of
from edge_agent.examples.texts.text_store import row_of_key
from edge_agent.examples.texts.told import read_told, told_lines
from edge_agent.robot.settings import load_settings
from fleet_model.errors import FrameError, SettingsError

pytestmark = pytest.mark.base

LABELS = ["billing", "repair"]


def tickets(count=40):
    kinds = ("billing", "repair")
    return [(f"ticket number {n}, please help", kinds[n % 2]) for n in range(count)]


def write(path, rows, head="text,label"):
    lines = [head, *(",".join(f'"{cell}"' for cell in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def open_store(tmp_path):
    """Return what opens the source that an agent.toml names."""

    def make(paths, labels=LABELS, more="", **arguments):
        toml = tmp_path / "agent.toml"
        listed = ", ".join(f'"{path}"' for path in paths)
        toml.write_text(
            f'[server]\naddress = "localhost:1"\n[examples]\nsource = "texts"\n'
            f"paths = [{listed}]\n{more}\n"
        )
        spec = source_of(load_settings(toml, {}), **arguments)
        spec = SourceSpec(**json.loads(json.dumps({"name": spec.name, "options": spec.options})))
        return spec.open(labels)

    return make


def test_an_example_is_text_label_and_a_key_that_stays(open_store, tmp_path):
    path = write(tmp_path / "t.csv", tickets())
    store = open_store([path])
    examples = list(store.examples())
    assert [(one.raw, one.label) for one in examples] == tickets()
    assert len({one.key for one in examples}) == 40
    assert all(row_of_key(one.key) == ("t.csv", n) for n, one in enumerate(examples, 2))
    assert 2 <= sum(one.held_out for one in examples) <= 16
    again = list(open_store([path]).examples())
    assert [(one.key, one.held_out) for one in again] == [(e.key, e.held_out) for e in examples]
    path.write_text(path.read_text().replace("number 7,", "number 77,"))
    changed = [one.key for one in store.examples()]
    assert [new == old.key for new, old in zip(changed, examples, strict=True)].count(False) == 1
    assert row_of_key("drawer/3") == ("drawer/3", None)


def test_what_is_left_out_is_counted_by_reason_with_its_first_row(open_store, tmp_path, caplog):
    rows = [
        *tickets(10), ("", "billing"), ("who knows", ""), ("mistyped", "Billing"), ("also", "ber"),
        ("Both", "billing"), ("both ", "repair"), ("copy of one", "repair"),
        ("copy of one", "repair"), ("a text as label", "x" * 65),
    ]  # fmt: skip
    path = write(tmp_path / "t.csv", rows)
    path.write_text(path.read_text() + '"stray,billing\none,two,three\nlast one,repair\n')
    store = open_store([path])
    counts = Counter()
    with caplog.at_level("INFO"):
        spec = SourceSpec(name="texts", options={"paths": [str(path)]})
        examples = list(spec.examples(LABELS, counts))
        list(store.examples())
    assert len(examples) == 10 + 2 + 1
    assert len({one.key for one in examples}) == 13
    assert store.left_out == {
        "without a text": 1,
        "without a label": 1,
        "labelled 'Billing', which is not learned (did you mean 'billing'?)": 1,
        "labelled 'ber', which is not learned": 1,
        "of a text that has several labels": 2,
        "labelled with more than 64 characters": 1,
        "damaged row": 1,
        "wrong number of fields": 1,
    }
    assert store.places["of a text that has several labels"] == "t.csv line 16"
    assert store.places["damaged row"] == "t.csv line 21"
    assert counts == {"unreadable": 3, "unlabelled": 1, "unknown_label": 3, "other": 2}
    assert "damaged row: first t.csv line 21" in caplog.text
    assert "t.csv: text in 'text' (by its name), labels in 'label' (by" in caplog.text
    assert not [text for text, _ in rows if text and text in caplog.text]
    assert "xxxx" not in caplog.text


def test_a_column_of_many_unknown_labels_keeps_few_reasons(open_store, tmp_path):
    path = write(tmp_path / "t.csv", [(f"text number {n}", f"n{n}") for n in range(1000)])
    store = open_store([path])
    assert list(store.examples()) == []
    assert len(store.left_out) <= 203
    assert sum(store.left_out.values()) == 1000


def test_other_words_for_labels_are_taken_for_them(open_store, tmp_path):
    path = write(tmp_path / "t.csv", [(text, label.title()) for text, label in tickets()])
    store = open_store([path], more='aliases = {Billing = "billing", Repair = "repair"}')
    assert Counter(one.label for one in store.examples()) == {"billing": 20, "repair": 20}
    assert store.renamed == {"'Billing' as 'billing'": 20, "'Repair' as 'repair'": 20}


def test_files_of_splits_decide_and_a_text_is_never_on_both_sides(open_store, tmp_path):
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.csv", tickets(20))
    write(tmp_path / "set" / "test.csv", tickets(25)[15:])
    store = open_store([tmp_path / "set"])
    examples = list(store.examples())
    held = {one.raw for one in examples if one.held_out}
    assert len(examples) == 15 + 10
    assert held == {text for text, _ in tickets(25)[15:]}
    assert store.left_out == {"of a text that is held out, too": 5}
    assert held.isdisjoint(one.raw for one in examples if not one.held_out)


def test_without_labels_of_a_fleet_every_text_is_an_example(open_store, tmp_path):
    rows = [*tickets(6), ("no label", ""), ("ticket number 0, please help", "repair")]
    store = open_store([write(tmp_path / "t.csv", rows)], labels=())
    labels = [one.label for one in store.examples()]
    assert labels == ["repair", "billing", "repair", "billing", "repair", None]
    bare = tmp_path / "bare.jsonl"
    bare.write_text('{"text": "once upon a time"}\n{"text": "there was a robot"}\n')
    assert [one.label for one in open_store([bare], labels=()).examples()] == [None, None]


def test_columns_are_named_in_the_options(open_store, tmp_path):
    rows = [(f"subject {n}", f"my long body {n}", "x", LABELS[n % 2]) for n in range(10)]
    path = write(tmp_path / "t.csv", rows, "subject,body,label,queue")
    store = open_store([path], more='options = {text = ["subject", "body"], label = "queue"}')
    assert next(store.examples()).raw == "subject 0\nmy long body 0"
    assert store.words == "text in 'subject' and 'body' (as named), labels in 'queue' (as named)"
    store = open_store([path])  # the fleet's labels tell
    assert [one.label for one in store.examples()] == LABELS * 5
    with pytest.raises(FrameError, match=r"^t\.csv: has no column 'bod'; it has 'subject', 'body"):
        list(open_store([path], more='options = {text = "bod"}').examples())
    with pytest.raises(SettingsError, match=r"cannot be opened with the options .*'txt'"):
        open_store([path], more='options = {txt = "body"}')
    with pytest.raises(SettingsError, match="encoding 'utf-9' is not known"):
        open_store([path], more='options = {encoding = "utf-9"}')


def test_a_label_column_that_is_not_clear_is_asked_for(open_store, tmp_path):
    rows = [(f"long text number {n}", "a", "d") for n in range(10)] * 2
    rows = [(text, "ab"[n % 2], "de"[n % 2]) for n, (text, *_) in enumerate(rows)]
    path = write(tmp_path / "t.csv", rows, "text,language,channel")
    with pytest.raises(
        FrameError, match=r"which column has the labels; name it: .*'language', 'ch"
    ):
        list(open_store([path]).examples())


def test_two_paths_of_one_name_have_different_keys_and_one_bad_path_costs_only_itself(
    open_store, tmp_path
):
    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(write(tmp_path / folder / "t.csv", tickets(10)))
    store = open_store([*paths, tmp_path / "gone.csv"])
    assert len({one.key for one in store.examples()}) == 20
    assert store.left_out == {"unreadable table": 1}
    with pytest.raises(FrameError, match=r"^gone\.csv: no such file or folder$"):
        list(open_store([tmp_path / "gone.csv"]).examples())


def test_what_was_found_is_kept_for_the_status_unless_only_read(open_store, tmp_path):
    path = write(tmp_path / "t.csv", [*tickets(), ("no label", "")])
    list(open_store([path], read_only=True).examples())
    file = tmp_path / "state" / "texts.json"
    assert read_told(file) == {}
    file.parent.mkdir()
    examples = list(open_store([path]).examples())
    held_out = sum(one.held_out for one in examples)
    assert list(told_lines(read_told(file))) == [
        "texts    t.csv: text in 'text' (by its name), labels in 'label' (by the fleet's labels)",
        f"texts    {40 - held_out} to learn from, {held_out} held out; left out: 1 without a label",
    ]
    file.write_text("[")
    assert list(told_lines(read_told(file))) == []


def test_a_fleet_of_boxes_is_told(tmp_path):
    with pytest.raises(SettingsError, match="this fleet learns boxes in pictures"):
        SourceSpec(name="texts", options={"paths": []}).open(["cup"], boxes=True)


@pytest.mark.slow
def test_many_rows_are_read_in_little_memory(tmp_path):
    """Of a million rows, by hand: 18 s of one core, and 79 MB more than without."""
    path = tmp_path / "big.csv"
    with path.open("w") as out:
        out.write("text,label\n")
        out.writelines(f'"ticket {n}, it says {n * 7919}",k{n % 5}\n' for n in range(60_000))
    program = f"""
import resource
from edge_agent.examples.source import SourceSpec
labels = ["k0", "k1", "k2", "k3", "k4"]
import edge_agent.examples.texts.text_store
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
spec = SourceSpec(name="texts", options={{"paths": [{str(path)!r}]}})
count = sum(1 for _ in spec.examples(labels))
print(count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    count, megabytes = map(int, done.stdout.split())
    assert count == 60_000
    assert megabytes < 15  # as a list of examples they take 27


def instructions(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def test_instructions_with_answers_are_examples(tmp_path):
    rows = [{"prompt": f"{n} plus 1 is", "completion": f" {n + 1}"} for n in range(40)]
    rows += [{"prompt": "0 plus 1 is", "completion": " one"}, {"prompt": "2 plus 2 is"}]
    path = instructions(tmp_path / "t.jsonl", rows)
    store = SourceSpec(name="texts", options={"paths": [str(path)]}).open(answers=True)
    found = list(store.examples())
    assert len(found) == 41, "another answer to the same question is no contradiction"
    assert {one.raw.answer for one in found} >= {" 1", " one"}
    assert all(one.label is None for one in found)
    assert len({one.key for one in found}) == 41
    assert 2 <= sum(one.held_out for one in found) <= 16
    same = [one.held_out for one in found if one.raw.prompt == "0 plus 1 is"]
    assert len(set(same)) == 1, "one question is on one side"
    assert store.left_out == {"without an answer": 1}
    assert "t.jsonl line 42" in store.places["without an answer"]


def test_frames_are_no_instructions(tmp_path):
    spec = SourceSpec(name="frames", options={"paths": [str(tmp_path)]})
    with pytest.raises(SettingsError, match="this fleet learns answers to instructions"):
        spec.open(answers=True)
