"""The parts of `benchmarks.serving` that can be wrong without anyone noticing."""

import numpy as np
import pytest

from benchmarks import bare_inference, environments, serving
from edge_agent.serving.grpc_messages import message
from edge_agent.serving.rest_body import read_request, write_answer
from edge_agent.serving.served import served_models
from fleet_model.engine import TFLiteEngine

QUESTION = serving.Question(np.random.default_rng(0).random((32, 32, 3), np.float32) * 255)


def test_what_is_asked_is_what_the_protocol_has_and_the_answer_is_the_models():
    engine = TFLiteEngine(serving.BUNDLE, num_threads=1)
    served = served_models(engine, "model", "fp32")
    expected = engine.run({"image": QUESTION.image})["logits"]
    for wire, binary in (("rest_binary", True), ("rest_json", False)):
        body, headers = QUESTION.rest(binary=binary)
        length = headers.get("Inference-Header-Content-Length")
        request = read_request(body, length.encode() if length else None)
        told = write_answer(served.infer("model", "", request, 1), request)
        found = dict(told.headers).get(b"inference-header-content-length")
        logits = serving.logits_of(wire, (told.content, found))
        assert np.array_equal(logits, expected)
        assert (found is not None) == binary


def test_both_ways_of_grpc_to_give_numbers_are_read():
    raw = message("ModelInferResponse")(raw_output_contents=[np.float32([1, 2]).tobytes()])
    typed = message("ModelInferResponse")()
    typed.outputs.add().contents.fp32_contents.extend([1, 2])
    for told in (raw, typed):
        assert serving.logits_of("grpc", told.SerializeToString()).tolist() == [1, 2]


def test_a_wrong_answer_ends_the_benchmark():
    bare_inference.require_same("x", np.float32([1, 2]), np.float32([1, 2]))
    for found in ([1.0, 2.1], [1.0], [[1.0, 2.0]]):
        with pytest.raises(RuntimeError, match="x answers"):
            bare_inference.require_same("x", np.float32(found), np.float32([1, 2]))


def test_the_cost_is_what_a_request_takes_beyond_the_bare_inference():
    seconds = {
        (arm, wire): value
        for arm, value in (("ours", 0.003), ("kserve", 0.009))
        for wire in serving.WIRES
    }
    engines = {
        (arm, precision): value
        for arm, value in (("engine", 0.002), ("interpreter", 0.003))
        for precision in ("fp32", "int8")
    }
    told = serving.result(seconds, {"ours": 0.001, "kserve": 0.001}, engines)

    assert [c.key for c in told.comparisons] == [
        "serve_overhead", "serve_overhead_json", "serve_overhead_grpc", "engine_latency",
        "engine_latency_int8",
    ]  # fmt: skip
    assert [round(c.ratio, 6) for c in told.comparisons] == [4, 4, 4, 1.5, 1.5]
    assert told.comparisons[0].required == 3
    assert told.figures["ours_rest_json_ms"] == pytest.approx(3)


def test_the_servers_are_asked_in_turns_and_first_requests_do_not_count(monkeypatch):
    asked = []
    clients = {
        arm: {wire: lambda arm=arm: asked.append(arm) for wire in serving.WIRES}
        for arm in serving.ARMS
    }
    serving.measure(clients, serving.Size(turns=2, requests=2, first=1))

    assert asked[:9] == ["kserve"] * 3 + ["ours"] * 3 + ["kserve"] * 3
    assert asked[18:24] == ["ours"] * 3 + ["kserve"] * 3


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_engine_and_the_interpreter_answer_the_same_and_a_difference_ends_it(precision):
    image = QUESTION.image
    asks = {
        "engine": bare_inference.by_engine(serving.BUNDLE, image, precision),
        "interpreter": bare_inference.by_interpreter(serving.BUNDLE, image, precision),
    }
    assert bare_inference.in_turns(asks, 1, 1, 2).keys() == asks.keys()
    with pytest.raises(RuntimeError, match="b answers"):
        bare_inference.in_turns({"a": lambda: 1.0, "b": lambda: 2.0}, 1, 1, 1)
    assert len(bare_inference.timed(lambda: None, 3, 4)) == 4
    asked = []
    asks = {name: lambda name=name: asked.append(name) or 0.0 for name in "ab"}
    bare_inference.in_turns(asks, turns=2, first=1, count=2)
    assert "".join(asked) == "ab" + "baabba" + "abbaab"


def test_the_peer_has_our_litert_and_numpy_and_nothing_else_of_ours(tmp_path):
    made = environments.Environment(tmp_path)
    file = environments._constraints(made, environments.KSERVE)
    names = {line.split("==")[0] for line in (tmp_path / "constraints.txt").read_text().split("\n")}

    assert names == {"ai-edge-litert", "numpy"}
    assert file == str(tmp_path / "constraints.txt")
    assert environments._constraints(made, environments.STOCK) == "constraints.txt"
