"""The table of parameters, declared by a real node."""

import pytest
import rclpy
from edge_perception.parameters import ParameterSpec, declare, read, unknown_overrides
from rclpy.node import Node
from rclpy.parameter import Parameter

from fleet_model.errors import SettingsError

TABLE = (
    ParameterSpec("rate_hz", 5.0, "answers a second", 0.0, 100.0, at_run_time=True),
    ParameterSpec("threads", 1, "of the model", 1),
    ParameterSpec("mode", "auto", "how", choices=("auto", "fast"), at_run_time=True),
    ParameterSpec("topics", (), "of labels"),
    ParameterSpec("name", "", "of anything"),
)


@pytest.fixture
def node():
    made = []

    def make(*given):
        arguments = ["--ros-args", *(word for one in given for word in ("-p", one))]
        rclpy.init(args=arguments)
        made.append(Node("tested"))
        return made[0]

    yield make
    for one in made:
        one.destroy_node()
    rclpy.try_shutdown()


def set_one(node, name, value):
    return node.set_parameters([Parameter(name, value=value)])[0]


def test_defaults_and_given_values_are_read(node):
    one = node("rate_hz:=2.5", "topics:=[/label, /other]")
    declare(one, TABLE)
    values = read(one, TABLE)
    assert values == {
        "rate_hz": 2.5,
        "threads": 1,
        "mode": "auto",
        "topics": ("/label", "/other"),
        "name": "",
    }


def test_an_empty_list_is_a_list_of_texts(node):
    one = node()
    declare(one, TABLE)
    assert read(one, TABLE)["topics"] == ()
    assert one.describe_parameter("topics").type == Parameter.Type.STRING_ARRAY.value


def test_ranges_hold_for_both_kinds_of_numbers(node):
    one = node()
    declare(one, TABLE)
    assert "rate_hz" in set_one(one, "rate_hz", 200.0).reason
    assert not set_one(one, "threads", 0).successful
    assert set_one(one, "rate_hz", 20.0).successful


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("threads:=0", "threads is 0, expected integer, at least 1"),
        ("rate_hz:=200.5", "rate_hz is 200.5, expected double, 0 to 100"),
        ("rate_hz:=2", "rate_hz is 2, expected double, 0 to 100; write 2.0"),
        ("rate_hz:=fast", "rate_hz is 'fast', expected double, 0 to 100"),
        ("topics:=/label", "topics is '/label', expected string array; write [/label]"),
        ("mode:=7", "mode is 7, expected string, auto, fast"),
        ("name:=7", "name is 7, expected string; write '\"7\"'"),
        ("name:=[1, 2]", "name is [1, 2], expected string"),
    ],
)
def test_a_given_value_of_another_type_or_range_is_refused_with_what_to_write(node, given, words):
    one = node(given)
    with pytest.raises(SettingsError) as caught:
        declare(one, TABLE)
    assert str(caught.value) == f"parameter {words}"


def test_only_listed_words_are_taken(node):
    one = node()
    declare(one, TABLE)
    reason = set_one(one, "mode", "slow").reason
    assert reason == "parameter mode is 'slow', expected one of auto, fast"


def test_what_is_read_at_configuration_is_not_changed_afterwards(node):
    one = node()
    declare(one, TABLE)
    assert set_one(one, "threads", 2).successful
    one.configured = True
    assert "clean it up first" in set_one(one, "threads", 3).reason
    assert set_one(one, "rate_hz", 3.0).successful


def test_a_misspelt_parameter_is_told():
    given = {"rate": 1.0, "use_sim_time": True, "qos_overrides./x": 1, "rate_hz": 1.0}
    (warning,) = unknown_overrides(given, TABLE)
    assert warning.startswith("parameter rate was given, but this node has none")
    assert warning.endswith("did you mean rate_hz?")


def test_a_table_says_what_may_be_given():
    assert [spec.allowed for spec in TABLE] == ["0 to 100", "at least 1", "auto, fast", "", ""]
    assert [spec.type for spec in TABLE] == [
        "double",
        "integer",
        "string",
        "string array",
        "string",
    ]
