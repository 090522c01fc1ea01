import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.robots.register import Register
from cloud_server.web.fleet_keys import KEY, FleetKeys, header_of
from fleet_model.errors import RefusedError
from fleet_model.protocol.proof import public_line

LINE = public_line(ec.generate_private_key(ec.SECP384R1()).public_key())
HEADERS = {KEY: header_of(LINE)}


@pytest.fixture
def register(tmp_path):
    return Register(tmp_path / "robots.json")


def test_a_robot_reaches_flower_while_it_is_approved_and_not_a_request_longer(register):
    keys = FleetKeys(register)

    def refused():
        try:
            keys.require_known(HEADERS)
        except RefusedError:
            return True
        return False

    story = [refused()]
    for change in (
        lambda: register.add("r1", "hall", LINE, pending=True),
        lambda: register.approve("r1"),
        lambda: register.suspend("r1", "in the workshop"),
        lambda: register.approve("r1"),
        lambda: register.revoke("r1", "sold"),
        lambda: register.forget("r1"),
    ):
        change()
        story.append(refused())

    assert story == [True, True, False, True, False, True, True]
