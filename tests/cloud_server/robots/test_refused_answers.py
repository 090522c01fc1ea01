from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.robots.refused_answers import RefusedAnswers
from cloud_server.robots.register import Register
from cloud_server.state.logs import REPEAT_S
from fleet_model.protocol.proof import public_line


def test_second_answers_are_counted_each_and_logged_once_a_minute(caplog, tmp_path):
    caplog.set_level("INFO", logger="cloud_server")
    key = public_line(ec.generate_private_key(ec.SECP384R1()).public_key())
    robot = Register(tmp_path / "robots.json").add("r-twice", "hall", key)
    now = [1000.0]
    refused = RefusedAnswers(lambda: {7: robot}, lambda: now[0])

    for _ in range(50):
        refused.add(7, "again")
    refused.add(7, "late")
    refused.add(7, "repeated")
    refused.add(8, "again")  # nobody's: it was suspended in this moment
    assert [line.getMessage() for line in caplog.records] == [
        "robot r-twice answered again; the second answer is not counted",
        "robot r-twice answered a question that was over; what came is dropped",
        "robot r-twice sent the same reply again; it counts once at most",
    ]
    assert {line.robot for line in caplog.records} == {"r-twice"}
    now[0] += REPEAT_S
    refused.add(7, "again")

    counts = [refused.counts(why) for why in ("again", "late", "repeated")]
    assert counts == [{"r-twice": 51}, {"r-twice": 1}, {"r-twice": 1}]
    assert len(caplog.records) == 4
