"""What coded updates leave out: sent plus owed is the truth, whatever becomes of a reply."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.training.residual import FILE, UNSENT, Residual
from fleet_model.adapters.spec import RESIDUAL
from fleet_model.compression.codec import CODED
from fleet_model.compression.coding import decoded
from fleet_model.errors import ConnectionFailed, StorageError
from fleet_model.protocol.wire import RobotRequest
from fleet_model.types import EVALUATE, Checkpoint, TrainConfig, Update

SHAPES = {"head/kernel": (40, 3), "head/bias": (3,)}
ZEROS = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
CODECS = ["fp16", "int8", "topk:0.05"]


def asked(version=0, codec="int8", **changes):
    given = {"run": "run", "round": version + 1, "trainer": "ab" * 32, **changes}
    weights = given.pop("weights", ZEROS)
    return RobotRequest(
        **given,
        checkpoint=Checkpoint(version=version, weights=weights),
        config=TrainConfig(),
        trainer_bytes=1,
        deadline_s=60.0,
        reply_codec=codec,
    )


def trained(seed, scale=1.0):
    random = np.random.default_rng(seed)
    weights = {n: (scale * random.normal(size=s)).astype(np.float32) for n, s in SHAPES.items()}
    return Update(robot="", base_version=0, weights=weights, num_examples=9, num_steps=3)


class Server:
    """Remembers, as the real one does, which update it has folded in last."""

    def __init__(self):
        self.counted, self.questions = ("", 0), 0

    def ask(self):
        self.questions += 1
        return self.counted

    def fold(self, request):
        self.counted = (request.run, request.checkpoint.version + 1)


def answer(state, server, request, update):
    """Do what the agent does with one request, in a process that knows nothing but the disk."""
    residual = Residual(state, server.ask)
    return residual.send(request, residual.before(request), update)


def total(updates):
    return {n: np.sum([u[n].astype(np.float64) for u in updates], axis=0) for n in SHAPES}


def close(left, right):
    for name in SHAPES:
        scale = max(1.0, np.abs(right[name]).max())
        np.testing.assert_allclose(left[name], right[name], rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("codec", CODECS)
def test_what_was_sent_and_what_is_owed_is_all_that_was_learned(tmp_path, codec):
    server, sent = Server(), []
    for version in range(6):
        request = asked(version, codec)
        reply = answer(tmp_path, server, request, trained(version))
        sent.append(decoded(reply, ZEROS).weights)
        server.fold(request)
    owed = Residual(tmp_path, server.ask).before(asked(6, codec))

    assert any(np.abs(tensor).max() > 0 for tensor in owed.values())
    close(total([*sent, owed]), total([trained(v).weights for v in range(6)]))


# What becomes of a reply -> whether the server folds it in.
FATES = {"counted": True, "refused": False, "late": False, "killed before it was sent": False}


@given(
    fates=st.lists(st.tuples(st.sampled_from(CODECS), st.sampled_from(sorted(FATES))), max_size=8)
)
def test_no_fate_of_a_reply_is_lost_or_counted_twice(tmp_path_factory, fates):
    state, server, version = tmp_path_factory.mktemp("robot"), Server(), 0
    sent, learned = [], []
    for number, (codec, fate) in enumerate(fates):
        request = asked(version, codec, round=number + 1)
        reply = answer(state, server, request, trained(number))
        if FATES[fate]:
            server.fold(request)
            sent.append(decoded(reply, ZEROS).weights)
            learned.append(trained(number).weights)
            version += 1
    owed = Residual(state, server.ask).before(asked(version, "int8"))

    close(total([*sent, owed or ZEROS]), total([*learned, ZEROS]))


def test_a_robot_that_is_asked_again_after_a_kill_sends_the_same_bytes(tmp_path):
    server = Server()
    answer(tmp_path, server, asked(0), trained(0))
    server.fold(asked(0))

    first, second = (answer(tmp_path, server, asked(1), trained(1)) for _ in range(2))

    assert first.weights[CODED].tobytes() == second.weights[CODED].tobytes()
    assert first.metrics == second.metrics


def test_rounds_that_are_skipped_change_nothing(tmp_path):
    server = Server()
    answer(tmp_path, server, asked(0), trained(0))
    server.fold(asked(0))
    soon = Residual(tmp_path, server.ask).before(asked(1))
    late = Residual(tmp_path, server.ask).before(asked(9))
    np.testing.assert_array_equal(soon["head/kernel"], late["head/kernel"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"run": "other"}, "they were of run run"),
        ({"trainer": "cd" * 32}, "the model is another one"),
        ({"weights": {**ZEROS, "head/bias": np.zeros(4, np.float32)}}, "the model is another one"),
    ],
)
def test_what_is_owed_to_something_else_is_dropped_with_a_word(tmp_path, caplog, changes, reason):
    server = Server()
    answer(tmp_path, server, asked(0), trained(0))
    server.fold(asked(0))

    assert Residual(tmp_path, server.ask).before(asked(1, **changes)) == {}
    assert not (tmp_path / FILE).exists()
    assert reason in caplog.text


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, None])
def test_a_damaged_file_is_dropped_with_a_word(tmp_path, caplog, damage):
    server = Server()
    answer(tmp_path, server, asked(0), trained(0))
    file = tmp_path / FILE
    file.write_bytes(file.read_bytes()[:-7] if damage is None else damage)

    assert Residual(tmp_path, server.ask).before(asked(1)) == {}
    assert "its file is damaged" in caplog.text


def test_an_update_that_is_asked_for_as_it_is_leaves_no_file_and_asks_nobody(tmp_path):
    server, update = Server(), trained(0)
    assert answer(tmp_path, server, asked(0, "float32"), update) is update
    assert list(tmp_path.iterdir()) == []
    assert server.questions == 0


def test_a_run_that_ends_compression_gets_all_that_is_owed(tmp_path):
    server = Server()
    first = answer(tmp_path, server, asked(0, "topk:0.05"), trained(0))
    server.fold(asked(0))
    second = answer(tmp_path, server, asked(1, "float32"), trained(1))
    server.fold(asked(1))

    assert (second.codec, second.metrics[UNSENT]) == ("float32", 0)
    sent = [decoded(one, ZEROS).weights for one in (first, second)]
    close(total(sent), total([trained(0).weights, trained(1).weights]))
    owed = Residual(tmp_path, server.ask).before(asked(2))
    assert not any(tensor.any() for tensor in owed.values())


def test_a_codec_of_a_newer_server_is_answered_as_it_is(tmp_path, caplog):
    update = trained(0)
    assert answer(tmp_path, Server(), asked(0, "int2"), update) is update
    assert "the codec 'int2' is not known" in caplog.text


def test_an_evaluation_owes_nothing(tmp_path):
    server = Server()
    answer(tmp_path, server, asked(0), trained(0))
    measured = Update(robot="", base_version=1, weights={}, num_examples=9, num_steps=0)
    assert answer(tmp_path, server, asked(1, kind=EVALUATE), measured) is measured
    assert (tmp_path / FILE).exists()


def test_a_sum_that_is_not_finite_is_not_sent(tmp_path, caplog):
    server = Server()
    answer(tmp_path, server, asked(0, "fp16"), trained(0, scale=1e38))
    server.fold(asked(0))
    reply = answer(tmp_path, server, asked(1, "fp16"), trained(0, scale=1e38))

    assert np.isfinite(decoded(reply, ZEROS).weights["head/kernel"]).all()
    assert "too large" in caplog.text


def test_nothing_is_lost_when_the_server_cannot_be_asked(tmp_path):
    answer(tmp_path, Server(), asked(0), trained(0))

    def away():
        raise ConnectionFailed("no answer")

    with pytest.raises(ConnectionFailed):
        Residual(tmp_path, away).before(asked(1))
    assert (tmp_path / FILE).exists()


def test_a_full_disk_is_told(tmp_path):
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises((StorageError, OSError)):
        answer(tmp_path / "state" / "more", Server(), asked(0), trained(0))


def test_what_a_rule_keeps_beside_an_adapter_is_neither_sent_nor_owed(tmp_path):
    corrected = {**ZEROS, "head/kernel" + RESIDUAL: np.ones((2, 2), np.float32)}
    server = Server()
    answer(tmp_path, server, asked(0, weights=corrected), trained(0))
    server.fold(asked(0))

    owed = Residual(tmp_path, server.ask).before(asked(1, weights=corrected))
    assert owed.keys() == ZEROS.keys()
