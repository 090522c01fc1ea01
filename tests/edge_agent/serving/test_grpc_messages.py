"""The messages are those of the standard, as a client that is not ours has them."""

import pytest

from edge_agent.serving.grpc_messages import _MESSAGES, SERVICE, message

pytestmark = pytest.mark.client
service_pb2 = pytest.importorskip("tritonclient.grpc.service_pb2")


def fields(descriptor):
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.message_type.full_name if field.message_type else None,
            field.containing_oneof.name if field.containing_oneof else None,
        )
        for field in descriptor.fields
    }


@pytest.mark.parametrize("name", sorted(_MESSAGES))
def test_every_field_has_the_number_and_type_of_the_standard(name):
    theirs = service_pb2.DESCRIPTOR.message_types_by_name[name.split(".")[0]]
    for inner in name.split(".")[1:]:
        theirs = theirs.nested_types_by_name[inner]

    ours = fields(message(name).DESCRIPTOR)
    if name == "ModelMetadataResponse":
        ours.pop("parameters")  # MLServer's addition
    assert ours == fields(theirs)


def test_the_service_is_the_one_of_the_standard():
    assert service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name == SERVICE


def test_bytes_of_the_standard_are_read_and_a_field_of_another_server_is_no_harm():
    theirs = service_pb2.ModelInferRequest(model_name="m", id="1")
    theirs.parameters["p"].double_param = 2.5
    theirs.inputs.add(name="x", datatype="INT8", shape=[1]).contents.int_contents.append(-1)

    ours = message("ModelInferRequest").FromString(theirs.SerializeToString())

    assert (ours.model_name, ours.parameters["p"].double_param) == ("m", 2.5)
    assert list(ours.inputs[0].contents.int_contents) == [-1]
