"""Links and sessions alone, with a clock that is set by hand."""

import pytest

from cloud_server.console.access import (
    ATTEMPTS,
    EACH_S,
    IDLE_S,
    LINK_S,
    MAX_LINKS,
    MAX_SESSIONS,
    SESSION_S,
    Access,
    TooManyLoginsError,
)
from fleet_model.errors import RefusedError


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def access(clock):
    return Access(clock)


def code_of(link):
    path, _, code = link.partition("?code=")
    assert path == "/console/login"
    return code


def cookie(access, token):
    return {b"cookie": f"other=1; {access.cookie}={token}".encode()}


def log_in(access, address="192.0.2.1"):
    return cookie(access, access.log_in(code_of(access.link()), address))


def test_a_link_opens_one_session_and_no_second(access):
    code = code_of(access.link())
    headers = cookie(access, access.log_in(code, "192.0.2.1"))
    assert access.session(headers) is not None
    with pytest.raises(RefusedError, match="was used"):
        access.log_in(code, "192.0.2.1")


def test_a_link_that_is_too_old_opens_nothing(access, clock):
    code = code_of(access.link())
    clock.now_s += LINK_S
    with pytest.raises(RefusedError, match="older than five minutes"):
        access.log_in(code, "192.0.2.1")


def test_a_session_ends_when_nobody_looks_and_after_some_hours(access, clock):
    headers = log_in(access)
    for _ in range(20):
        clock.now_s += SESSION_S / 20
        found = access.session(headers)
    assert found is None
    headers = log_in(access)
    clock.now_s += IDLE_S
    assert access.session(headers) is None


def test_logging_out_ends_one_session_and_the_operator_all(access):
    one, other = log_in(access), log_in(access)
    access.end(one)
    assert access.session(one) is None
    assert access.session(other) is not None
    code = code_of(access.link())
    assert access.end_all() == 1
    assert access.session(other) is None
    assert access.visitor("/console", {}) is None  # closed again
    with pytest.raises(RefusedError):
        access.log_in(code, "192.0.2.1")


def test_an_address_that_tries_too_often_waits_and_others_do_not(access, clock):
    for _ in range(ATTEMPTS):
        with pytest.raises(RefusedError, match="was used"):
            access.log_in("guessed", "192.0.2.1")
    with pytest.raises(TooManyLoginsError):
        access.log_in(code_of(access.link()), "192.0.2.1")
    log_in(access, "192.0.2.2")
    clock.now_s += EACH_S
    log_in(access)


def test_links_and_sessions_are_bounded_and_the_oldest_goes(access, clock):
    codes = [code_of(access.link()) for _ in range(MAX_LINKS + 1)]
    with pytest.raises(RefusedError):
        access.log_in(codes[0], "192.0.2.1")
    sessions = []
    for _ in range(MAX_SESSIONS + 1):
        clock.now_s += EACH_S
        sessions.append(log_in(access))
    assert access.session(sessions[0]) is None
    assert access.session(sessions[-1]) is not None


def test_pages_are_for_nobody_before_the_first_link(access):
    assert access.visitor("/console", {}) is None
    headers = log_in(access)
    assert access.visitor("/console", {}) == ""  # a stranger, who may see the login
    assert access.visitor("/console/robots/r1", headers)
    assert access.visitor("/consoles", headers) is None
    assert access.visitor("/fleetlearn/v1/admin/status", headers) is None


def test_the_cookie_is_for_this_host_over_tls_and_for_no_script_or_other_site(access):
    told = access.set_cookie("x")
    assert told.startswith("__Host-console-")
    for word in ("Secure", "HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={SESSION_S:.0f}"):
        assert word in told.split("; ")
    assert "Max-Age=0" in access.set_cookie("")


def test_no_secret_is_kept_or_shown(access):
    code = code_of(access.link())
    token = access.log_in(code, "192.0.2.1")
    kept = repr(vars(access))
    found = access.session(cookie(access, token))
    for secret in (code, token, found.form_token):
        assert secret not in kept
