"""A robot keeps the first site; a person changes it."""

import pytest

from edge_agent.link.choosing.kept_site import KeptSite
from fleet_model.errors import SettingsError, StorageError


@pytest.fixture
def kept(tmp_path):
    return KeptSite(tmp_path / "trust")


def test_the_first_site_stays(kept, tmp_path):
    assert kept.get() == ""
    kept.told("hall-1")
    kept.told("yard")
    assert kept.get() == KeptSite(tmp_path / "trust").get() == "hall-1"


def test_a_person_changes_it(kept, tmp_path):
    kept.told("hall-1")
    KeptSite(tmp_path / "trust").change("yard")
    assert kept.get() == "yard"
    for site in ("", "a b", "../up", "x" * 64, "\u001b[2J"):
        with pytest.raises(SettingsError, match="expected letters, digits"):
            kept.change(site)
    assert kept.get() == "yard"


def test_enrolled_anew_it_is_the_one_that_was_told_last(kept):
    kept.told("hall-1")
    kept.told("yard")
    kept.begin_again()
    assert kept.get() == "yard"


@pytest.mark.parametrize("content", [b"", b"\xff", b"../up", b"two words"])
def test_a_file_that_holds_none_is_none(kept, tmp_path, content):
    kept.told("hall-1")
    (tmp_path / "trust/site").write_bytes(content)
    assert kept.get() == "hall-1"  # this process was told
    another = KeptSite(tmp_path / "trust")
    assert another.get() == ""
    another.told("yard")
    assert another.get() == kept.get() == "yard"


def test_a_server_that_says_no_site_leaves_it_open(kept):
    kept.told("not a site")
    assert kept.get() == ""


def test_a_disk_that_keeps_nothing_is_told_without_a_path(tmp_path, caplog):
    (tmp_path / "trust").write_text("a file")
    kept = KeptSite(tmp_path / "trust")
    kept.told("hall-1")
    kept.told("yard")
    assert kept.get() == "hall-1"  # while this process lives
    with pytest.raises(StorageError, match="the site of this robot cannot be kept") as caught:
        kept.change("yard")
    assert str(tmp_path) not in str(caught.value) + caplog.text
