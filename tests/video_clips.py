"""Small videos whose frames have their number painted in, as files and as packets in bags."""

from fractions import Fraction

import numpy as np

WIDTH, HEIGHT = 160, 120
_BITS, _SIDE = 8, 14
ENCODERS = {"h264": "libx264", "h265": "libx265"}
# A picture is h264's or h265's key frame every ten, and at no other place.
CLOSED = {
    "h264": {"x264-params": "keyint=10:min-keyint=10:scenecut=0"},
    "h265": {"x265-params": "keyint=10:min-keyint=10:scenecut=0:open-gop=0:log-level=none"},
}
_DEFINITIONS = {
    "foxglove_msgs/msg/CompressedVideo": (
        "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
    ),
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": (
        "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\n"
        "uint8 flags\nbool is_bigendian\nuint8[] data\n"
    ),
}


def painted(number, width=WIDTH, height=HEIGHT):
    """Return a picture that `number_in` reads: a row of squares, and one that moves."""
    picture = np.full((height, width, 3), 60, np.uint8)
    for bit in range(_BITS):
        if number >> bit & 1:
            picture[20:60, 10 + bit * 18 : 10 + bit * 18 + _SIDE] = 230
    left = number * 3 % (width - 20)
    picture[70:100, left : left + 20] = (200, 40, 40)
    return picture


def number_in(picture):
    """Return the number that was painted."""
    squares = [picture[30:50, 12 + bit * 18 : 20 + bit * 18].mean() for bit in range(_BITS)]
    return sum((square > 140) << bit for bit, square in enumerate(squares))


def packets(codec, count, b_frames=0, **options):
    """Return [(number of the picture, its packet)] in the order of decoding."""
    import av

    context = av.CodecContext.create(ENCODERS.get(codec, codec), "w")
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 30), 30
    given = {name: text + f":bframes={b_frames}" for name, text in CLOSED.get(codec, {}).items()}
    context.options = given | options
    found = []
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(painted(number), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 30)
        found += context.encode(frame)
    return [(packet.pts, bytes(packet)) for packet in [*found, *context.encode(None)]]


def write_clip(path, times_ms, codec="libx264", container=None, **options):
    """Write a video file whose picture number n is shown at times_ms[n]."""
    import av

    tick = Fraction(1, 30 if path.suffix.lower() == ".avi" else 90_000)  # an .avi counts frames
    with av.open(str(path), "w", container_options=container or {}) as clip:
        stream = clip.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = tick
        for number, ms in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(painted(number), format="rgb24")
            frame.pts, frame.time_base = round(Fraction(ms) / 1000 / tick), tick
            clip.mux(stream.encode(frame))
        clip.mux(stream.encode(None))
    return path


def typestore(stores=None):
    """Return rosbags' types and those of video."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(stores or Stores.ROS2_HUMBLE)
    for name, definition in _DEFINITIONS.items():
        store.register(get_types_from_msg(definition, name))
    return store


def foxglove(store, stamp_ns, data, form="h264"):
    time = store.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
    kind = store.types["foxglove_msgs/msg/CompressedVideo"]
    return kind(time, "camera", np.frombuffer(data, np.uint8), form)


def ffmpeg(store, stamp_ns, data, form="libx264", pts=0, header=None):
    header = header or _header(store, stamp_ns)
    kind = store.types["ffmpeg_image_transport_msgs/msg/FFMPEGPacket"]
    content = np.frombuffer(data, np.uint8)
    return kind(header, WIDTH, HEIGHT, form, pts, 0, False, content)


def compressed_image(store, stamp_ns, data, form="h264"):
    kind = store.types["sensor_msgs/msg/CompressedImage"]
    return kind(_header(store, stamp_ns), form, np.frombuffer(data, np.uint8))


def _header(store, stamp_ns):
    time = store.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
    kind = store.types["std_msgs/msg/Header"]
    is_ros1 = "seq" in kind.__dataclass_fields__
    return kind(*((0, time, "camera") if is_ros1 else (time, "camera")))


def protobuf_video(stamp_ns, data, form="h264"):
    """Return a serialized foxglove.CompressedVideo."""
    seconds, nanoseconds = divmod(stamp_ns, 10**9)
    time = b"\x08" + _varint(seconds) + b"\x10" + _varint(nanoseconds)
    fields = [(1, time), (2, b"camera"), (3, data), (4, form.encode())]
    return b"".join(bytes([n << 3 | 2]) + _varint(len(v)) + v for n, v in fields)


def _varint(value):
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def write_protobuf_mcap(path, stamped):
    """Write (bag time, message) into a bare .mcap as Foxglove's own recorders do."""
    from mcap.writer import Writer

    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        schema = writer.register_schema("foxglove.CompressedVideo", "protobuf", b"")
        channel = writer.register_channel("/camera/video", "protobuf", schema)
        for bag_ns, content in stamped:
            writer.add_message(channel, bag_ns, content, bag_ns)
        writer.finish()
    return path
