"""Read a camera's calibration as `camera_calibration` and `camera_info_manager` write it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fleet_model.errors import SettingsError

_FILE_URL = "file://"
_SHAPES = {"camera_matrix": (3, 3), "rectification_matrix": (3, 3), "projection_matrix": (3, 4)}
_COEFFICIENTS = {"plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4}  # of image_pipeline


class Calibration(NamedTuple):
    """The fields of sensor_msgs/CameraInfo that a calibration fills, row by row."""

    width: int  # pixels that it was made for
    height: int
    distortion_model: str
    d: tuple[float, ...]
    k: tuple[float, ...]  # (3, 3)
    r: tuple[float, ...]  # (3, 3)
    p: tuple[float, ...]  # (3, 4)


def read_calibration(place: str) -> Calibration:
    """Return the calibration of a YAML file.

    Args:
        place: a path, or a URL that begins with file://.

    Raises:
        SettingsError: there is no such file, or something in it is missing or wrong.
    """
    import yaml

    path = Path(place.removeprefix(_FILE_URL)).expanduser()
    where = f"calibration {path.name}"
    if "://" in place.removeprefix(_FILE_URL):
        raise SettingsError(f"{where}: expected a path or a file:// URL, not {place}")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{where}: {error.strerror}; what does {place} name?") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise SettingsError(f"{where}: no YAML; expected what camera_calibration writes") from None
    if not isinstance(content, Mapping):
        raise SettingsError(f"{where}: no table; expected what camera_calibration writes")
    return _calibration(content, where)


def _calibration(content: Mapping[str, Any], where: str) -> Calibration:
    model = content.get("distortion_model")
    coefficients = _matrix(content, "distortion_coefficients", where)
    expected = _COEFFICIENTS.get(str(model))
    if expected is None:
        models = ", ".join(_COEFFICIENTS)
        raise SettingsError(f"{where}: distortion_model is {model!r}; expected one of {models}")
    if len(coefficients) != expected:
        has = f"distortion_coefficients has {len(coefficients)} numbers"
        raise SettingsError(f"{where}: {has}; {model} has {expected}")
    width, height = (_size(content, name, where) for name in ("image_width", "image_height"))
    k, r, p = (_matrix(content, name, where) for name in _SHAPES)
    return Calibration(width, height, str(model), coefficients, k, r, p)


def _size(content: Mapping[str, Any], name: str, where: str) -> int:
    value = content.get(name)
    if type(value) is not int or value < 1:
        raise SettingsError(f"{where}: {name} is {value!r}; expected a number of pixels")
    return value


def _matrix(content: Mapping[str, Any], name: str, where: str) -> tuple[float, ...]:
    """Return the numbers under a name; those of a matrix have its size."""
    table = content.get(name)
    data = table.get("data") if isinstance(table, Mapping) else None
    numbers = data if isinstance(data, list) else []
    rows, columns = _SHAPES.get(name, (1, len(numbers)))
    sound = all(type(each) in (int, float) and math.isfinite(each) for each in numbers)
    if not (data and sound and len(numbers) == rows * columns):
        size = f"{rows} x {columns} " if name in _SHAPES else ""
        raise SettingsError(f"{where}: {name}: data: expected {size}finite numbers")
    return tuple(map(float, numbers))
