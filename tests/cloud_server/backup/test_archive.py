"""The file of a backup by its bytes: what is written, and what is refused in one sentence."""

import gzip
import hashlib
import io
import json
import re
import tarfile

import pytest

from cloud_server.backup.archive import BLOCK_BYTES, LIST, MOST_LIST_BYTES, Archive
from fleet_model.errors import BundleError

PLAIN = {"robots.json": b"{}", "server.toml": b"[network]\n", "store/objects/aa": b"1" * 700}


def the_list(files, **changes):
    entries = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
        for name, content in files.items()
    }
    return {
        "format": 1, "fleetlearn": "0.1.0", "created_at": "2026-11-30T02:00:00Z",
        "directory": "/srv/fleet", "versions": {"": 1}, "files": entries, **changes,
    }  # fmt: skip


def archive(files=PLAIN, members=None, about=None, tar_format=tarfile.USTAR_FORMAT):
    """Return a backup's bytes; `members` stand in the place of the listed files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tar_format) as tar:
        text = json.dumps(the_list(files) if about is None else about).encode()
        for name, content in [(LIST, text), *(files.items() if members is None else members)]:
            header = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return stream.getvalue()


def read(content):
    opened = Archive(io.BytesIO(content), "x.tar")
    found = {}
    for name in opened.contents.files:
        into = io.BytesIO()
        opened.read(name, into)
        found[name] = into.getvalue()
    opened.require_end()
    return found


def refusal(content):
    with pytest.raises(BundleError) as error:
        read(content)
    assert str(error.value).startswith("x.tar: ")
    assert str(error.value).endswith("; nothing is restored. Use another backup")
    return str(error.value)


def test_what_is_listed_is_read():
    assert read(archive()) == PLAIN


def test_tar_itself_reads_what_was_written_and_the_list_has_every_hash(server_dir, backup_of):
    with tarfile.open(backup_of(server_dir), "r:") as tar:
        names = tar.getnames()
        about = json.loads(tar.extractfile(LIST).read())
        assert names == [LIST, *about["files"]]
        assert "secrets/ca.key" in names
        assert {(one.mode, one.type) for one in tar.getmembers()} == {(0o600, tarfile.REGTYPE)}
        for name, entry in about["files"].items():
            content = tar.extractfile(name).read()
            assert content == (server_dir.root / name).read_bytes(), name
            assert entry["sha256"] == hashlib.sha256(content).hexdigest()
            assert entry["size_bytes"] == len(content)
            assert entry["private"] == name.startswith("secrets/")
    assert (about["format"], about["versions"]) == (1, {"": 1})
    assert about["created_at"] == "2026-11-30T02:00:00Z"
    assert about["directory"] == str(server_dir.root)


def test_cut_anywhere_it_is_refused():
    whole = archive()
    end = sum(len(whole[i : i + 512].rstrip(b"\0")) > 0 for i in range(0, len(whole), 512)) * 512
    for size in [*range(0, end, 128), end - 1, end, end + 511]:
        assert ("cut" if size >= 512 else "is no backup") in refusal(whole[:size])
    assert read(whole[: end + 512]) == PLAIN


@pytest.mark.parametrize("name", PLAIN)
def test_a_flipped_bit_of_a_file_is_found(name):
    wrong = bytearray(archive())
    wrong[wrong.rindex(PLAIN[name])] ^= 4
    assert f"{name} is damaged (sha256 differs)" in refusal(bytes(wrong))


NAMES = ["../robots.json", "/etc/passwd", "a/../../b", "a//b", "./a", "", ".bashrc", "a/.lock",
         "a\0b", "x" * 256]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_leads_elsewhere_or_is_in_no_backup_is_refused(name):
    listed = the_list({**PLAIN, name: b"1"})
    assert "its list is damaged, or not of a server directory" in refusal(archive(about=listed))


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
        tarfile.DIRTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.XGLTYPE,
        tarfile.GNUTYPE_LONGNAME,
    ],
)  # fmt: skip
def test_a_link_device_folder_or_extended_header_is_refused(kind):
    strange = tarfile.TarInfo("robots.json")
    strange.type, strange.linkname = kind, "/etc/passwd"
    members = [(strange, PLAIN["robots.json"]), *list(PLAIN.items())[1:]]
    assert "holds 'robots.json' where robots.json is expected" in refusal(archive(members=members))


def test_only_what_the_list_has_is_taken_in_its_order():
    first, second, third = PLAIN.items()
    for members in ([second, first, third], [first, third], [first, first, second, third]):
        assert " is expected" in refusal(archive(members=members))
    assert "holds more than its list" in refusal(archive(members=[*PLAIN.items(), ("b", b"1")]))
    assert "robots.json has 5 bytes, expected 2" in refusal(
        archive(members=[("robots.json", b"12345"), second, third])
    )


def test_a_bomb_is_not_unpacked():
    assert "is no backup; is it compressed" in refusal(gzip.compress(archive()))
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 60  # what tar would read into memory
    assert " is expected" in refusal(header.tobuf(tarfile.GNU_FORMAT) + b"x" * 512)
    header = tarfile.TarInfo(LIST)
    header.size = 1 << 40
    assert "its list has 1048576 MB" in refusal(header.tobuf(tarfile.GNU_FORMAT))
    assert MOST_LIST_BYTES < 1 << 30
    deep = b"[" * 100_000
    assert "its list is damaged" in refusal(_with_list(deep))


def _with_list(text):
    header = tarfile.TarInfo(LIST)
    header.size = len(text)
    return header.tobuf(tarfile.USTAR_FORMAT) + text + bytes(-len(text) % 512)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no backup"),
        (b"\0" * 1024, "is no backup"),
        (b"PK\x03\x04" + b"x" * 2000, "is no backup"),
        (archive(about=the_list(PLAIN, format=2)), "is of format 2; fleetlearn .* reads format 1"),
        (archive(about=the_list(PLAIN, created_at="2026-11-30T02:00:00")), "its list is damaged"),
        (
            archive(about=the_list({}) | {"files": {"a": {"sha256": "x", "size_bytes": 1}}}),
            "damaged",
        ),
        (archive(about=[]), "its list is damaged"),
        (archive(about={}), "its list is damaged"),
    ],
    ids=["empty", "zeros", "zip", "newer", "no time zone", "no hash", "no table", "nothing"],
)
def test_something_else_is_refused(content, words):
    assert re.search(words, refusal(content))


def test_a_large_file_is_read_in_pieces():
    files = {"server.toml": bytes(range(256)) * (BLOCK_BYTES // 256 * 2 + 1)}
    assert read(archive(files)) == files
