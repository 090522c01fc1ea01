import json
import logging
import zlib
from pathlib import Path

import pytest

from edge_agent.examples import frame_index
from edge_agent.examples.frame_index import FrameIndex, FrameRow, Whole
from edge_agent.examples.signatures import Signature
from fleet_model import __version__
from fleet_model.errors import FrameError
from fleet_model.files.damage import Damage
from fleet_model.types import Box

pytestmark = pytest.mark.base

BAG, OPTIONS = Path("/bags/r1"), ("/camera", "/label", 0.1, False)
BOXES = (Box(label="cup", x0=0.1, y0=1 / 3, x1=5e-324, y1=1e300),)
ROWS = [
    FrameRow(
        file=f"/bags/r1/\udcff_{number // 2}.mcap",
        at=number,
        time_ns=2**63 - 1 - number,
        name="",
        source="r1",
        topic="/camera",
        stamp_ns=number,
        format="jpeg",
        width=640,
        height=480,
        checksum=2**32 - 1,
        label='"\n',
        boxes=BOXES * number,
        seen=number != 3,
    )
    for number in range(5)
]
SIGNATURES = {row.file: Signature(1, 2, 3, row.at) for row in ROWS}
WHOLE = Whole("digest", True, (Damage("cut jpeg", 3, "r1 at 7"),))


@pytest.fixture
def index(tmp_path):
    return FrameIndex(tmp_path / "index")


def write(index, rows=ROWS, recording=BAG, whole=WHOLE):
    index.write(recording, OPTIONS, whole, rows, SIGNATURES)


def kept(index, recording=BAG, options=OPTIONS):
    return list(index.read(recording, options).rows())


def test_what_is_written_is_read_again_bit_for_bit(index):
    write(index)
    known = index.read(BAG, OPTIONS)
    assert known.whole == WHOLE
    assert list(known.signed_rows()) == [(SIGNATURES[row.file], row) for row in ROWS]


def test_other_options_another_recording_another_version_know_nothing(index, monkeypatch):
    write(index)
    assert not kept(index, options=(*OPTIONS[:2], 0.2, False))
    assert not kept(index, recording=Path("/bags/r2"))
    monkeypatch.setattr(frame_index, "__version__", "99")
    assert not kept(index)
    monkeypatch.undo()
    assert kept(index) == ROWS


def test_rows_of_earlier_formats_are_read_again(index, tmp_path):
    write(index)
    (file,) = (tmp_path / "index").iterdir()
    lines = file.read_bytes().splitlines(keepends=True)[:-1]
    assert lines[0].startswith(b'{"format": 3, ')
    former = [lines[0].replace(b'"format": 3', b'"format": 2'), *lines[1:]]
    former = b"".join(former)
    file.write_bytes(former + json.dumps(f"{zlib.crc32(former):08x}").encode() + b"\n")
    assert index.read(BAG, OPTIONS).whole is None
    assert not kept(index)
    write(index)
    assert [row.seen for row in kept(index)] == [True, True, True, False, True]


def test_why_a_list_is_made_again_is_told_once(index, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    other = ("/camera", "/terrain", 0.1, False)
    write(index)
    assert kept(index) == ROWS
    assert caplog.messages == []

    assert kept(index, options=other) == kept(index, options=other) == []
    told = "the frames of r1 were listed with other settings; they are read and listed again"
    assert caplog.messages == [told]
    index.write(BAG, other, WHOLE, ROWS, SIGNATURES)
    assert kept(index, options=other) == ROWS
    assert caplog.messages == [told]  # the new list fits

    monkeypatch.setattr(frame_index, "__version__", "99")
    kept(index, options=other)
    assert caplog.messages[1].startswith(f"the frames of r1 were listed by version {__version__}; ")


def test_a_file_that_is_cut_or_changed_anywhere_counts_as_nothing_and_the_log_says_so(
    index, tmp_path, caplog
):
    write(index)
    (file,) = (tmp_path / "index").iterdir()
    whole = file.read_bytes()
    damaged = [whole[:end] for end in range(0, len(whole), 7)]
    damaged += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    for content in damaged:
        caplog.clear()
        file.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            known = index.read(BAG, OPTIONS)
        assert (known.whole, list(known.rows())) == (None, [])
        assert "the frames of r1 is damaged" in caplog.text
        assert "/bags" not in caplog.text
    write(index)
    assert kept(index) == ROWS


def test_a_file_of_a_later_format_is_none_of_ours(index, tmp_path, monkeypatch):
    monkeypatch.setattr(frame_index, "_FORMAT", 99)
    write(index)
    monkeypatch.undo()
    assert kept(index) == []


def test_what_another_process_has_removed_is_a_frame_error(index, tmp_path):
    write(index)
    known = index.read(BAG, OPTIONS)
    FrameIndex(tmp_path / "index").prune()
    with pytest.raises(FrameError, match="what is known of its frames: No such file"):
        list(known.rows())


def test_recordings_that_are_listed_no_more_are_forgotten(index, tmp_path):
    for name in ("/bags/r1", "/bags/r2"):
        index.read(Path(name), OPTIONS)
        write(index, recording=Path(name))
    (tmp_path / "index" / ".left.jsonl.17.new").write_bytes(b"of a process that was killed")
    index.prune()
    assert len(list((tmp_path / "index").iterdir())) == 2
    kept(index)
    index.prune()
    (file,) = (tmp_path / "index").iterdir()
    assert json.loads(file.read_bytes().splitlines()[0])["recording"] == "/bags/r1"


def test_it_keeps_no_more_than_its_limit_and_says_so_once(tmp_path, caplog):
    write(FrameIndex(tmp_path / "measured"))
    (file,) = (tmp_path / "measured").iterdir()
    size = file.stat().st_size
    index = FrameIndex(tmp_path / "index", limit_bytes=2 * size + 10)
    for name in ("r1", "r2", "r3", "r4"):
        write(index, recording=Path("/bags") / name)
    assert [bool(kept(index, Path("/bags") / f"r{n}")) for n in (1, 2, 3, 4)] == [1, 1, 0, 0]
    assert caplog.text.count("are read in every round") == 1
    write(index, rows=ROWS[:2])  # what takes the place of something needs only its room
    assert kept(index) == ROWS[:2]


def test_a_disk_that_takes_nothing_is_no_error(tmp_path, caplog):
    (tmp_path / "index").write_text("a file where the folder ought to be")
    index = FrameIndex(tmp_path / "index")
    write(index)
    assert kept(index) == []
    assert "what is known of frames is not kept" in caplog.text
    nowhere = FrameIndex(None)
    write(nowhere)
    nowhere.prune()
    assert kept(nowhere) == []
