"""A grid of recipes, and which model is picked: by value."""

import pytest

from cloud_server.compression.recipes.measure import Measure
from cloud_server.compression.recipes.recipe import read_recipe
from cloud_server.compression.recipes.sweep import Limits, limits_of, parsed, picked, variants
from fleet_model.errors import SettingsError, WithheldError

RECIPE = """
[data]
folder = "pictures"
[sweep]
"prune.share" = [0.3, 0.5]
[[step]]
do = "distill"
[[step]]
do = "prune"
[[step]]
do = "distill"
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "small.toml").write_text(RECIPE)
    return read_recipe(tmp_path / "small.toml")


def test_each_combination_is_a_recipe_and_says_what_was_chosen(recipe):
    found = variants(recipe, {**recipe.sweep, "distill 2.epochs": (1, 2)})
    assert [(one.recipe.step[2].share, one.recipe.step[3].epochs) for one in found] == [
        (0.3, 1), (0.3, 2), (0.5, 1), (0.5, 2),
    ]  # fmt: skip
    assert found[1].chosen == {2: "share 0.3", 3: "epochs 2"}
    assert all(one.recipe.step[1] == recipe.step[1] for one in found)
    assert variants(recipe, {}) == [(recipe, {})]


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"prune.share": (0.3, 1.5)}, "sweep: prune.share: expected a number, above 0 and below 1"),
        ({"prune.shares": (0.3,)}, 'sweep: prune.shares: unknown key "shares"; did you mean "shar'),
        ({"distill.epochs": (1,)}, "no step 'distill'; steps are teacher, distill 1, prune, dist"),
        ({"benchmark.threads": (1, 2)}, "no step 'benchmark'"),
        ({"prune.seed": tuple(range(300))}, "has 300 combinations, expected 256 at most"),
    ],
)
def test_a_wrong_grid_is_told(recipe, grid, words):
    with pytest.raises(SettingsError, match=words):
        variants(recipe, grid)


def test_a_grid_is_typed_or_written(recipe, tmp_path):
    assert parsed("prune.share=0.3,0.5") == ("prune.share", [0.3, 0.5])
    assert parsed("distill.student=same,mobilenet-v2")[1] == ["same", "mobilenet-v2"]
    assert parsed("distill.mirrored=true,false")[1] == [True, False]
    assert recipe.sweep == {"prune.share": (0.3, 0.5)}
    with pytest.raises(SettingsError, match=r"expected STEP.KEY=VALUE,VALUE"):
        parsed("prune.share")
    (tmp_path / "small.toml").write_text(RECIPE.replace('"prune.share"', "prune.share"))
    with pytest.raises(SettingsError, match="with the quotes"):
        read_recipe(tmp_path / "small.toml")


def measure(name, size, accuracy, p50):
    return Measure(
        name=name, format="tflite", precision="fp32", error=0, parameters=1, size_bytes=size,
        accuracy=accuracy, macro_f1=accuracy, p50_ms=p50, p95_ms=p50, memory_bytes=None,
    )  # fmt: skip


FOUND = [
    measure("teacher", 900, 0.90, 8.0), measure("a", 300, 0.895, 4.0),
    measure("b", 200, 0.88, 2.0), measure("c", 100, 0.895, 3.0), measure("d", 90, 0.70, 1.0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"max_drop": 0.005}, "c"),  # the smallest of a, c
        ({"max_drop": 0.0}, "teacher"),
        ({"max_drop": 0.03, "max_latency_ms": 2.5}, "b"),
        ({"max_size": 300}, "c"),  # as accurate as a, and smaller
        ({"max_size": 90}, "d"),
        ({"max_latency_ms": 100.0}, "teacher"),
    ],
)
def test_one_is_picked_of_those_that_keep_the_limits(limits, name):
    assert FOUND[picked(FOUND, Limits(**limits))].name == name


def test_where_none_keeps_them_it_says_how_near_they_are():
    with pytest.raises(
        WithheldError, match=r"no model keeps --max-size 95 bytes, --max-drop 0.1"
    ) as told:
        picked(FOUND, Limits(max_size=95, max_drop=0.1))
    assert "the smallest has 90 bytes (d, accuracy 0.700)" in str(told.value)
    assert "the fastest takes 1.00 ms (d, 0.700), the teacher's accuracy is 0.900" in str(
        told.value
    )


def test_limits_are_typed():
    def size(text):
        return limits_of(max_size=text, max_latency_ms=None, max_drop=None).max_size

    assert [size(text) for text in ("2MB", "1.5 kB", "300", "")] == [2_000_000, 1500, 300, None]
    for text in ("much", "2 miles", "-1", "0"):
        with pytest.raises(SettingsError, match="--max-size"):
            size(text)
    with pytest.raises(SettingsError, match=r"--max-drop: expected a number, .*at most 1"):
        limits_of(max_size="", max_latency_ms=None, max_drop=3)
