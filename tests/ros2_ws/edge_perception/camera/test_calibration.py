import pytest
import yaml
from edge_perception.camera.calibration import read_calibration

from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base

# as `ros2 run camera_calibration cameracalibrator` saves it
WRITTEN = """\
image_width: 640
image_height: 480
camera_name: front
camera_matrix:
  rows: 3
  cols: 3
  data: [600.5, 0, 320, 0, 601, 240.25, 0, 0, 1]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.1, -0.2, 0.001, 0, 0]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1, 0, 0, 0, 1, 0, 0, 0, 1]
projection_matrix:
  rows: 3
  cols: 4
  data: [590, 0, 320, 0, 0, 590, 240, 0, 0, 0, 1, 0]
"""


@pytest.fixture
def written(tmp_path):
    """Return a writer of the file with some of its entries replaced."""

    def write(**changes):
        path = tmp_path / "front.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(WRITTEN) | changes))
        return str(path)

    return write


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_calibration_has_the_numbers_of_its_file(tmp_path, prefix):
    (tmp_path / "front.yaml").write_text(WRITTEN)
    found = read_calibration(f"{prefix}{tmp_path}/front.yaml")
    assert (found.width, found.height, found.distortion_model) == (640, 480, "plumb_bob")
    assert found.d == (0.1, -0.2, 0.001, 0, 0)
    assert found.k == (600.5, 0, 320, 0, 601, 240.25, 0, 0, 1)
    assert found.r == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert found.p == (590, 0, 320, 0, 0, 590, 240, 0, 0, 0, 1, 0)
    assert {type(each) for each in (*found.d, *found.k, *found.r, *found.p)} == {float}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"image_width": "640"}, "image_width is '640'; expected a number of pixels"),
        ({"image_height": 0}, "image_height is 0; expected a number of pixels"),
        ({"distortion_model": "fisheye"}, "distortion_model is 'fisheye'; expected one of plumb_b"),
        ({"distortion_model": "equidistant"}, "has 5 numbers; equidistant has 4"),
        ({"camera_matrix": {"data": [1, 2]}}, "camera_matrix: data: expected 3 x 3 finite numbers"),
        ({"projection_matrix": None}, "projection_matrix: data: expected 3 x 4 finite numbers"),
        ({"camera_matrix": {"data": [float("nan")] * 9}}, "camera_matrix: data: expected 3 x 3 fi"),
        ({"rectification_matrix": {"data": [True] * 9}}, "rectification_matrix: data: expected"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_name(written, changes, expected):
    with pytest.raises(SettingsError, match=f"^calibration front.yaml: .*{expected}"):
        read_calibration(written(**changes))


@pytest.mark.parametrize(
    ("content", "expected"), [(b"{", "no YAML"), (b"\xff\xfe\xfd", "no YAML"), (b"- 1", "no table")]
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, expected):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(SettingsError, match=f"^calibration x.yaml: {expected}; expected what cam"):
        read_calibration(str(tmp_path / "x.yaml"))


def test_a_file_that_is_not_there_and_a_url_that_is_no_file_are_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"^calibration no.yaml: No such file or directory"):
        read_calibration(str(tmp_path / "no.yaml"))
    with pytest.raises(SettingsError, match=r"expected a path or a file:// URL, not package://a/b"):
        read_calibration("package://a/b.yaml")
