"""Clients that are not ours: NVIDIA's tritonclient over REST and gRPC, on a server that runs."""

import numpy as np
import pytest

from fleet_model.engine import TFLiteEngine
from fleet_model.pictures.image_file import image_frame

pytestmark = pytest.mark.client
triton_http = pytest.importorskip("tritonclient.http")
triton_grpc = pytest.importorskip("tritonclient.grpc")
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
IMAGES = np.random.default_rng(1).random((3, 32, 32, 3), np.float32) * 255


@pytest.fixture(scope="module")
def engine(served):
    """Return the same model without a server."""
    return TFLiteEngine(served.models / "versions" / "1")


@pytest.fixture(params=["rest", "grpc"])
def wire(request, served):
    """Return the client's module and a client."""
    module = triton_http if request.param == "rest" else triton_grpc
    client = module.InferenceServerClient(getattr(served, request.param))
    yield module, client
    client.close()


def tensor(module, name, datatype, value, **how):
    given = module.InferInput(name, list(value.shape), datatype)
    given.set_data_from_numpy(value, **how)
    return given


def test_health_and_metadata_are_those_of_the_protocol(wire):
    module, client = wire
    how = {} if module is triton_http else {"as_json": True}

    told = client.get_server_metadata(**how)
    model = client.get_model_metadata("model", **how)

    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("model")
    assert client.is_model_ready("model-pixels", "1")
    assert (told["name"], told["extensions"]) == ("fleetlearn", ["binary_tensor_data"])
    assert (model["name"], model["versions"], model["platform"]) == ("model", ["1"], "litert")
    (image,), (logits,) = model["inputs"], model["outputs"]
    assert (image["name"], image["datatype"], [int(n) for n in image["shape"]]) == (
        "image", "FP32", [-1, 32, 32, 3],
    )  # fmt: skip
    assert (logits["name"], [int(n) for n in logits["shape"]]) == ("logits", [-1, 3])


def test_metadata_of_rest_have_the_labels(served):
    assert served.until("/v2/models/model").json()["parameters"] == {
        "labels": ["circle", "square", "star"],
        "precision": "fp32",
        "runtime": "Interpreter",
        "runs": "the shared model",
        "ranges": {"image": [0.0, 255.0]},
    }
    assert served.until("/v2/models").json() == {
        "models": ["model", "model-encoded", "model-pixels"]
    }


def test_tensors_are_answered_as_without_a_server(wire, engine):
    module, client = wire
    expected = [engine.run({"image": image})["logits"] for image in IMAGES]

    answer = client.infer("model", [tensor(module, "image", "FP32", IMAGES)], request_id="41")

    assert np.array_equal(answer.as_numpy("logits"), expected)
    told = answer.get_response()
    told = told if isinstance(told, dict) else {"id": told.id, "model_version": told.model_version}
    assert (told["id"], told["model_version"]) == ("41", "1")


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_json_and_bytes_of_rest_are_the_same_tensors(served, engine, binary_in, binary_out):
    client = triton_http.InferenceServerClient(served.rest)
    given = tensor(triton_http, "image", "FP32", IMAGES[:1], binary_data=binary_in)
    wanted = triton_http.InferRequestedOutput("logits", binary_data=binary_out)

    answer = client.infer("model", [given], outputs=[wanted]).as_numpy("logits")

    assert np.array_equal(answer[0], engine.run({"image": IMAGES[0]})["logits"])


def test_a_picture_is_answered_with_its_label(wire, engine, picture_bytes):
    module, client = wire
    pictures = [picture_bytes(3, ".png"), picture_bytes(4, ".jpg")]
    frames = [image_frame(content, "", "", 0, "") for content in pictures]
    best = [engine.predict(frame)[0] for frame in frames]
    given = tensor(module, "encoded", "BYTES", np.array(pictures, object))

    answer = client.infer("model-encoded", [given])

    assert answer.as_numpy("label").tolist() == [one.label.encode() for one in best]
    assert answer.as_numpy("score") == pytest.approx([one.score for one in best])
    assert answer.as_numpy("logits").shape == (2, 3)


def test_pixels_of_any_size_are_answered_with_their_label(wire, engine, picture_bytes):
    module, client = wire
    frame = image_frame(picture_bytes(3, ".png"), "", "", 0, "")
    given = tensor(module, "pixels", "UINT8", frame.decode()[None])

    answer = client.infer("model-pixels", [given])

    assert answer.as_numpy("label")[0] == engine.predict(frame)[0].label.encode()


WRONG = {
    "name": ("model", "picture", "FP32", IMAGES, "no input 'picture'"),
    "type": ("model", "image", "FP64", IMAGES.astype(np.float64), "expected FP32"),
    "shape": ("model", "image", "FP32", IMAGES[:, :16], "expected [-1, 32, 32, 3]"),
    "range": ("model", "image", "FP32", IMAGES - 255, "expected 0 to 255"),
    "finiteness": ("model", "image", "FP32", np.full_like(IMAGES, np.nan), "not finite"),
    "batch": ("model", "image", "FP32", np.tile(IMAGES, (3, 1, 1, 1)), "serve.max_batch = 8"),
    "no picture": (
        "model-encoded", "encoded", "BYTES", np.array([b"GIF89a" + bytes(40)], object), "gif",
    ),
    "channels": ("model-pixels", "pixels", "UINT8", PIXELS[None, ..., :2], "expected [-1, -1"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_input_is_refused_with_the_code_for_it(wire, case):
    module, client = wire
    model, name, datatype, value, words = WRONG[case]

    with pytest.raises(Exception) as refused:  # noqa: PT011  (each client has its own)
        client.infer(model, [tensor(module, name, datatype, value)])
    assert words in refused.value.message()
    code = "400" if module is triton_http else "StatusCode.INVALID_ARGUMENT"
    assert refused.value.status() == code


def test_a_model_or_version_that_is_not_served_is_not_found(wire):
    module, client = wire
    given = [tensor(module, "image", "FP32", IMAGES[:1])]
    for model, version in (("modell", ""), ("model", "2")):
        with pytest.raises(Exception) as refused:  # noqa: PT011
            client.infer(model, given, model_version=version)
        assert refused.value.status() in ("404", "StatusCode.NOT_FOUND")


def test_typed_contents_of_grpc_are_checked_as_bytes_are(served):
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    with grpc.insecure_channel(served.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelInferRequest(model_name="model")
        given = request.inputs.add(name="image", datatype="FP32", shape=[1, 32, 32, 3])
        given.contents.fp32_contents.extend(IMAGES[0].ravel().tolist())
        assert len(stub.ModelInfer(request).raw_output_contents) == 1
        given.contents.int_contents.append(1)
        with pytest.raises(grpc.RpcError) as two_kinds:
            stub.ModelInfer(request)
        request.inputs[0].ClearField("contents")
        request.raw_input_contents.extend([b"", b""])
        with pytest.raises(grpc.RpcError) as two_tensors:
            stub.ModelInfer(request)
        del request.raw_input_contents[:]
        with pytest.raises(grpc.RpcError) as nothing:
            stub.ModelInfer(request)
        with pytest.raises(grpc.RpcError) as no_message:
            channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(b"\xff\xff")
    for error, words in (
        (two_kinds, "int_contents"),
        (two_tensors, "2 raw_input_contents for 1 inputs"),
        (nothing, "has 0 elements"),
        (no_message, "no ModelInferRequest"),
    ):
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert words in error.value.details()
