"""How often one address may do something: token buckets in a table of bounded size."""

import ipaddress
from collections import OrderedDict

MAX_ADDRESSES = 4096  # about 1 MB; the one that was used longest ago is forgotten


def address_key(host: str) -> str:
    """Return what counts as one address: an IPv4 address, or the /64 that an IPv6 host owns."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:  # a listener on "::" sees IPv4 peers like this
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


class Buckets:
    """One bucket an address: it holds `burst` tokens and gets `rate` new ones each second."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = max(1.0, burst)
        self._filled: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, at

    def __len__(self) -> int:
        return len(self._filled)

    def wait_s(self, key: str, now_s: float) -> float:
        """Return 0 if the address has a token, else the seconds until it has one."""
        return max(0.0, (1.0 - self._tokens(key, now_s)) / self._rate)

    def take(self, key: str, now_s: float) -> float:
        """Take a token; return as `wait_s` does, and then nothing is taken."""
        tokens = self._tokens(key, now_s)
        if tokens < 1.0:
            return (1.0 - tokens) / self._rate
        self._filled[key] = (tokens - 1.0, now_s)
        self._filled.move_to_end(key)
        if len(self._filled) > MAX_ADDRESSES:
            self._filled.popitem(last=False)
        return 0.0

    def _tokens(self, key: str, now_s: float) -> float:
        tokens, at_s = self._filled.get(key, (self._burst, now_s))
        return min(self._burst, tokens + (now_s - at_s) * self._rate)
