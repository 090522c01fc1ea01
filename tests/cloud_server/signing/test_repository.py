import threading
import time
from datetime import timedelta
from functools import partial

import pytest
from stock_client import Client
from tuf.api.exceptions import BadVersionNumberError, ExpiredMetadataError, UnsignedMetadataError

from cloud_server.signing.keys import OnlineKeys
from cloud_server.signing.repository import SignedStore
from cloud_server.signing.roles import LIFETIME
from fleet_model.errors import SettingsError
from fleet_model.protocol.proof import utc_now

ONE, TWO = {"stable": b"one"}, {"stable": b"two", "canary": b"three"}


@pytest.fixture
def store(tmp_path):
    return SignedStore(tmp_path / "store", OnlineKeys(tmp_path / "secrets"))


@pytest.fixture
def signed(store):
    store.sign(lambda: ONE, utc_now())
    return store


@pytest.fixture
def client(signed, tmp_path):
    return Client(tmp_path / "store", tmp_path / "client")


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def versions(store):
    return {role: one.signed.version for role, one in store.files.current().items()}


def test_the_stock_client_gets_what_a_channel_offers_and_nothing_of_others(signed, client):
    assert client.look() == b"one"
    assert client.look("canary") is None
    signed.sign(lambda: TWO, utc_now())
    assert (client.look(), client.look("canary")) == (b"two", b"three")
    signed.sign(lambda: {"canary": b"three"}, utc_now())
    assert client.look() is None


def test_what_says_the_same_is_not_signed_again(signed, tmp_path):
    before = files(tmp_path)
    signed.sign(lambda: ONE, utc_now())
    assert files(tmp_path) == before


def test_what_is_offered_while_another_signs_is_what_counts(signed, client):
    offers = [ONE, TWO]

    def sign():
        signed.sign(lambda: offers[-1], utc_now())

    thread = threading.Thread(target=sign)
    with signed.files.changing():
        thread.start()
        time.sleep(0.2)  # it waits
        offers.append({"stable": b"four"})
    thread.join()
    assert client.look() == b"four"


def test_a_new_offer_signs_what_it_touches_and_numbers_only_grow(signed):
    before = versions(signed)
    signed.sign(lambda: TWO, utc_now())
    after = versions(signed)
    grown = {role for role in after if after[role] > before[role]}
    assert grown == {"online", "snapshot", "timestamp"}
    signed.sign(lambda: ONE, utc_now())  # within the same second
    assert all(versions(signed)[role] > after[role] for role in grown)


@pytest.mark.parametrize("role", [role for role in LIFETIME if role != "root"])
def test_a_role_is_signed_again_when_half_of_its_time_has_passed(signed, role):
    before, now = versions(signed), utc_now()
    signed.sign(lambda: ONE, now + LIFETIME[role] / 2 - timedelta(minutes=1))
    assert versions(signed)[role] == before[role]
    signed.sign(lambda: ONE, now + LIFETIME[role] / 2 + timedelta(minutes=1))
    assert versions(signed)[role] > before[role]


def test_a_root_is_signed_again_and_clients_follow_over_many(signed, client):
    assert client.look() == b"one"
    now = utc_now()
    for _ in range(3):
        now += timedelta(days=200)
        signed.sign(lambda: ONE, now)
    assert versions(signed)["root"] == 4
    signed.sign(lambda: ONE, utc_now(), anew=True)
    assert client.look() == b"one"
    assert [name for name in client.fetcher.asked if "root" in name] == [
        f"{number}.root.json" for number in (2, 3, 4, 5)
    ]


def test_a_new_key_takes_over_and_the_old_one_signs_nothing_any_more(signed, client, tmp_path):
    assert client.look() == b"one"
    keys = OnlineKeys(tmp_path / "secrets")
    (stolen,) = keys.load().values()
    old, new = signed.rotate(ONE, utc_now())
    (keyid,) = keys.load()
    assert keyid[:8] == new != old
    assert client.look() == b"one"
    timestamp = signed.files.current()["timestamp"]
    timestamp.signed.version += 1
    timestamp.sign(stolen)
    timestamp.to_file(str(tmp_path / "store/metadata/timestamp.json"))
    with pytest.raises(UnsignedMetadataError):
        client.look()
    signed.sign(lambda: ONE, utc_now())
    assert client.look() == b"one"


def test_three_new_keys_later_a_client_of_the_first_root_follows(signed, client):
    for _ in range(3):
        signed.rotate(TWO, utc_now())
    assert client.look() == b"two"


def test_an_older_state_is_refused_by_clients_that_know_a_newer_one(signed, client, tmp_path):
    timestamp = tmp_path / "store/metadata/timestamp.json"
    old = timestamp.read_bytes()
    signed.sign(lambda: TWO, utc_now())
    assert client.look() == b"two"
    timestamp.write_bytes(old)
    with pytest.raises(BadVersionNumberError):
        client.look()


def test_a_restored_store_is_above_what_clients_have_seen(signed, client, tmp_path):
    backup = files(tmp_path / "store/metadata")
    now = utc_now()
    for minute in range(1, 5):
        offers = ONE if minute % 2 else TWO
        signed.sign(partial(dict, offers), now + timedelta(minutes=minute))
    assert client.look() == b"two"
    for path in (tmp_path / "store/metadata").iterdir():
        path.unlink()
    for name, content in backup.items():
        (tmp_path / "store/metadata" / name).write_bytes(content)
    with pytest.raises(BadVersionNumberError):
        client.look()
    signed.sign(lambda: ONE, now + timedelta(minutes=9), anew=True)
    assert client.look() == b"one"


def test_nobody_can_hold_newer_models_back_for_longer_than_a_day(signed, client):
    signed.sign(lambda: ONE, utc_now() - timedelta(days=2), anew=True)
    with pytest.raises(ExpiredMetadataError):
        client.look()
    signed.sign(lambda: ONE, utc_now())
    assert client.look() == b"one"


@pytest.mark.parametrize("role", ["targets", "online", "snapshot", "timestamp"])
@pytest.mark.parametrize("damage", [b"", b"{}", None])
def test_what_is_damaged_or_lost_is_signed_again(signed, client, tmp_path, role, damage):
    assert client.look() == b"one"
    (file,) = (tmp_path / "store/metadata").glob(f"*{role}.json")
    file.unlink() if damage is None else file.write_bytes(damage)
    signed.sign(lambda: TWO, utc_now() + timedelta(minutes=1))
    assert client.look() == b"two"


def test_a_manifest_that_was_changed_is_written_again(signed, client, tmp_path):
    (file,) = (tmp_path / "store/targets/stable").iterdir()
    file.write_bytes(b"another")
    signed.sign(lambda: ONE, utc_now())
    assert client.look() == b"one"


def test_a_damaged_root_or_a_lost_key_is_told_and_nothing_takes_its_place(signed, tmp_path):
    root = tmp_path / "store/metadata/1.root.json"
    content = root.read_bytes()
    root.write_bytes(content.replace(b"365", b"366").replace(b'"version":1', b'"version":2'))
    root.write_bytes(content[:-10])
    with pytest.raises(SettingsError, match=r"1\.root\.json: damaged; restore it"):
        signed.sign(lambda: TWO, utc_now())
    root.write_bytes(content)
    (key,) = (tmp_path / "secrets").iterdir()
    key.rename(tmp_path / "elsewhere")
    for act in (lambda: signed.sign(lambda: TWO, utc_now()), signed.require_key):
        with pytest.raises(SettingsError, match=rf"restore {key.name} from a backup"):
            act()
    assert not list((tmp_path / "secrets").iterdir())


def test_keys_are_their_owners_alone(signed, tmp_path):
    (key,) = (tmp_path / "secrets").iterdir()
    assert key.stat().st_mode & 0o777 == 0o600


def test_many_versions_make_a_refresh_no_longer(signed, client):
    now = utc_now()
    for number in range(40):
        offers = {"stable": b"%d" % number, "canary": b"%d" % (number + 1)}
        signed.sign(partial(dict, offers), now)
    assert client.look() == b"39"
    assert client.fetcher.bytes < 20_000
    assert len(list((client.store / "metadata").iterdir())) < 15
    assert len(list((client.store / "targets").rglob("*.json"))) <= 6
