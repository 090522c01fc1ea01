import pytest

from edge_agent.link.addresses import FILE, Addresses

pytestmark = pytest.mark.base

OLD, NEW = "old.example:8443", "new.example:9443"


def seen(addresses):
    return addresses.current, addresses.other


def test_an_announcement_is_kept_and_used_when_that_is_asked_for(tmp_path):
    addresses = Addresses(OLD, tmp_path)
    assert seen(addresses) == (OLD, "")
    assert addresses.announce(NEW)
    assert not addresses.announce(NEW)  # no news
    assert seen(Addresses(OLD, tmp_path)) == (OLD, NEW)  # after a restart
    addresses.turn()
    assert seen(Addresses(OLD, tmp_path)) == (NEW, OLD)
    addresses.turn()
    assert seen(Addresses(OLD, tmp_path)) == (OLD, NEW)


@pytest.mark.parametrize("words", ["", OLD])
def test_what_is_no_news_changes_nothing(tmp_path, words):
    assert not Addresses(OLD, tmp_path).announce(words)
    assert not (tmp_path / FILE).exists()


WRONG = ["new.example", "new.example:0", "https://x:1", "a b:1", "x" * 999]


@pytest.mark.parametrize("words", WRONG)
def test_what_is_no_address_is_refused(tmp_path, words, caplog):
    assert not Addresses(OLD, tmp_path).announce(words)
    assert "which is no address" in caplog.text
    assert len(caplog.messages[0]) < 200


def test_a_person_who_changes_agent_toml_is_heeded(tmp_path):
    addresses = Addresses(OLD, tmp_path)
    addresses.announce(NEW)
    addresses.turn()
    assert seen(Addresses("third.example:1", tmp_path)) == ("third.example:1", "")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"given": "old.example:8443"}'])
def test_a_damaged_file_costs_what_it_held(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    assert seen(Addresses(OLD, tmp_path)) == (OLD, "")


def test_a_disk_that_cannot_be_written_is_no_reason_to_stop(tmp_path, caplog):
    (tmp_path / "state").write_text("a file")
    assert Addresses(OLD, tmp_path / "state").announce(NEW)
    assert "server-address.json cannot be written" in caplog.text
