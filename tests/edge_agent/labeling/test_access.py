import pytest

from edge_agent.labeling.access import Access, RefusedRequestError

pytestmark = pytest.mark.base
HOST = {b"host": b"localhost:8765"}
OWN = {**HOST, b"origin": b"http://localhost:8765"}


@pytest.fixture
def access():
    return Access(token="secret", cookie="label-1")


COOKIE = {b"cookie": b"other=1; label-1=secret"}


def refused(access, method, headers, query=b""):
    with pytest.raises(RefusedRequestError) as error:
        access.require(method, headers, query)
    return str(error.value)


def test_the_printed_address_opens_the_page_and_the_cookie_all_else(access):
    assert access.require("GET", HOST, b"token=secret") is True
    assert access.require("GET", HOST | COOKIE, b"") is False
    assert access.require("POST", OWN | COOKIE, b"") is False
    name, value = access.set_cookie
    assert (name, value) == (b"set-cookie", b"label-1=secret; Path=/; HttpOnly; SameSite=Strict")


@pytest.mark.parametrize(
    "headers",
    [{}, {b"cookie": b"label-1=other"}, {b"cookie": b"label-2=secret"}, {b"cookie": b"secret"}],
)
def test_without_the_token_there_is_nothing(access, headers):
    assert "with its token" in refused(access, "GET", HOST | headers)
    assert "with its token" in refused(access, "GET", HOST | headers, b"token=other")


@pytest.mark.parametrize("host", [b"evil.example.com", b"evil.example.com:8765", b"10.0.0.7:8765"])
def test_by_another_name_there_is_nothing(access, host):
    assert "localhost" in refused(access, "GET", {b"host": host, **COOKIE})
    assert "localhost" in refused(access, "GET", {b"host": host}, b"token=secret")


@pytest.mark.parametrize(
    "origin", [b"http://localhost:9999", b"https://localhost:8765", b"http://evil.example", b"null"]
)
def test_a_page_of_another_origin_gets_nothing(access, origin):
    headers = HOST | COOKIE | {b"origin": origin}
    assert "another origin" in refused(access, "GET", headers)
    assert "another origin" in refused(access, "POST", headers)


def test_an_answer_without_an_origin_is_refused(access):
    assert "no Origin" in refused(access, "POST", HOST | COOKIE)


@pytest.mark.parametrize("site", [b"cross-site", b"same-site"])
def test_what_another_site_embeds_is_refused(access, site):
    assert "another site" in refused(access, "GET", HOST | COOKIE | {b"sec-fetch-site": site})
    assert access.require("GET", HOST | {b"sec-fetch-site": site}, b"token=secret")


def test_tokens_are_fresh_and_not_shown():
    one, other = Access(), Access()
    assert one.token != other.token
    assert len(one.token) >= 43
    assert one.token not in repr(one)
