"""Folders of public keys, as people copy them together."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.robots.key_files import read_key_files
from fleet_model.errors import SettingsError
from fleet_model.protocol.proof import public_line


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "keys" / "r2").mkdir(parents=True)
    for file in ("r1.pub", "r2/robot.pub"):
        line = public_line(ec.generate_private_key(ec.SECP384R1()).public_key())
        (tmp_path / "keys" / file).write_text(line + "\n")
    return tmp_path / "keys"


def read(folder):
    return [(one.name, one.site, one.labels) for one in read_key_files(folder, "hall", ("all",))]


def test_keys_are_named_by_their_file_or_their_folder(folder):
    assert read(folder) == [("r1", "hall", ("all",)), ("r2", "hall", ("all",))]


def test_a_table_says_what_is_not_as_for_all_others(folder):
    key = (folder / "r1.pub").read_text().strip()
    table = f"name, site,labels,key\nr1,dock,gpu outdoor,\nr3,,,{key}\nr4,x,,r2/robot.pub\n"
    (folder / "robots.csv").write_text(table, encoding="utf-8-sig")
    assert read(folder) == [
        ("r1", "dock", ("gpu", "outdoor")),
        ("r2", "hall", ("all",)),
        ("r3", "hall", ("all",)),
        ("r4", "x", ("all",)),
    ]
    assert read_key_files(folder, "hall", ())[2].key == key


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("site\nhall\n", "no column name; expected name, site, labels, key"),
        ("name,size\nr1,2\n", "unknown column 'size'"),
        ("name\nr1\nr1\n", "line 3: r1 is there twice"),
        ("name,site\nr9,hall\n", r"robots\.csv line 2: no key in its row, and no NAME\.pub"),
        ("name,key\nr1,none.pub\n", r"line 2: .*none\.pub: No such file"),
        ("name,site\nr1,hall,7\n", "line 2: more cells than columns"),
    ],
)
def test_what_is_wrong_with_a_table_is_told_with_its_line(folder, table, words):
    (folder / "robots.csv").write_text(table)
    with pytest.raises(SettingsError, match=words):
        read(folder)


def test_a_table_that_is_none_is_told(folder):
    (folder / "robots.csv").write_bytes(b"name\n\xff\xfe\n")
    with pytest.raises(SettingsError, match="not a CSV file in UTF-8"):
        read(folder)


def test_an_empty_folder_and_none_are_told(tmp_path):
    with pytest.raises(SettingsError, match=r"no NAME\.pub, no NAME/robot\.pub"):
        read(tmp_path)
    with pytest.raises(SettingsError, match="no such folder"):
        read(tmp_path / "none")
