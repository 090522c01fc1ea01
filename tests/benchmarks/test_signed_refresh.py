"""The promise that many versions cost a robot nothing; no time is asserted."""

from pathlib import Path

from benchmarks.signed_refresh import VERSIONS, refresh_figures

BUNDLE = Path(__file__).parents[1] / "data" / "tiny_bundle"


def test_a_refresh_at_a_thousand_versions_is_short(tmp_path):
    figures = refresh_figures(tmp_path / "work", BUNDLE)
    assert len(list((tmp_path / "work/store/versions").iterdir())) == VERSIONS
    assert 1 < figures["metadata_kb_1000"] <= 20
    assert figures["refresh_ms"] > 0
