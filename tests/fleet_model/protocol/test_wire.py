import base64
import io
import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fleet_model import __version__
from fleet_model.errors import UpdateError
from fleet_model.flower import quiet
from fleet_model.protocol.version import FIRST_PROTOCOL, PROTOCOL
from fleet_model.protocol.wire import (
    ARRAYS,
    CODEC,
    CONFIG,
    KIND,
    LABEL_COUNTS,
    METRICS,
    NUM_EXAMPLES,
    NUM_STEPS,
    NUMBER,
    OPTIONS,
    VERSION,
    RobotRequest,
    not_told,
    pack_request,
    pack_update,
    pack_weights,
    unpack_request,
    unpack_update,
    unpack_weights,
)
from fleet_model.types import Checkpoint, TrainConfig, Update

quiet()
OLD_MESSAGES = Path(__file__).parents[2] / "data" / "messages_87262d4.json"  # make_old_messages.py
WEIGHTS = {"head/kernel": np.full((4, 2), 0.5, np.float32), "head/bias": np.zeros(2, np.float32)}
UPDATE = Update(
    robot="the robot's own words",
    base_version=3,
    weights=WEIGHTS,
    num_examples=20,
    num_steps=5,
    metrics={"loss_after": 0.25, "held_out": 4.0},
)
REQUEST = RobotRequest(
    deadline_s=60.0,
    run="r1",
    round=2,
    checkpoint=Checkpoint(version=3, weights=WEIGHTS),
    config=TrainConfig(epochs=2, learning_rate=0.5, proximal_mu=0.1, seed=9),
    trainer="ab" * 32,
    trainer_bytes=927,
)

named_tensors = st.dictionaries(
    st.text(min_size=1, max_size=20),
    array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3).flatmap(
        lambda shape: arrays(np.float32, shape)
    ),
    max_size=4,
)


@given(weights=named_tensors)
def test_tensors_of_any_name_and_shape_arrive_bit_for_bit(weights):
    arrived = unpack_weights(pack_weights(weights))

    assert list(arrived) == list(weights)
    for name, tensor in weights.items():
        assert arrived[name].dtype == np.float32
        assert arrived[name].shape == tensor.shape
        assert arrived[name].tobytes() == tensor.tobytes()


def test_a_transposed_tensor_arrives_as_it_is():
    tensor = np.arange(6, dtype=np.float32).reshape(2, 3).T

    arrived = unpack_weights(pack_weights({"w": tensor}))["w"]

    np.testing.assert_array_equal(arrived, tensor)
    assert not arrived.flags.writeable  # it is the message's own memory


def test_a_request_arrives_as_it_was_sent():
    arrived = unpack_request(pack_request(REQUEST))

    assert replace(arrived, checkpoint=REQUEST.checkpoint) != arrived  # eq=False: by identity
    for name in ("kind", "run", "round", "config", "trainer", "trainer_bytes", "deadline_s"):
        assert getattr(arrived, name) == getattr(REQUEST, name)
    assert arrived.checkpoint.version == 3
    assert arrived.groups == {}
    np.testing.assert_array_equal(arrived.checkpoint.weights["head/kernel"], WEIGHTS["head/kernel"])


def test_an_update_arrives_under_the_name_of_the_register():
    arrived = unpack_update(pack_update(UPDATE), "hall-1")

    assert arrived.robot == "hall-1"
    for name in ("kind", "base_version", "num_examples", "num_steps", "metrics"):
        assert getattr(arrived, name) == getattr(UPDATE, name)
    np.testing.assert_array_equal(arrived.weights["head/kernel"], WEIGHTS["head/kernel"])


def test_stock_flower_finds_its_own_names():
    content = pack_update(UPDATE)

    assert set(content) == {"arrays", "metrics", "config"}
    assert content.metric_records["metrics"]["num-examples"] == 20


def test_an_update_of_a_head_for_four_classes_is_at_most_60_kb():
    weights = {"head/kernel": np.ones((1280, 4), np.float32), "head/bias": np.ones(4, np.float32)}
    content = pack_update(replace(UPDATE, weights=weights))
    arrays_bytes = sum(len(array.data) for array in content.array_records[ARRAYS].values())
    metrics_bytes = len(json.dumps(dict(content.metric_records[METRICS])))

    assert 20_000 < arrays_bytes + metrics_bytes <= 60_000


def with_changes(content, record, **changes):
    """Change entries of one config record of a message; None removes an entry."""
    values = {**content.config_records[record], **changes}
    content[record] = ConfigRecord({k: v for k, v in values.items() if v is not None})
    return content


FIRST_REQUEST = replace(REQUEST, first_trainer=("cd" * 32, 900))


def of_first_protocol():
    return pack_request(FIRST_REQUEST, FIRST_PROTOCOL)


@pytest.mark.parametrize("key", list(of_first_protocol().config_records[CONFIG]))
@pytest.mark.parametrize("value", [None, [1], b"x", True])
def test_a_request_with_a_missing_or_ill_typed_field_names_it(key, value):
    content = with_changes(of_first_protocol(), CONFIG, **{key: value})
    with pytest.raises(UpdateError, match=f"the message has {key}=.*same version of fleetlearn"):
        unpack_request(content)


@pytest.mark.parametrize("key", sorted({*pack_request(REQUEST).config_records[CONFIG]} - {NUMBER}))
@pytest.mark.parametrize("value", [None, [1], b"x", True])
def test_so_does_a_request_with_a_number(key, value):
    content = with_changes(pack_request(REQUEST), CONFIG, **{key: value})
    with pytest.raises(UpdateError, match=f"the message has {key}=.*same version of fleetlearn"):
        unpack_request(content)


def test_agents_without_a_number_are_sent_the_old_layout_with_their_own_trainer():
    content = of_first_protocol()
    assert set(content) == {ARRAYS, CONFIG}
    assert set(content.config_records[CONFIG]) == {
        "run", "server-round", "checkpoint-version", "trainer-sha256", "trainer-bytes",
        "deadline-s", "epochs", "batch_size", "learning_rate", "momentum", "proximal_mu",
        "clip_norm", "seed",
    }  # fmt: skip
    arrived = unpack_request(content)
    assert (arrived.kind, arrived.config) == ("train", REQUEST.config)
    assert (arrived.trainer, arrived.trainer_bytes) == ("cd" * 32, 900)


@pytest.mark.parametrize("name", ["request", "update"])
def test_messages_that_commit_87262d4_packed_are_read(name):
    recorded = json.loads(OLD_MESSAGES.read_text())[name]
    objects = {i: base64.b64decode(content) for i, content in recorded["objects"].items()}
    content = inflate_object_from_contents(recorded["root"], objects)
    weights = np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)
    if name == "request":
        arrived = unpack_request(content)
        assert (arrived.kind, arrived.run, arrived.round) == ("train", "20251122-000000", 2)
        assert (arrived.trainer, arrived.trainer_bytes) == ("ab" * 32, 927)
        assert (arrived.deadline_s, arrived.checkpoint.version) == (60.0, 3)
        assert arrived.config == TrainConfig(
            epochs=2, learning_rate=0.5, proximal_mu=0.1, clip_norm=2.0, seed=9
        )
        np.testing.assert_array_equal(arrived.checkpoint.weights["head/kernel"], weights)
    else:
        arrived = unpack_update(content, "r1")
        assert (arrived.kind, arrived.robot, arrived.base_version) == ("train", "r1", 3)
        assert (arrived.num_examples, arrived.num_steps) == (20, 5)
        assert arrived.metrics == {"loss_after": 0.25, "held_out": 4.0}
        np.testing.assert_array_equal(arrived.weights["head/kernel"], weights)


def test_a_training_option_that_the_agent_does_not_know_is_refused_by_name():
    content = with_changes(pack_request(REQUEST), OPTIONS, sharpness=0.5)
    with pytest.raises(UpdateError) as caught:
        unpack_request(content)
    assert str(caught.value) == (
        "this agent does not know the training option sharpness; update the agent or remove the "
        "option from [training] in the server's server.toml"
    )


def test_an_option_that_an_older_server_does_not_send_has_its_default():
    content = with_changes(pack_request(REQUEST), OPTIONS, clip_norm=None)
    assert unpack_request(content).config == replace(REQUEST.config, clip_norm=0.0)


@pytest.mark.parametrize("value", [True, "0.5", [0.5], 1])
def test_an_option_of_another_type_is_named(value):
    content = with_changes(pack_request(REQUEST), OPTIONS, momentum=value)
    with pytest.raises(UpdateError, match=r"the message has momentum=.*expected float"):
        unpack_request(content)


MESSAGES = {
    "the server's message": (lambda: pack_request(REQUEST), unpack_request),
    "the reply": (lambda: pack_update(UPDATE), lambda c: unpack_update(c, "r1")),
}


@pytest.mark.parametrize("what", MESSAGES)
def test_a_message_of_a_higher_protocol_says_update(what):
    pack, unpack = MESSAGES[what]
    with pytest.raises(UpdateError) as caught:
        unpack(with_changes(pack(), CONFIG, **{NUMBER: PROTOCOL + 1, CODEC: "int8"}))
    assert str(caught.value) == (
        f"{what} is of protocol {PROTOCOL + 1}, fleetlearn {__version__} knows protocols up to "
        f"{PROTOCOL}: update the agent"
    )


@pytest.mark.parametrize("what", MESSAGES)
def test_another_codec_says_update(what):
    pack, unpack = MESSAGES[what]
    with pytest.raises(UpdateError, match=f"{what} has the codec 'int4', .* update the agent"):
        unpack(with_changes(pack(), CONFIG, **{CODEC: "int4"}))


def test_a_checkpoint_travels_as_it_is():
    with pytest.raises(UpdateError, match=r"message has the codec 'int8', .* update the agent"):
        unpack_request(with_changes(pack_request(REQUEST), CONFIG, **{CODEC: "int8"}))


def test_a_robot_is_asked_for_a_codec_and_one_that_cannot_know_it_does_without():
    asked = replace(FIRST_REQUEST, reply_codec="topk:0.05")

    assert unpack_request(pack_request(asked)).reply_codec == "topk:0.05"
    assert asked.lowest_protocol == FIRST_PROTOCOL
    assert unpack_request(pack_request(asked, FIRST_PROTOCOL)).reply_codec == "float32"
    assert not_told(asked, FIRST_PROTOCOL) == ["rounds.compression"]
    assert "reply-codec" not in pack_request(REQUEST).config_records[CONFIG]


def coded(**changes):
    weights = {"coded": np.arange(9, dtype=np.uint8)}
    return pack_update(replace(UPDATE, weights=weights, codec="topk:0.05", **changes))


def test_a_coded_update_arrives_as_its_bytes():
    arrived = unpack_update(coded(), "r1")

    assert (arrived.codec, list(arrived.weights)) == ("topk:0.05", ["coded"])
    assert arrived.weights["coded"].tolist() == list(range(9))
    assert arrived.weights["coded"].dtype == np.uint8


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "holds 0 arrays, expected one, 'coded'"),
        ({"head/kernel": np.zeros(9, np.uint8)}, "expected one, 'coded'"),
        ({"coded": np.zeros(9, np.uint8), "w": np.zeros(2, np.float32)}, "holds 2 arrays"),
        ({"coded": np.zeros(9, np.float32)}, "coded is not a run of bytes"),
        ({"coded": np.zeros(9, np.int8)}, "coded is not a run of bytes"),
        ({"coded": np.zeros(9, np.uint16)}, "coded is not a run of bytes"),
    ],
)
def test_a_coded_update_is_one_run_of_bytes(arrays, message):
    content = coded()
    content[ARRAYS] = pack_weights(arrays)
    with pytest.raises(UpdateError, match=message):
        unpack_update(content, "r1")


def test_bytes_are_no_tensor_of_an_update_that_is_not_coded():
    content = pack_update(UPDATE)
    content[ARRAYS] = pack_weights({"w": np.zeros(4, np.uint8)})
    with pytest.raises(UpdateError, match="w is not a float32 tensor"):
        unpack_update(content, "r1")


@pytest.mark.parametrize("what", MESSAGES)
@pytest.mark.parametrize("kind", ["", "Train", "a b", "../x", "x" * 33])
def test_a_kind_is_a_short_name(what, kind):
    pack, unpack = MESSAGES[what]
    with pytest.raises(UpdateError, match=f"{what} is of kind"):
        unpack(with_changes(pack(), CONFIG, **{KIND: kind}))


GROUPS = {
    "control": {"head/bias": np.ones(2, np.float32)},
    "sums": {"n": np.float32(3).reshape(())},
}


@pytest.mark.parametrize(
    ("value", "there"),
    [
        (
            replace(REQUEST, kind="calibrate", groups=GROUPS),
            lambda v: unpack_request(pack_request(v)),
        ),
        (
            replace(UPDATE, kind="calibrate", weights={}, groups=GROUPS),
            lambda v: unpack_update(pack_update(v), "r1"),
        ),
    ],
    ids=["request", "reply"],
)
def test_other_kinds_with_further_groups_of_tensors_arrive(value, there):
    arrived = there(value)
    assert arrived.kind == "calibrate"
    assert {g: set(tensors) for g, tensors in arrived.groups.items()} == {
        "control": {"head/bias"}, "sums": {"n"}
    }  # fmt: skip
    np.testing.assert_array_equal(arrived.groups["control"]["head/bias"], np.ones(2, np.float32))
    assert arrived.groups["sums"]["n"] == 3


@pytest.mark.parametrize(
    "names", [["arrays."], ["arrays.A/b"], ["other"], [f"arrays.g{n}" for n in range(9)]]
)
def test_a_robot_cannot_send_groups_of_any_name_and_number(names):
    content = pack_update(UPDATE)
    for name in names:
        content[name] = content.array_records[ARRAYS]
    with pytest.raises(UpdateError, match=r"groups? of tensors"):
        unpack_update(content, "r1")


def test_what_protocol_an_agent_needs_follows_from_the_request():
    assert FIRST_REQUEST.lowest_protocol == FIRST_PROTOCOL
    for needs in ({"kind": "evaluate"}, {"groups": GROUPS}, {"trainer_protocol": 2}):
        assert replace(FIRST_REQUEST, **needs).lowest_protocol == PROTOCOL


def test_an_agent_does_without_an_option_that_only_helps():
    helped = replace(FIRST_REQUEST, config=replace(FIRST_REQUEST.config, logit_adjustment=1.0))

    assert helped.lowest_protocol == FIRST_PROTOCOL
    assert unpack_request(pack_request(helped, FIRST_PROTOCOL)).config == FIRST_REQUEST.config
    assert unpack_request(pack_request(helped)).config == helped.config
    assert not_told(helped, FIRST_PROTOCOL) == ["training.logit_adjustment"]
    assert not_told(helped, PROTOCOL) == not_told(FIRST_REQUEST, FIRST_PROTOCOL) == []


@pytest.mark.parametrize("name", [ARRAYS, CONFIG, OPTIONS])
def test_a_request_without_a_record_names_it(name):
    content = pack_request(REQUEST)
    del content[name]

    with pytest.raises(UpdateError, match=f"lacks the record '{name}'"):
        unpack_request(content)


def update_with(**changes):
    content = pack_update(UPDATE)
    record = {**content.metric_records[METRICS], **changes}
    record = MetricRecord({key: value for key, value in record.items() if value is not None})
    content[METRICS] = record
    return content


@pytest.mark.parametrize("key", [NUM_EXAMPLES, NUM_STEPS, VERSION])
@pytest.mark.parametrize("value", [None, 1.0, [1], [0.5] * 1000])
def test_an_update_with_a_missing_or_ill_typed_count_names_it(key, value):
    with pytest.raises(UpdateError, match=f"the message has {key}=.*expected int") as error:
        unpack_update(update_with(**{key: value}), "r1")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", [ARRAYS, METRICS])
def test_an_update_without_a_record_names_robot_and_record(name):
    content = pack_update(UPDATE)
    del content[name]

    with pytest.raises(UpdateError, match=f"the reply lacks the record '{name}'"):
        unpack_update(content, "r1")


@pytest.mark.parametrize("count", [0, -3])
def test_an_update_of_no_examples_is_refused(count):
    with pytest.raises(UpdateError, match=f"num-examples is {count}, expected > 0"):
        unpack_update(update_with(**{NUM_EXAMPLES: count}), "r1")


def test_counts_by_label_arrive_as_numbers_only():
    told = unpack_update(pack_update(replace(UPDATE, label_counts=(12, 0, 5))), "r1")

    assert told.label_counts == (12, 0, 5)
    assert told.metrics == UPDATE.metrics  # a list is none: servers that do not know it drop it
    assert LABEL_COUNTS not in pack_update(UPDATE).metric_records[METRICS]
    assert unpack_update(pack_update(UPDATE), "r1").label_counts == ()


@pytest.mark.parametrize("counts", [5, 0.5, [0.5], [-1], [2**60], [1] * 10_001])
def test_counts_by_label_that_are_none_are_refused(counts):
    with pytest.raises(UpdateError, match="label-counts") as error:
        unpack_update(update_with(**{LABEL_COUNTS: counts}), "r1")
    assert len(str(error.value)) < 100


def test_metrics_that_have_no_place_in_json_are_left_out():
    content = update_with(loss_after=float("nan"), loss_before=float("inf"), accuracy_after=0.5)

    assert unpack_update(content, "r1").metrics == {"accuracy_after": 0.5, "held_out": 4.0}


@pytest.mark.parametrize(
    "changes", [{f"m{i}": 1.0 for i in range(200)}, {"m" * 101: 1.0}], ids=["many", "long"]
)
def test_a_robot_cannot_fill_the_history(changes):
    with pytest.raises(UpdateError, match="at most 100 metrics with names of at most 100"):
        unpack_update(update_with(**changes), "r1")


@pytest.mark.parametrize("name", ["loss\x1b[2J_after", "two\nlines", "\u202etfel"])
def test_a_metric_whose_name_would_move_a_terminals_cursor_is_refused(name):
    with pytest.raises(UpdateError, match="printable") as caught:
        unpack_update(update_with(**{name: 1.0}), "r1")
    assert str(caught.value).isprintable()


def npy(tensor):
    stream = BytesIO()
    np.save(stream, tensor, allow_pickle=tensor.dtype == object)
    return stream.getvalue()


def empty(shape):
    stream = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


def npz():
    stream = BytesIO()
    np.savez_compressed(stream, x=np.zeros(10))
    return stream.getvalue()


WHOLE = npy(np.ones((2, 3), np.float32))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a float32 tensor"),
        (b"garbage", "is not a float32 tensor"),
        (npz(), "is not a float32 tensor"),
        (npy(np.ones(2)), "is not a float32 tensor"),
        (npy(np.ones(2, ">f4")), "is not a float32 tensor"),
        (npy(np.ones(2, np.int32)), "is not a float32 tensor"),
        (npy(np.array([{}], object)), "is not a float32 tensor"),
        (npy(np.asfortranarray(np.ones((2, 3), np.float32))), "is not a float32 tensor"),
        (WHOLE[:-1], "the bytes do not fit its shape"),
        (WHOLE + b"x", "the bytes do not fit its shape"),
        (WHOLE.replace(b"(2, 3)", b"(9999999999999, 3)"), "the bytes do not fit"),
        (WHOLE.replace(b"(2, 3)", b"(-2, -3)"), "is not a float32 tensor"),
        (empty((0, 10**30)), "no tensor can have its shape"),
        (empty((0, 2**40, 2**40)), "no tensor can have its shape"),
        (empty((0, *[1] * 70)), "no tensor can have its shape"),
    ],
)
def test_bytes_that_are_no_whole_float32_tensor_are_refused(data, message):
    array = Array(dtype="float32", shape=(2, 3), stype="numpy.ndarray", data=data)
    content = pack_update(UPDATE)
    content[ARRAYS] = ArrayRecord({"head/kernel": array})

    with pytest.raises(UpdateError, match=f"head/kernel.*{message}"):
        unpack_update(content, "r1")


@given(data=st.binary(max_size=200) | st.binary(max_size=200).map(WHOLE[:8].__add__))
def test_no_bytes_of_a_robot_raise_anything_but_an_update_error(data):
    array = Array(dtype="float32", shape=(), stype="numpy.ndarray", data=data)

    with pytest.raises(UpdateError):
        unpack_weights(ArrayRecord({"w": array}))


def test_tensors_that_stay_on_robots_are_told_by_name_and_only_where_there_are_any():
    request = replace(REQUEST, personal=("head/bias",))
    packed = pack_request(request)
    assert unpack_request(packed).personal == ("head/bias",)
    # As an option: an agent that does not know it refuses the request by its name.
    assert packed.config_records["options"]["personal_tensors"] == ["head/bias"]
    assert "personal_tensors" not in pack_request(REQUEST).config_records["options"]
    assert unpack_request(pack_request(REQUEST)).personal == ()
    packed.config_records["options"]["personal_tensors"] = [1.0]
    with pytest.raises(UpdateError, match="expected names of tensors"):
        unpack_request(packed)
