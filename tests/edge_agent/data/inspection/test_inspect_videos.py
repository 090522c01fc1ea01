from video_clips import number_in, packets, protobuf_video, write_clip, write_protobuf_mcap

from edge_agent.data.inspection.inspect import inspect

T0 = 1_760_000_000_000_000_000


def test_a_video_topic_is_a_camera(tmp_path):
    clip = packets("h264", 40)[4:]
    messages = [(T0 + n * 10**8, protobuf_video(T0 + n * 10**8, data)) for n, data in clip]
    found = inspect(write_protobuf_mcap(tmp_path / "a.mcap", messages))
    assert [(t.name, t.messages, round(t.rate_hz)) for t in found.topics] == [
        ("/camera/video", 36, 10)
    ]
    assert [(d.kind, d.count) for d in found.damage] == [("before the first key frame", 6)]
    (camera,) = found.cameras
    assert len(camera.damaged_ns) == 6
    seen = [sample for sample in camera.samples if sample.picture is not None]
    assert {sample.remark for sample in seen} == {"h264 160 x 120"}
    assert [(s.bag_ns - T0) // 10**8 for s in seen] == [number_in(s.picture) for s in seen]
    assert len(seen) > 10


def test_videos_are_inspected_as_topics_are(tmp_path):
    (tmp_path / "set").mkdir()
    times = [n * 100 for n in range(20)] + [4000 + n * 100 for n in range(20)]
    write_clip(tmp_path / "set/a.mp4", times)
    (tmp_path / "set/b.mp4").write_bytes(b"no video")
    found = inspect(tmp_path / "set")
    assert [(t.name, t.type, t.messages) for t in found.topics] == [
        ("a.mp4", "h264", 40),
        ("b.mp4", "video", 0),
    ]
    assert [(gap.begins_ns, gap.seconds) for gap in found.topics[0].gaps] == [(1_900_000_000, 2.1)]
    assert [d.kind for d in found.damage] == ["damaged file"]
    shown = [(s.bag_ns, number_in(s.picture)) for s in found.cameras[0].samples]
    assert [times[number] * 1_000_000 for _, number in shown] == [bag_ns for bag_ns, _ in shown]
    assert [t.name for t in inspect(tmp_path / "set/a.mp4").topics] == ["a.mp4"]
