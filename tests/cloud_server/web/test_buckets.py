import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.web.buckets import MAX_ADDRESSES, Buckets, address_key

pytestmark = pytest.mark.base


def test_a_burst_passes_and_then_the_rate():
    buckets = Buckets(rate=2.0, burst=3.0)

    assert [buckets.take("a", 10.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert buckets.take("a", 10.5) == 0.0
    assert buckets.take("a", 10.5) == 0.5


def test_looking_takes_nothing_and_addresses_do_not_share():
    buckets = Buckets(rate=1.0, burst=1.0)
    buckets.take("a", 0.0)

    assert [buckets.wait_s("a", 0.0)] * 2 == [buckets.wait_s("a", 0.0)] * 2 == [1.0, 1.0]
    assert buckets.wait_s("b", 0.0) == 0.0
    assert buckets.take("b", 0.0) == 0.0


@given(
    rate=st.floats(0.1, 100), burst=st.floats(1, 100), gaps=st.lists(st.floats(0, 5), max_size=200)
)
def test_never_more_than_the_burst_and_the_rate_since(rate, burst, gaps):
    buckets, now, taken = Buckets(rate, burst), 0.0, 0
    for gap in gaps:
        now += gap
        taken += buckets.take("a", now) == 0.0

    assert taken <= burst + now * rate + 1e-6


def test_a_million_addresses_take_no_more_memory_than_a_few_thousand():
    buckets = Buckets(rate=1.0, burst=1.0)
    for number in range(MAX_ADDRESSES + 500):
        buckets.take(str(number), 0.0)

    assert len(buckets) == MAX_ADDRESSES
    assert buckets.wait_s(str(MAX_ADDRESSES + 499), 0.0) == 1.0


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_an_ipv6_host_cannot_have_more_than_one_address(host, key):
    assert address_key(host) == key
