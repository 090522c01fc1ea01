"""Names of a file's classes and a fleet's labels: equal, renamed, left out, or refused."""

import pytest

from cloud_server.models.imported.labels import label_indices, read_classes, read_map
from fleet_model.errors import SettingsError


def test_classes_are_a_list_or_a_line_each(tmp_path):
    assert read_classes("a, b,c") == ("a", "b", "c")
    assert read_classes("a") == ("a",)
    file = tmp_path / "coco.txt"
    file.write_text("person\nstop sign\n-\n\n")
    assert read_classes(str(file)) == ("person", "stop sign", "-")


@pytest.mark.parametrize("text", ["a,,b", ",", "a," * 10_001 + "a"])
def test_classes_without_a_name_are_refused(text):
    with pytest.raises(SettingsError, match="expected the names"):
        read_classes(text)


def test_a_file_of_bytes_is_no_list(tmp_path):
    (tmp_path / "m.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="it is no text"):
        read_classes(str(tmp_path / "m.bin"))


def test_a_map_names_each_class_once():
    assert read_map(["person=human", "car=vehicle,truck = vehicle"]) == {
        "person": "human", "car": "vehicle", "truck": "vehicle",
    }  # fmt: skip
    for wrong in (["person"], ["=human"], ["a=b", "a=c"], ["a="]):
        with pytest.raises(SettingsError, match="--map"):
            read_map(wrong)


def test_equal_names_need_no_word_and_order_is_no_matter():
    assert label_indices(["b", "a"], ["a", "b"], {}) == (1, 0)
    assert label_indices(["b", "-", "a"], ["a", "b"], {}) == (1, -1, 0)


def test_several_classes_may_be_one_label():
    renamed = {"car": "vehicle", "truck": "vehicle"}
    assert label_indices(["car", "truck"], ["vehicle"], renamed) == (0, 0)


def test_other_classes_are_left_out_only_by_a_word():
    with pytest.raises(SettingsError, match=r"finds cat, .* --map cat=a, .* --drop-others"):
        label_indices(["a", "cat"], ["a"], {})
    assert label_indices(["a", "cat"], ["a"], {}, drop_others=True) == (0, -1)


def test_a_label_that_it_never_finds_is_accepted_only_by_a_word():
    with pytest.raises(SettingsError, match=r"no class of the file is b: .* --without b"):
        label_indices(["a"], ["a", "b"], {})
    assert label_indices(["a"], ["a", "b"], {}, ["b"]) == (0,)


def test_the_label_that_looks_like_it_is_proposed():
    with pytest.raises(SettingsError, match="--map Persons=person"):
        label_indices(["Persons", "cone"], ["cone", "person"], {})


@pytest.mark.parametrize(
    ("renamed", "without", "words"),
    [
        ({"dog": "a"}, (), "'dog' is no class of the file"),
        ({"a": "dog"}, (), "'dog' is no label of the fleet"),
        ({}, ["dog"], "'dog' is no label of the fleet"),
    ],
)
def test_a_name_that_is_nowhere_is_a_slip(renamed, without, words):
    with pytest.raises(SettingsError, match=words):
        label_indices(["a"], ["a"], renamed, without)
