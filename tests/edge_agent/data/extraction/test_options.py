"""Options that mean nothing are refused in words before anything is written."""

from pathlib import Path

import pytest

from edge_agent.data.extraction.extract import ExtractOptions, extract
from edge_agent.data.extraction.selection import Selection, TimeLimit, parse_moment
from edge_agent.data.labels import LabelSettings
from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base

NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    "wrong",
    [
        *({"selection": Selection(rate_hz=rate)} for rate in (NAN, INFINITE, 1e308, -1.0)),
        {"selection": Selection(every_n=0)},
        *(
            {"selection": Selection(TimeLimit(5, kind), TimeLimit(ns, kind))}
            for kind in (True, False)
            for ns in (2, 5)
        ),
        *({"labels": LabelSettings(tolerance_s=s)} for s in (NAN, INFINITE, 0.0, -1.0)),
        *({"min_sharpness": value} for value in (NAN, INFINITE, -1.0)),
        {"format": "json:loads"},
        {"image_format": "gif"},
    ],
)
def test_numbers_and_names_without_meaning_are_refused(tmp_path, wrong):
    (tmp_path / "bag").mkdir()
    with pytest.raises(SettingsError):
        extract(ExtractOptions(paths=(tmp_path / "bag",), out=tmp_path / "out", **wrong))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["bag", "bag/frames", "bag/../bag/deep/er"])
def test_a_data_set_never_grows_inside_its_source(tmp_path, out):
    (tmp_path / "bag").mkdir()
    with pytest.raises(SettingsError, match="lies in bag"):
        extract(ExtractOptions(paths=(tmp_path / "bag",), out=Path(tmp_path / out)))


@pytest.mark.parametrize("text", ["1e300", "nan", "-1", "inf"])
def test_a_start_beyond_all_time_is_refused(text):
    with pytest.raises(SettingsError, match="--start"):
        parse_moment(text, "--start")
