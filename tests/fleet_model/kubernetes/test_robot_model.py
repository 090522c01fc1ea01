"""The definition that a cluster has, and the models that programs have, say the same."""

from pathlib import Path

import jsonschema
import pytest
import yaml
from loopback_cluster import closed

from cloud_server.state.settings import ServerSettings
from edge_agent.robot.settings import AgentSettings
from fleet_model.kubernetes import robot_model
from fleet_model.kubernetes.robot_model import RobotModelSpec, RobotModelStatus

FOLDER = Path(__file__).parents[3] / "deploy" / "kubernetes" / "robot-model"
CRD = yaml.safe_load((FOLDER / "crd.yaml").read_text())
(VERSION,) = CRD["spec"]["versions"]
PROPERTIES = VERSION["schema"]["openAPIV3Schema"]["properties"]


def test_the_names_are_the_same():
    spec = CRD["spec"]
    assert CRD["metadata"]["name"] == f"{robot_model.PLURAL}.{robot_model.GROUP}"
    assert (spec["group"], VERSION["name"], spec["names"]["kind"], spec["names"]["plural"]) == (
        robot_model.GROUP, robot_model.VERSION, robot_model.KIND, robot_model.PLURAL,
    )  # fmt: skip
    example = yaml.safe_load((FOLDER / "example.yaml").read_text())
    assert example["apiVersion"] == robot_model.API_VERSION
    assert example["metadata"]["namespace"] == robot_model.NAMESPACE
    assert RobotModelSpec.model_validate(example["spec"])
    servers = ServerSettings.model_fields["publish"].annotation.model_fields
    agents = AgentSettings.model_fields["server"].annotation.model_fields
    said = {repr(one["channel"].metadata) for one in (servers, agents, RobotModelSpec.model_fields)}
    assert len(said) == 1
    assert "a-z0-9" in said.pop()


def fields(schema):
    """Return the names of all fields below a schema, and whether each must be there."""
    found = {}
    for name, below in schema.get("properties", {}).items():
        below = below.get("items", below)
        found[name] = (name in schema.get("required", ()), fields(below))
    return found


@pytest.mark.parametrize(
    ("part", "model"), [("spec", RobotModelSpec), ("status", RobotModelStatus)]
)
def test_the_fields_are_the_same(part, model):
    def of(schema, definitions):
        if "allOf" in schema or "anyOf" in schema:
            schema = (schema.get("allOf") or schema["anyOf"])[0]
        schema = definitions.get(schema.get("$ref", "").rpartition("/")[2], schema)
        found = {}
        for name, below in schema.get("properties", {}).items():
            found[name] = (
                name in schema.get("required", ()),
                of(below.get("items", below), definitions),
            )
        return found

    schema = model.model_json_schema(by_alias=True)
    mine, theirs = of(schema, schema.get("$defs", {})), fields(PROPERTIES[part])
    if part == "status":  # the controller always says when it changed
        _, below = theirs["conditions"]
        below["lastTransitionTime"] = (False, below["lastTransitionTime"][1])
    assert mine == theirs


@pytest.mark.parametrize("name", ["channel", "agent"])
@pytest.mark.parametrize(
    "text", ["", "a", "A", "1", "a-1", "a-", "-a", "a.b", "a" * 31, "a" * 32, "a" * 64]
)
def test_both_take_the_same_words(name, text):
    def taken(judge):
        try:
            judge()
        except (ValueError, jsonschema.ValidationError):
            return False
        return True

    content = {"channel": "stable", name: text}
    ours = taken(lambda: RobotModelSpec.model_validate(content))
    assert ours == taken(lambda: jsonschema.validate(content, closed(PROPERTIES["spec"])))


def test_every_column_shows_a_field_of_the_schema():
    for column in VERSION["additionalPrinterColumns"]:
        place, path = PROPERTIES, column["jsonPath"].lstrip(".")
        for part in path.split("."):
            if part == "creationTimestamp" or part == "metadata":
                break
            name = part.partition("[")[0]
            if "]" in part and "[" not in part:  # the rest of a filter
                continue
            place = place[name]
            place = place.get("properties", place.get("items", {}).get("properties", {}))
