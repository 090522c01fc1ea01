"""Real bags, written by rosbags."""

import numpy as np

START_NS = 1_760_000_000_000_000_000
IMAGE, COMPRESSED, TEXT = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "std_msgs/msg/String",
)


class BagWriter:
    """Builds messages and writes them as (topic, bag time, message) into a bag."""

    START_NS = START_NS
    CAMERA, LABELS = "/camera/image/compressed", "/camera/label"

    def __init__(self):
        from rosbags.typesys import Stores, get_typestore

        self.store = get_typestore(Stores.ROS2_HUMBLE)

    def header(self, stamp_ns):
        time = self.store.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
        return self.store.types["std_msgs/msg/Header"](time, "camera")

    def jpeg(self, stamp_ns, content, form="bgr8; jpeg compressed bgr8"):
        data = np.frombuffer(content, np.uint8)
        return self.store.types[COMPRESSED](self.header(stamp_ns), form, data)

    def raw(self, stamp_ns, rows, encoding="rgb8", width=None):
        """Make an Image of (height, step) bytes."""
        height, step = rows.shape
        width = width or step // 3
        fields = (height, width, encoding, 0, step, rows.reshape(-1))
        return self.store.types[IMAGE](self.header(stamp_ns), *fields)

    def text(self, label):
        return self.store.types[TEXT](label)

    def write(self, path, messages, storage="mcap", mode=None, short_types=False):
        from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

        writer = Writer(path, version=9, storage_plugin=StoragePlugin[storage.upper()])
        if mode:
            writer.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
        with writer:
            connections = {}
            for topic, bag_ns, message in messages:
                msgtype = message.__msgtype__
                if topic not in connections:
                    connections[topic] = self._connect(writer, topic, msgtype, short_types)
                content = self.store.serialize_cdr(message, msgtype)
                writer.write(connections[topic], bag_ns, content)
        return path

    def _connect(self, writer, topic, msgtype, short_types):
        if not short_types:
            return writer.add_connection(topic, msgtype, typestore=self.store)
        definition, _ = self.store.generate_msgdef(msgtype, ros_version=2)
        return writer.add_connection(
            topic,
            msgtype.replace("/msg/", "/"),
            msgdef=definition,
            rihs01=self.store.hash_rihs01(msgtype),
        )

    def drive(self, path, labels, period_ns=500_000_000, start_ns=START_NS, **options):
        """Write one JPEG and one label per entry; "" leaves the label out."""
        messages = []
        for index, label in enumerate(labels):
            stamp = start_ns + index * period_ns
            messages.append((self.CAMERA, stamp + 9_000_000, self.jpeg(stamp, encode(index))))
            if label:
                messages.append((self.LABELS, stamp + 14_000_000, self.text(label)))
        return self.write(path, messages, **options)


def encode(index, suffix=".jpg", shape=(24, 32, 3)):
    """Return the bytes of a small picture; every index has another gray."""
    import cv2

    return cv2.imencode(suffix, np.full(shape, 20 + index % 200, np.uint8))[1].tobytes()
