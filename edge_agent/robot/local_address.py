"""Where is served: a unix socket, or a port that only this machine reaches."""

import ipaddress
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fleet_model.errors import SettingsError

UNIX = "unix:"
LONGEST_PATH = 107  # bytes, of the kernel
SOCKET_MODE = 0o660  # whoever may connect: the user and the group of this process
OF_SERVE = "choose another address in [serve] of agent.toml, or with --rest and --grpc"


class Address(NamedTuple):
    """A parsed address: a path, or host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path:
            return f"{UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, *, pod: bool = False) -> Address:
    """Return an address.

    Args:
        text: as in agent.toml.
        pod: whether other machines may reach it: something before it decides who does.

    Raises:
        ValueError: it is none, or one that other machines reach; the text says why.
    """
    if text.startswith(UNIX):
        path = text[len(UNIX) :]
        if not path.startswith("/"):
            raise ValueError("expected an absolute path behind unix:, e.g. unix:/run/robot/serve")
        if len(path.encode()) > LONGEST_PATH:
            raise ValueError(f"the path of a socket has at most {LONGEST_PATH} bytes")
        return Address(path=path)
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (port.isdecimal() and port.isascii() and 0 <= int(port[:6]) < 65536 and host):
        raise ValueError("expected 127.0.0.1:PORT, [::1]:PORT, localhost:PORT or unix:/PATH")
    if not _is_loopback(host) and not (pod and _is_number(host)):
        raise ValueError(
            f"{host} is reached by other machines, and requests are neither encrypted nor "
            "authenticated; serve on 127.0.0.1, [::1] or unix:/PATH, and put a proxy before it "
            "that does both"
        )
    return Address(host="127.0.0.1" if host == "localhost" else host, port=int(port))


def listen(address: Address, step: str = OF_SERVE) -> socket.socket:
    """Return a bound socket.

    Args:
        address: where.
        step: what to do if that cannot be.

    Raises:
        SettingsError: it is in use, or cannot be made.
    """
    if address.path:
        make_room(address, step)
        family: int = socket.AF_UNIX
        where: str | tuple[str, int] = address.path
    else:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        where = (address.host, address.port)
    # asyncio sets TCP_NODELAY only where the protocol is named: else an answer may take 40 ms.
    protocol = 0 if address.path else socket.IPPROTO_TCP
    listener = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        if not address.path:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        open_to_group(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise cannot_listen(address, error.strerror or str(error), step) from None
    return listener


def cannot_listen(address: Address, reason: str, step: str = OF_SERVE) -> SettingsError:
    """Return the error that says what to do."""
    return SettingsError(f"cannot serve on {address}: {reason}; {step}")


def make_room(address: Address, step: str = OF_SERVE) -> None:
    """Remove the socket of a process that was killed.

    Raises:
        SettingsError: somebody listens there, or it is something else than a socket.
    """
    path = Path(address.path)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise cannot_listen(address, error.strerror or str(error), step) from None
    if not stat.S_ISSOCK(mode):
        raise cannot_listen(address, "there is a file that is no socket", step)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(address.path)
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                path.unlink()
        except OSError as error:
            raise cannot_listen(address, error.strerror or str(error), step) from None
        else:
            raise cannot_listen(address, "another process listens there", step)


def open_to_group(address: Address) -> None:
    """Let the group connect to a socket; before this nobody else but the user may."""
    if address.path:
        os.chmod(address.path, SOCKET_MODE)  # noqa: PTH101  (a text, as everything here)


def remove(address: Address) -> None:
    """Remove the socket of this process, if it is one."""
    if address.path:
        with suppress(OSError):
            os.unlink(address.path)  # noqa: PTH108


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
