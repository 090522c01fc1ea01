from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from video_clips import HEIGHT, WIDTH, packets, protobuf_video

from edge_agent.data.frames.cdr import parse_ffmpeg, parse_video
from edge_agent.data.frames.video.nal import Headers
from edge_agent.data.frames.video.protobuf import parse_protobuf_video
from fleet_model.errors import FrameError

MESSAGE = protobuf_video(1_760_000_000_123_456_789, b"packet" * 9, "h265")


def test_a_packet_without_start_codes_is_refused():
    with pytest.raises(FrameError, match="5 bytes of h264 without a start code") as caught:
        Headers("h264").packet(b"\0\0\0\5A")
    assert caught.value.reason == "damaged h264"


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_headers_say_key_frames_and_size(codec):
    headers = Headers(codec)
    found = [(number, headers.packet(data)) for number, data in packets(codec, 25)]
    assert [number for number, info in found if info.is_key] == [0, 10, 20]
    assert not any(info.lost for _, info in found)
    assert headers.size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("options", [{"x264-params": "cqm=jvt"}, {"profile": "baseline"}])
def test_the_size_is_found_behind_whatever_an_encoder_writes_first(options):
    headers = Headers("h264")
    headers.packet(packets("libx264", 1, **options)[0][1])
    assert headers.size == (WIDTH, HEIGHT)


@given(st.binary(max_size=300), st.sampled_from(["h264", "h265"]))
@example(b"\0\0\1\x67" + b"\x64\0\x1e" + bytes(200), "h264")
@example(b"\0\0\1\x42\1" + bytes(200), "h265")
@example(b"\0\0\1\x06", "h264")
def test_any_bytes_are_a_packet_or_refused(content, codec):
    headers = Headers(codec)
    for data in (content, b"\0\0\1\x67" + content, b"\0\0\1\x42\1" + content):
        with suppress(FrameError):
            headers.packet(data)


@given(st.integers(0, len(MESSAGE) - 1), st.integers(0, 255), st.binary(max_size=60))
def test_any_message_is_parsed_or_refused(at, byte, content):
    changed = MESSAGE[:at] + bytes([byte]) + MESSAGE[at + 1 :]
    for parse in (parse_protobuf_video, parse_video, parse_ffmpeg):
        for data in (changed, changed[:at], content, b"\0\1\0\0" + content):
            for encoding in ("cdr", "ros1"):
                with suppress(FrameError):
                    parse(data, encoding)


def test_a_protobuf_message_is_its_fields():
    message = parse_protobuf_video(MESSAGE + b"\x28\x05", "protobuf")  # and an unknown one
    assert message.stamp_ns == 1_760_000_000_123_456_789
    assert (message.frame_id, message.format) == ("camera", "h265")
    assert bytes(message.payload) == b"packet" * 9
