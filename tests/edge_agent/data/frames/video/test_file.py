import random
import sys

import pytest
from loaded_frames import frames_of
from video_clips import HEIGHT, WIDTH, number_in, write_clip

from edge_agent.data.frames.source import source_path
from edge_agent.data.frames.video.camera import CameraFrames
from edge_agent.data.frames.video.container_end import is_cut
from edge_agent.data.frames.video.file import VideoFile
from fleet_model.errors import FrameError
from fleet_model.files.damage import DamageLog

# A camera that changes its pace, and a file that does not begin at 0.
UNEVEN_MS = [5000 + n * 40 + 7 * (n % 3) + 200 * (n // 13) for n in range(40)]
EVEN_MS = [n * 1000 / 30 for n in range(40)]
H264 = {"x264-params": "keyint=10:min-keyint=10:scenecut=0:bframes=3"}
OPEN_H265 = {"x265-params": "keyint=10:bframes=3:open-gop=1:log-level=none"}
NO_B = {"x264-params": "keyint=10:min-keyint=10:scenecut=0:bframes=0"}


def video(path):
    return VideoFile(path, path.name, path.name)


def read(path):
    """Return (stamp in ms, number in the picture) of every frame that is right, and the losses."""
    damage, found = DamageLog(), []
    for frame in frames_of(video(path), damage):
        try:
            found.append((frame.stamp_ns / 1e6, number_in(frame.decode())))
        except FrameError as error:
            damage.add(error.reason, str(error))
    return found, {loss.kind: loss.count for loss in damage.all()}


def require_right(found, times_ms, tolerance_ms):
    for stamp_ms, number in found:
        assert stamp_ms == pytest.approx(times_ms[number], abs=tolerance_ms)
    assert [stamp for stamp, _ in found] == sorted(stamp for stamp, _ in found)


@pytest.mark.parametrize(
    ("name", "codec", "options", "times_ms", "tolerance_ms"),
    [
        ("a.mp4", "libx264", H264, UNEVEN_MS, 0.01),
        ("a.MOV", "libx265", OPEN_H265, UNEVEN_MS, 0.01),
        ("a.mkv", "libx264", H264, UNEVEN_MS, 0.5),  # whole milliseconds
        ("b.mkv", "libx265", OPEN_H265, UNEVEN_MS, 0.5),
        ("a.webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}, UNEVEN_MS, 0.5),
        ("a.avi", "libx264", NO_B, EVEN_MS, 0.01),
        ("b.avi", "mpeg4", {"bf": "2"}, EVEN_MS, 0.01),
    ],
)
def test_every_picture_has_the_stamp_of_its_file(
    tmp_path, name, codec, options, times_ms, tolerance_ms
):
    path = write_clip(tmp_path / name, times_ms, codec, **options)
    found, losses = read(path)
    assert [number for _, number in found] == list(range(40))
    require_right(found, times_ms, tolerance_ms)
    assert losses == {}


def test_of_several_streams_the_first_is_read_and_the_others_are_told(tmp_path):
    import av

    path = write_clip(tmp_path / "a.mp4", EVEN_MS, **NO_B)
    with av.open(str(tmp_path / "b.mkv"), "w") as both:
        with av.open(str(path)) as source:
            streams = [both.add_stream_from_template(source.streams.video[0]) for _ in range(2)]
        for stream in streams:
            with av.open(str(path)) as source:
                for packet in source.demux(video=0):
                    packet.stream = stream
                    both.mux(packet)
    found, losses = read(tmp_path / "b.mkv")
    assert [number for _, number in found] == list(range(40))
    assert losses == {"further video stream": 1}


def test_any_frame_can_be_asked_for_in_any_order(tmp_path):
    for name, codec, options in (("a.mp4", "libx264", H264), ("b.mkv", "libx265", OPEN_H265)):
        path = write_clip(tmp_path / name, UNEVEN_MS, codec, **options)
        frames = list(frames_of(video(path), DamageLog()))
        assert (frames[0].width, frames[0].height) == (WIDTH, HEIGHT)
        order = random.Random(2).sample(range(40), 40)
        assert [number_in(frames[n].decode()) for n in order] == order


def test_a_file_that_was_cut_gives_what_is_there_and_says_so(tmp_path):
    flat = {"movflags": "faststart"}
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    for name, container, options, share in (
        ("a.mp4", flat, NO_B, 0.6),
        ("b.mp4", fragments, NO_B, 0.6),
        ("a.mkv", {}, H264, 0.6),
        ("a.avi", {}, NO_B, 0.8),
    ):
        path = write_clip(tmp_path / name, EVEN_MS, "libx264", container, **options)
        assert not is_cut(path)
        assert read(path)[1] == {}
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        found, losses = read(path)
        numbers = [number for _, number in found]
        assert numbers == list(range(len(numbers))), name
        assert 15 < len(numbers) < 35, name
        assert losses["cut file"] >= 1, name


def test_what_an_mp4_that_was_cut_lacks_is_counted(tmp_path):
    path = write_clip(tmp_path / "a.mp4", EVEN_MS, "libx264", {"movflags": "faststart"}, **NO_B)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    found, losses = read(path)
    assert len(found) + losses.pop("cut file") + sum(losses.values()) == 40


def test_damage_inside_a_file_costs_the_pictures_up_to_the_next_key_frame(tmp_path):
    path = write_clip(tmp_path / "a.mp4", EVEN_MS, **NO_B)
    content = bytearray(path.read_bytes())
    middle = (content.index(b"mdat") + content.index(b"moov")) // 2
    content[middle : middle + 30] = bytes(30)
    path.write_bytes(content)
    found, losses = read(path)
    assert losses.pop("damaged h264") == 1
    missing = set(range(40)) - {number for _, number in found}
    assert len(missing) == 1 + losses.pop("after a damaged frame", 0)
    assert max(missing) % 10 == 9
    assert losses == {}
    require_right(found, EVEN_MS, 0.01)


@pytest.mark.parametrize(
    ("name", "codec", "options", "reason"),
    [
        ("a.mp4", "libx264", NO_B, "after a lost frame"),
        ("b.mp4", "libx264", H264, "after a lost frame"),
        ("a.mkv", "libx264", NO_B, "after a lost frame"),
        ("a.avi", "libx264", NO_B, "after a lost frame"),
        ("b.mkv", "libx265", OPEN_H265, "damaged h265"),
    ],
)
def test_what_is_made_from_a_packet_that_is_not_there_is_told(
    tmp_path, name, codec, options, reason
):
    whole = write_clip(tmp_path / f"whole-{name}", EVEN_MS, codec, **options)
    path = without_packet(whole, tmp_path / name, 11)
    found, losses = read(path)
    require_right(found, EVEN_MS, 0.5)
    assert len(found) + losses.pop(reason) + losses.pop("after a damaged frame", 0) == 39
    assert losses == {}
    assert {number for _, number in found} >= set(range(23, 40))


def without_packet(whole, path, gone):
    """Write a video once more without its packet of that number, as a recorder that lost it."""
    import av

    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        source = old.streams.video[0]
        stream = new.add_stream_from_template(source)
        packets = [packet for packet in old.demux(source) if packet.size]
        for packet in packets[:gone] + packets[gone + 1 :]:
            packet.stream = stream
            new.mux(packet)
    return path


def test_h264_with_b_frames_in_an_avi_is_refused_with_the_command_that_helps(tmp_path):
    path = write_clip(tmp_path / "a.avi", EVEN_MS, **H264)
    with pytest.raises(FrameError, match=r"B-frames in an \.avi.*: ffmpeg -i a\.avi a\.mp4"):
        list(video(path).entries(DamageLog()))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no video", "cut before its index was written, or is of another kind"),
        (b"", "cut before its index was written, or is of another kind"),
        # FFmpeg would follow it to another file, or into the network
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.mp4\n#EXT-X-ENDLIST\n", "kind"),
        (b"ffconcat version 1.0\nfile other.mp4\n", "kind"),
    ],
)
def test_what_is_no_video_opens_no_other_file(tmp_path, content, reason):
    write_clip(tmp_path / "other.mp4", EVEN_MS[:3])
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(FrameError, match=reason):
        list(video(path).entries(DamageLog()))


def test_listing_decodes_no_picture(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", EVEN_MS, **H264)
    monkeypatch.delattr("edge_agent.data.frames.video.decoder.Pictures._decoding")
    frames = list(frames_of(video(path), DamageLog()))
    assert len({bytes(frame.data) for frame in frames}) == 40


def test_without_the_extra_one_error_names_the_command(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", EVEN_MS[:3])
    monkeypatch.setitem(sys.modules, "av", None)
    camera = CameraFrames(source_path("rtsp://me:s3cret@cam/live"))
    for source, name in ((video(path), "a.mp4"), (camera, "rtsp://cam/live")):
        expected = rf"^{name}: is video, which needs PyAV; run: pip install 'fleetlearn\[video\]'"
        with pytest.raises(FrameError, match=expected):
            list(source.entries(DamageLog()))
