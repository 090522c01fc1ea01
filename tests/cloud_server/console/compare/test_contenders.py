"""Models as a person names them."""

import zipfile

import pytest

from cloud_server.console.compare.contenders import contenders
from fleet_model.errors import BundleError, SettingsError


def test_a_folder_is_its_fp32_engine_and_a_file_is_the_engine_it_is_of(bundles):
    teacher, student = bundles
    found = contenders([teacher, student / "head_int8.tflite"])
    assert [(one.name, one.precision) for one in found] == [
        ("teacher", "fp32"), ("student int8", "int8"),
    ]  # fmt: skip
    assert [one.folder for one in found] == [str(teacher), str(student)]


def test_no_two_models_have_one_name(bundles, tmp_path):
    teacher, student = bundles
    (tmp_path / "teacher").symlink_to(student)  # a link is what it leads to
    names = [one.name for one in contenders([teacher, tmp_path / "teacher", teacher])]
    assert names == ["teacher", "student", "teacher (2)"]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("nothing", "there is no such file or folder"),
        ("empty", r"has no manifest\.json; expected a bundle folder"),
        ("empty/one.tflite", r"lies beside no manifest\.json and has no labels\.txt in it"),
    ],
)
def test_what_is_no_model_is_refused_by_its_name(bundles, tmp_path, path, why):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "one.tflite").touch()
    with pytest.raises(SettingsError, match=why):
        contenders([bundles[0], tmp_path / path])


def test_a_file_that_is_no_engine_is_refused_with_those_that_are(bundles):
    with pytest.raises(BundleError, match=r"trainer\.tflite is no engine .* head\.tflite"):
        contenders([bundles[0], bundles[0] / "trainer.tflite"])


def test_a_file_alone_has_its_labels_in_it(bundles, tmp_path):
    file = tmp_path / "small.tflite"
    file.write_bytes((bundles[0] / "head.tflite").read_bytes())
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("labels.txt", "circle\nsquare\n")
    found = contenders([file, bundles[0]])
    assert found[0] == ("small", str(file), "fp32", "", ("circle", "square"))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", b"\n" * (30 << 20))
    assert len(contenders([file, bundles[0]])[0].labels) == 1 << 20  # no more is unpacked


@pytest.mark.parametrize("count", [0, 1, 7])
def test_two_to_six_models_are_compared(bundles, count):
    with pytest.raises(SettingsError, match=f"^{count} models; name 2 to 6$"):
        contenders([bundles[0]] * count)


def test_of_two_the_bundle_that_is_damaged_is_named(bundles, tmp_path):
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match=r"cut: manifest.json: "):
        contenders([bundles[0], tmp_path / "cut"])
