import socket
import ssl
import stat
import threading
from datetime import datetime, timedelta, timezone

import pytest

from cloud_server.state.certificates import make_secrets, make_server_certificate
from cloud_server.state.directory import ServerDirectory
from fleet_model.errors import SettingsError

pytestmark = pytest.mark.base

NOW = datetime.now(timezone.utc)
NAMES = ("localhost", "127.0.0.1", "::1", "robots.example")


@pytest.fixture
def place(tmp_path):
    place = ServerDirectory(tmp_path)
    make_secrets(place, NAMES, NOW)
    return place


def shake_hands(place, name, trusted=None):
    """Let a client that trusts the CA of `trusted` meet the server of `place` as `name`."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(place.certificates / "server.crt", place.secrets / "server.key")
    client = ssl.create_default_context(cafile=(trusted or place).certificates / "ca.crt")
    client.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    ours, theirs = socket.socketpair()

    def serve():
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as connection:
            return connection.getpeercert()
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("name", NAMES)
def test_a_client_that_has_the_authority_trusts_the_server_under_each_name(place, name):
    assert shake_hands(place, name)["issuer"] == ((("commonName", "fleetlearn server CA"),),)


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.2"])
def test_a_server_under_another_name_is_not_trusted(place, name):
    with pytest.raises(ssl.SSLCertVerificationError, match=r"(Hostname|IP address) mismatch"):
        shake_hands(place, name)


def test_the_server_of_another_authority_is_not_trusted(place, tmp_path):
    other = ServerDirectory(tmp_path / "other")
    make_secrets(other, NAMES, NOW)

    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        shake_hands(other, "localhost", trusted=place)


def test_a_new_server_certificate_is_trusted_by_the_robots_of_the_old_one(place):
    old = (place.certificates / "server.crt").read_bytes()
    ca = (place.certificates / "ca.crt").read_bytes()
    token = place.admin_token.read_text()

    make_server_certificate(place, ("new.example",), NOW)

    assert (place.certificates / "server.crt").read_bytes() != old
    assert (place.certificates / "ca.crt").read_bytes() == ca
    assert place.admin_token.read_text() == token
    shake_hands(place, "new.example")


def test_a_certificate_ends_before_common_clients_refuse_it(place):
    ends = shake_hands(place, "localhost")["notAfter"]
    days = (datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), timezone.utc) - NOW).days

    assert 800 < days <= 825


def test_an_expired_certificate_is_not_trusted(place):
    make_server_certificate(place, NAMES, NOW - timedelta(days=826))

    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake_hands(place, "localhost")


def test_secrets_are_readable_by_their_owner_only(place):
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.secrets.iterdir()}

    assert modes == {"ca.key": 0o600, "server.key": 0o600, "admin.token": 0o600}
    assert stat.S_IMODE(place.secrets.stat().st_mode) == 0o700


def test_every_directory_has_a_token_of_its_own(place, tmp_path):
    other = ServerDirectory(tmp_path / "other")
    make_secrets(other, NAMES, NOW)

    assert len(place.admin_token.read_text().strip()) >= 40
    assert other.admin_token.read_text() != place.admin_token.read_text()


def test_a_name_that_is_as_long_as_dns_allows_is_taken(place):
    name = ".".join(["a" * 60] * 4)

    make_server_certificate(place, (name,), NOW)

    shake_hands(place, name)


def test_a_missing_authority_key_is_named(place):
    (place.secrets / "ca.key").unlink()

    with pytest.raises(SettingsError, match=r"ca\.key: missing; was `cloud-server init` run"):
        make_server_certificate(place, NAMES, NOW)
