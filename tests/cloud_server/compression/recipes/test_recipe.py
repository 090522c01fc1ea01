"""What a pipeline's file may ask for, and how a wrong one is answered."""

import pytest

from cloud_server.compression.recipes.recipe import (
    Benchmark,
    Distill,
    Prune,
    Quantize,
    Teacher,
    read_recipe,
)
from fleet_model.errors import SettingsError

DATA = '[data]\nfolder = "pictures"\n'


def read(folder, *steps):
    file = folder / "small.toml"
    file.write_text(DATA + "".join(f"[[step]]\n{step}\n" for step in steps))
    return read_recipe(file)


def test_teacher_and_benchmark_are_there_without_a_word(tmp_path):
    found = read(tmp_path, 'do = "distill"\nstudent = "mobilenet-v2"\nwidth = 0.35')
    assert [type(one) for one in found.step] == [Teacher, Distill, Benchmark]
    assert found.step[0].epochs == 0
    assert found.step[1].teaching().temperature == 2.0
    assert found.data.folder == tmp_path / "pictures"


def test_all_steps_in_their_order(tmp_path):
    steps = [
        'do = "teacher"\nepochs = 3', 'do = "distill"', 'do = "prune"', 'do = "distill"',
        'do = "quantize"\nkinds = ["fp16", "int8"]', 'do = "export"',
        'do = "benchmark"\nthreads = 2',
    ]  # fmt: skip
    found = read(tmp_path, *steps)
    assert [one.do for one in found.step] == [
        "teacher", "distill", "prune", "distill", "quantize", "export", "benchmark",
    ]  # fmt: skip
    assert found.step[4].kinds == ("fp16", "int8")
    assert found.step[2].share == 0.3
    assert found.step[-1].threads == 2


def test_what_goes_in_several_rounds_goes_early():
    assert Prune(do="prune", share=0.4).shares() == [0.4]
    found = Prune(do="prune", share=0.4, rounds=2).shares()
    assert found == pytest.approx([0.4 * (1 - 0.5**3), 0.4])


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([], "has no .*step"),
        (['do = "shrink"'], "step 1: do is 'shrink', expected one of teacher, distill"),
        (['do = "quantize"', 'do = "prune"'], r"step 2 \(prune\): cannot come after quantize"),
        (['do = "quantize"', 'do = "quantize"'], "is there already"),
        (['do = "prune"\nshare = 1.0'], "share: expected a number, above 0 and below 1 .got 1.0"),
        (['do = "prune"\nshares = 0.1'], 'unknown key "shares"; did you mean "share"'),
        (['do = "distill"\nwidth = 0.5'], 'width is of the student "mobilenet-v2"'),
        (['do = "teacher"\nnew_head = true'], "new_head has to learn"),
        (['do = "quantize"\nkinds = ["int4"]'], "kinds"),
    ],
)
def test_a_wrong_file_is_told_what_and_where(tmp_path, steps, words):
    with pytest.raises(SettingsError, match=words):
        read(tmp_path, *steps)


def test_other_sections_and_no_file_are_refused(tmp_path):
    file = tmp_path / "small.toml"
    with pytest.raises(SettingsError, match="no such file"):
        read_recipe(file)
    file.write_text(DATA + '[steps]\ndo = "prune"\n')
    with pytest.raises(SettingsError, match='unknown key "steps"'):
        read_recipe(file)
    file.write_text('[data]\n[[step]]\ndo = "prune"\n')
    with pytest.raises(SettingsError, match=r"\[data\]: folder: is missing; expected a path"):
        read_recipe(file)
    file.write_text('data = "pictures"\n[[step]]\ndo = "prune"\n')
    with pytest.raises(SettingsError, match=r"data: expected a section \[data\]"):
        read_recipe(file)
    assert Quantize(do="quantize").kinds == ("int8",)
