import time

import pytest
from bag_writer import BagWriter, encode
from edge_perception.camera.player import Pace, Player
from edge_perception.camera.source import CameraSource

from fleet_model.errors import FrameError

pytestmark = pytest.mark.base

T0 = BagWriter.START_NS
PATIENCE_S = 240


def a_bag(path, contents, period_ns=20_000_000):
    bags = BagWriter()
    stamps = [T0 + i * period_ns for i in range(len(contents))]
    messages = [bags.jpeg(stamp, data) for stamp, data in zip(stamps, contents, strict=True)]
    recorded = zip(["/camera"] * len(stamps), stamps, messages, strict=True)
    return str(bags.write(path, recorded))


class Played:
    """What a player sent, and when."""

    def __init__(self, text, make=lambda frame: bytes(frame.data), **pace):
        self.sent = []
        source = CameraSource(text)
        self.player = Player(source, Pace(**pace), make, self.send)

    def send(self, ready, frame):
        self.sent.append((frame.stamp_ns, ready))

    def whole(self):
        return self.until(lambda: self.player.ended)

    def until(self, holds):
        self.player.start()
        end = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.005)
        self.player.stop()
        return self


def test_every_picture_is_sent_once_and_none_before_its_time(tmp_path):
    contents = [encode(i) for i in range(6)]
    begun_s = time.monotonic()
    played = Played(a_bag(tmp_path / "bag", contents)).whole()
    assert time.monotonic() - begun_s >= 5 * 0.02
    assert played.sent == [(T0 + i * 20_000_000, data) for i, data in enumerate(contents)]
    assert (played.player.sent, played.player.passes, played.player.problem) == (6, 1, "")


def test_a_loop_goes_on_until_it_is_stopped(tmp_path):
    played = Played(a_bag(tmp_path / "bag", [encode(i) for i in range(3)]), loop=True, speed=50)
    sent = played.until(lambda: len(played.sent) >= 8).sent
    assert [stamp for stamp, _ in sent[:6]] == 2 * [T0, T0 + 20_000_000, T0 + 40_000_000]
    assert not played.player.ended
    count = len(played.sent)
    time.sleep(0.1)
    assert len(played.sent) == count


def test_pictures_without_times_come_ten_a_second(tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(encode(index))
    begun_s = time.monotonic()
    assert len(Played(str(tmp_path)).whole().sent) == 3
    assert time.monotonic() - begun_s >= 2 * 0.1


def test_a_picture_that_cannot_be_read_is_counted_and_the_next_one_is_sent(tmp_path):
    contents = [encode(0), encode(1)[:100], encode(2), b""]
    played = Played(a_bag(tmp_path / "bag", contents)).whole()
    assert [data for _, data in played.sent] == [encode(0), encode(2)]
    assert {(d.kind, d.count) for d in played.player.damage.all()} == {
        ("cut jpeg", 1),
        ("empty", 1),
    }
    assert played.player.problem == ""


def test_a_loop_over_pictures_of_which_none_can_be_read_ends_and_says_why(tmp_path):
    played = Played(a_bag(tmp_path / "bag", [b"", b""]), loop=True).whole()
    assert played.player.problem == "bag: no picture of it can be read"


def test_a_recording_that_is_gone_at_its_second_pass_ends_and_says_why(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode(0))

    def remove(frame):
        (tmp_path / "a.jpg").unlink()

    played = Played(str(tmp_path / "a.jpg"), make=remove, loop=True).whole()
    assert len(played.sent) == 1
    assert played.player.problem == "a.jpg: no such file or folder"


def test_what_fails_in_another_way_ends_it_with_a_word(tmp_path):
    def fail(frame):
        raise ValueError("bad")

    played = Played(a_bag(tmp_path / "bag", [encode(0)]), make=fail).whole()
    assert played.player.problem == "bag: ValueError while it was played"


def test_a_picture_that_cannot_be_made_ready_is_counted_too(tmp_path):
    def refuse(frame):
        raise FrameError("no color", "depth")

    played = Played(a_bag(tmp_path / "bag", [encode(0)]), make=refuse).whole()
    assert [d.kind for d in played.player.damage.all()] == ["depth"]
