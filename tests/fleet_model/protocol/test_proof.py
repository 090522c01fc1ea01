import base64
import shutil
import stat
import subprocess
from datetime import datetime, timedelta, timezone

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from fleet_model.errors import RefusedError, SettingsError
from fleet_model.protocol.proof import (
    KEY_HEADER,
    NAMED_SIGNATURE_HEADER,
    SERVER_HEADER,
    SIGNATURE_HEADER,
    TIME_HEADER,
    check,
    fingerprint,
    make_key,
    parse_public,
    public_line,
    read_key,
    server_name,
    sign,
    utc_now,
)

pytestmark = pytest.mark.base

NOW = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)
KEY, OTHER = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
LINE = public_line(KEY.public_key())
PATH = "/fleetlearn/v1/robot/channels/stable?active=3"
HEADERS = dict(sign(KEY, "GET", PATH, NOW))
HERE, THERE = "ab" * 32, "cd" * 32  # two servers
NAMED = dict(sign(KEY, "GET", PATH, NOW, HERE))


def test_a_signed_request_names_its_key():
    assert check(HEADERS, "GET", PATH, NOW).line == LINE


def test_an_agent_that_names_no_server_signs_method_path_and_time_only():
    assert SERVER_HEADER not in HEADERS
    assert not check(HEADERS, "GET", PATH, NOW, {HERE}).names_server
    signed = f"fleetlearn\nGET\n{PATH}\n{NOW.isoformat()}".encode()  # since the first agents
    signature = base64.b64decode(HEADERS[SIGNATURE_HEADER])
    KEY.public_key().verify(signature, signed, ec.ECDSA(hashes.SHA256()))


def test_a_request_that_names_this_server_is_taken_and_seen_to_name_it():
    proof = check(NAMED, "GET", PATH, NOW, {THERE, HERE})

    assert (proof.line, proof.names_server) == (LINE, True)


def test_a_request_that_another_server_repeats_here_is_refused():
    with pytest.raises(RefusedError, match=r"signed for another server; copy kit/ca\.crt"):
        check(NAMED, "GET", PATH, NOW, {THERE})


def test_a_name_that_is_put_in_or_taken_out_later_is_of_no_use():
    renamed = {**NAMED, SERVER_HEADER: THERE}
    with pytest.raises(RefusedError, match="signature does not fit"):
        check(renamed, "GET", PATH, NOW, {THERE})
    moved = {**NAMED, SIGNATURE_HEADER: NAMED[NAMED_SIGNATURE_HEADER], SERVER_HEADER: ""}
    with pytest.raises(RefusedError, match="signature does not fit"):
        check(moved, "GET", PATH, NOW, {HERE})
    claimed = {**HEADERS, SERVER_HEADER: HERE, NAMED_SIGNATURE_HEADER: HEADERS[SIGNATURE_HEADER]}
    with pytest.raises(RefusedError, match="signature does not fit"):
        check(claimed, "GET", PATH, NOW, {HERE})


def test_an_older_server_finds_the_signature_that_it_knows():
    older = {name: NAMED[name] for name in (KEY_HEADER, TIME_HEADER, SIGNATURE_HEADER)}

    assert check(older, "GET", PATH, NOW).line == LINE


def authority(key, days):
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a server")])
    certificate = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), NOW, NOW + timedelta(days=days)
    ).sign(key, hashes.SHA384())
    return certificate.public_bytes(serialization.Encoding.PEM)


def test_a_servers_name_is_its_authoritys_key():
    name = server_name(authority(KEY, 10))

    assert len(bytes.fromhex(name)) == 32
    assert server_name(authority(KEY, 20)) == name != server_name(authority(OTHER, 10))


def test_two_authorities_make_one_name_in_any_order_that_neither_has_alone():
    first, second = authority(KEY, 10), authority(OTHER, 10)

    both = server_name(first + second)

    assert both == server_name(second + first + first)
    assert both not in {server_name(first), server_name(second)}


def test_a_file_without_a_certificate_names_no_server():
    with pytest.raises(ValueError, match="PEM"):
        server_name(b"-----BEGIN NOTHING-----")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", PATH),
        ("GET", PATH.replace("stable", "canary")),
        ("GET", PATH.replace("3", "4")),
        ("GET", PATH.partition("?")[0]),
        ("GET", PATH + "\n"),
    ],
)
def test_a_signature_is_of_no_use_for_another_request(method, path):
    with pytest.raises(RefusedError, match="signature does not fit"):
        check(HEADERS, method, path, NOW)


def test_the_time_is_signed_too():
    later = {**HEADERS, TIME_HEADER: (NOW + timedelta(hours=1)).isoformat()}

    with pytest.raises(RefusedError, match="signature does not fit"):
        check(later, "GET", PATH, NOW + timedelta(hours=1))


def test_a_signature_does_not_fit_another_robots_key():
    theirs = public_line(OTHER.public_key()).split()[1]

    with pytest.raises(RefusedError, match="signature does not fit"):
        check({**HEADERS, KEY_HEADER: theirs}, "GET", PATH, NOW)


@pytest.mark.parametrize("header", [KEY_HEADER, TIME_HEADER, SIGNATURE_HEADER])
def test_a_request_without_proof_is_told_who_the_path_is_for(header):
    with pytest.raises(RefusedError, match="for enrolled robots: the request proves no key"):
        check({k: v for k, v in HEADERS.items() if k != header}, "GET", PATH, NOW)


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (6, "the robot's clock is 6 s ahead of the server's; set it"),
        (4000, "clock is 4000 s ahead"),
        (-301, "clock is 301 s behind"),
    ],
)
def test_a_robot_whose_clock_is_off_learns_by_how_much(seconds, message):
    headers = sign(KEY, "GET", PATH, NOW + timedelta(seconds=seconds))

    with pytest.raises(RefusedError, match=message):
        check(headers, "GET", PATH, NOW)


@pytest.mark.parametrize("seconds", [4.9, 0, -299])
def test_a_clock_that_is_a_little_off_is_accepted(seconds):
    headers = sign(KEY, "GET", PATH, NOW + timedelta(seconds=seconds))

    assert check(headers, "GET", PATH, NOW).line == LINE


def test_a_time_without_zone_is_refused():
    headers = sign(KEY, "GET", PATH, NOW.replace(tzinfo=None))

    with pytest.raises(RefusedError):
        check(headers, "GET", PATH, NOW)


def test_what_a_stranger_adds_to_the_key_never_comes_out():
    """The line is logged in a command that the operator may paste into a shell."""
    stranger = {**HEADERS, KEY_HEADER: HEADERS[KEY_HEADER] + " '; rm -rf ~; '"}

    assert check(stranger, "GET", PATH, NOW).line == LINE


def test_a_key_of_another_curve_is_refused():
    weak = ec.generate_private_key(ec.SECP256R1())
    stamp = NOW.isoformat()
    text = f"fleetlearn\nGET\n{PATH}\n{stamp}".encode()
    headers = {
        KEY_HEADER: public_line(weak.public_key()).split()[1],
        TIME_HEADER: stamp,
        SIGNATURE_HEADER: base64.b64encode(weak.sign(text, ec.ECDSA(hashes.SHA256()))).decode(),
    }

    with pytest.raises(RefusedError):
        check(headers, "GET", PATH, NOW)


hostile = st.text(max_size=120) | st.binary(max_size=90).map(
    lambda content: base64.b64encode(content).decode()
)


@given(
    key=hostile | st.just(HEADERS[KEY_HEADER]),
    stamp=hostile | st.datetimes().map(datetime.isoformat) | st.just(HEADERS[TIME_HEADER]),
    signature=hostile | st.just(HEADERS[SIGNATURE_HEADER]),
    path=st.text(max_size=20),
)
def test_garbage_headers_raise_nothing_but_refused(key, stamp, signature, path):
    headers = {KEY_HEADER: key, TIME_HEADER: stamp, SIGNATURE_HEADER: signature}

    with pytest.raises(RefusedError):
        check(headers, "GET", path, NOW)


@given(position=st.integers(0, 130), value=st.integers(0, 255))
def test_a_damaged_key_raises_nothing_but_refused(position, value):
    blob = bytearray(base64.b64decode(HEADERS[KEY_HEADER]))
    blob[position] = (blob[position] + 1 + value % 255) % 256
    headers = {**HEADERS, KEY_HEADER: base64.b64encode(blob).decode()}

    with pytest.raises(RefusedError):
        check(headers, "GET", PATH, NOW)


def test_a_new_key_is_a_secret_with_a_public_half(tmp_path):
    line = make_key(tmp_path / "robot.key")

    assert stat.S_IMODE((tmp_path / "robot.key").stat().st_mode) == 0o600
    assert (tmp_path / "robot.pub").read_text() == line + "\n"
    assert public_line(read_key(tmp_path / "robot.key").public_key()) == line


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_ssh_keygen_reads_our_key_and_prints_our_fingerprint(tmp_path):
    line = make_key(tmp_path / "robot.key")

    def ssh_keygen(*arguments):
        command = ["ssh-keygen", *arguments, "-f", str(tmp_path / "robot.key")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert ssh_keygen("-y")[:2] == line.split()
    assert ssh_keygen("-l")[1] == fingerprint(line)


def test_a_missing_key_says_how_to_make_one(tmp_path):
    with pytest.raises(SettingsError, match=r"no such key; run `edge-agent enroll` first"):
        read_key(tmp_path / "robot.key")


def openssh(key, encryption=None):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        encryption or serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        openssh(KEY)[:-200],
        openssh(ed25519.Ed25519PrivateKey.generate()),
        openssh(ec.generate_private_key(ec.SECP256R1())),
    ],
)
def test_a_file_that_is_no_key_of_ours_is_a_settings_error(tmp_path, content):
    (tmp_path / "robot.key").write_bytes(content)

    with pytest.raises(SettingsError, match=r"robot\.key: "):
        read_key(tmp_path / "robot.key")


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_a_key_with_a_passphrase_is_a_settings_error(tmp_path):
    make_key(tmp_path / "robot.key")
    (tmp_path / "robot.key").chmod(0o600)
    command = ["ssh-keygen", "-p", "-N", "secret", "-f", str(tmp_path / "robot.key")]
    subprocess.run(command, check=True, capture_output=True)

    with pytest.raises(SettingsError, match="not a readable OpenSSH private key"):
        read_key(tmp_path / "robot.key")


def test_a_folder_in_the_place_of_the_key_is_a_settings_error(tmp_path):
    with pytest.raises(SettingsError, match="not a readable"):
        read_key(tmp_path)


def test_a_public_line_is_read_with_and_without_its_comment():
    for text in (LINE, LINE + " robot@hall", LINE + "\n"):
        assert public_line(parse_public(text)) == LINE


@given(text=st.text(max_size=80) | st.text(max_size=80).map("ecdsa-sha2-nistp384 {}".format))
def test_a_text_that_is_no_public_key_is_a_settings_error(text):
    with pytest.raises(SettingsError):
        parse_public(text)


def test_a_public_key_of_another_kind_is_a_settings_error():
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    line = public.public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    ).decode()

    with pytest.raises(SettingsError, match="expected an ECDSA key"):
        parse_public(line)


def test_proofs_carry_utc():
    assert utc_now().utcoffset() == timedelta(0)
