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
def server_dir(tmp_path):
    server_dir = ServerDirectory(tmp_path)
    make_secrets(server_dir, NAMES, NOW)
    return server_dir


def shake_hands(server_dir, name, trusted=None):
    """Let a client that trusts the CA of `trusted` meet the server of `place` as `name`."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(
        server_dir.certificates / "server.crt", server_dir.secrets / "server.key"
    )
    client = ssl.create_default_context(cafile=(trusted or server_dir).certificates / "ca.crt")
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
def test_a_client_that_has_the_authority_trusts_the_server_under_each_name(server_dir, name):
    assert shake_hands(server_dir, name)["issuer"] == ((("commonName", "fleetlearn server CA"),),)


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.2"])
def test_a_server_under_another_name_is_not_trusted(server_dir, name):
    with pytest.raises(ssl.SSLCertVerificationError, match=r"(Hostname|IP address) mismatch"):
        shake_hands(server_dir, name)


def test_the_server_of_another_authority_is_not_trusted(server_dir, tmp_path):
    other = ServerDirectory(tmp_path / "other")
    make_secrets(other, NAMES, NOW)

    with pytest.raises(ssl.SSLCertVerificationError, match="certificate verify failed"):
        shake_hands(other, "localhost", trusted=server_dir)


def test_a_new_server_certificate_is_trusted_by_the_robots_of_the_old_one(server_dir):
    old = (server_dir.certificates / "server.crt").read_bytes()
    ca = (server_dir.certificates / "ca.crt").read_bytes()
    token = server_dir.admin_token.read_text()

    make_server_certificate(server_dir, ("new.example",), NOW)

    assert (server_dir.certificates / "server.crt").read_bytes() != old
    assert (server_dir.certificates / "ca.crt").read_bytes() == ca
    assert server_dir.admin_token.read_text() == token
    shake_hands(server_dir, "new.example")


def test_a_certificate_ends_before_common_clients_refuse_it(server_dir):
    ends = shake_hands(server_dir, "localhost")["notAfter"]
    days = (datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), timezone.utc) - NOW).days

    assert 800 < days <= 825


def test_an_expired_certificate_is_not_trusted(server_dir):
    make_server_certificate(server_dir, NAMES, NOW - timedelta(days=826))

    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake_hands(server_dir, "localhost")


def test_secrets_are_readable_by_their_owner_only(server_dir):
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in server_dir.secrets.iterdir()}

    assert modes == {"ca.key": 0o600, "server.key": 0o600, "admin.token": 0o600}
    assert stat.S_IMODE(server_dir.secrets.stat().st_mode) == 0o700


def test_every_directory_has_a_token_of_its_own(server_dir, tmp_path):
    other = ServerDirectory(tmp_path / "other")
    make_secrets(other, NAMES, NOW)

    assert len(server_dir.admin_token.read_text().strip()) >= 40
    assert other.admin_token.read_text() != server_dir.admin_token.read_text()


def test_a_name_that_is_as_long_as_dns_allows_is_taken(server_dir):
    name = ".".join(["a" * 60] * 4)

    make_server_certificate(server_dir, (name,), NOW)

    shake_hands(server_dir, name)


def test_a_missing_authority_key_is_named(server_dir):
    (server_dir.secrets / "ca.key").unlink()

    with pytest.raises(SettingsError, match=r"ca\.key: missing; was `cloud-server init` run"):
        make_server_certificate(server_dir, NAMES, NOW)
