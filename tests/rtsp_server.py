"""A camera that speaks RTSP on the loopback interface: h264 over TCP, interleaved (RFC 2326, 6184).

It serves one clip after the other and closes the connection at the end of each, as a camera does
that is restarted.
"""

import base64
import socket
import struct
import threading
from contextlib import suppress

_PAYLOAD = 1200  # bytes; larger NAL units are sent in fragments
_TYPE = 96


class RtspServer:
    """Listens from the beginning to `close`; `clips` are lists of packets in Annex B, or endless.

    Behind the last one, connections get no picture.
    """

    def __init__(self, clips, user="", password="", port=0):
        self._clips = iter(clips)
        self._expected = base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        self.requests: list[str] = []
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        for each in [self._socket, *self._connections]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection):
        stream = connection.makefile("rb")
        with suppress(OSError):
            while request := self._request(stream):
                method, headers = request
                self._answer(connection, method, headers)
                if method == "PLAY":
                    self._play(connection)
                    connection.shutdown(socket.SHUT_RDWR)

    def _request(self, stream):
        lines = []
        while (line := stream.readline().decode().strip()) or not lines:
            if not line and not lines:
                return None
            lines.append(line)
        self.requests.append(lines[0])
        headers = dict(line.split(": ", 1) for line in lines[1:])
        return lines[0].split()[0], headers

    def _answer(self, connection, method, headers):
        number, status, more, body = headers["CSeq"], "200 OK", [], ""
        if self._expected and headers.get("Authorization") != f"Basic {self._expected}":
            status, more = "401 Unauthorized", ['WWW-Authenticate: Basic realm="camera"']
        elif method == "OPTIONS":
            more = ["Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"]
        elif method == "DESCRIBE":
            body = (
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
                f"m=video 0 RTP/AVP {_TYPE}\r\na=rtpmap:{_TYPE} H264/90000\r\n"
                f"a=fmtp:{_TYPE} packetization-mode=1\r\na=control:track0\r\n"
            )
            more = ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        elif method == "SETUP":
            more = ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]
        elif method == "PLAY":
            more = ["Session: 1"]
        lines = [f"RTSP/1.0 {status}", f"CSeq: {number}", *more, "", body]
        connection.sendall("\r\n".join(lines).encode())

    def _play(self, connection):
        sequence = 0
        for number, packet in enumerate(next(self._clips, ())):
            units = [
                unit for unit in packet.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit
            ]
            pieces = [piece for unit in units for piece in _pieces(unit)]
            for index, piece in enumerate(pieces):
                marker = (index == len(pieces) - 1) << 7
                head = struct.pack(
                    ">BBHII", 0x80, marker | _TYPE, sequence & 0xFFFF, number * 3000, 7
                )
                content = head + piece
                connection.sendall(b"$\0" + struct.pack(">H", len(content)) + content)
                sequence += 1


def _pieces(unit):
    """Return what RTP packets hold of a NAL unit: all of it, or fragments (FU-A)."""
    if len(unit) <= _PAYLOAD:
        return [unit]
    body = [unit[at : at + _PAYLOAD] for at in range(1, len(unit), _PAYLOAD)]
    head = unit[0] & 0xE0 | 28
    flags = [0x80, *[0] * (len(body) - 2), 0x40]
    return [
        bytes([head, flag | unit[0] & 0x1F]) + part for flag, part in zip(flags, body, strict=True)
    ]
