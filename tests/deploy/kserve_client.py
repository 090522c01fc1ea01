"""KServe's own clients against a predictor; runs in .venv-deploy and prints one line of JSON.

usage: python kserve_client.py rest|grpc ADDRESS NAME CASES.json

A case is {"name", "datatype", "shape", "value" (of every element), "model", "binary"}; its result
is the logits, or the code of the refusal and its words.
"""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)

TYPES = {"FP32": np.float32, "FP64": np.float64, "UINT8": np.uint8, "INT64": np.int64}


def request_of(case, *, binary):
    value = np.full(case["shape"], float(case["value"])).astype(TYPES[case["datatype"]])
    given = InferInput(case["name"], list(value.shape), case["datatype"])
    given.set_data_from_numpy(value, binary_data=binary)
    return InferRequest(case["model"], [given])


async def answers(wire, address, name, cases):
    if wire == "rest":
        client = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
        url = f"http://{address}"
        health = [
            await client.is_server_live(url), await client.is_server_ready(url),
            await client.is_model_ready(url, name),
        ]  # fmt: skip
        ask = lambda request: client.infer(url, request, model_name=request.model_name)  # noqa: E731
    else:
        client = InferenceGRPCClient(address, retries=0)
        health = [
            await client.is_server_live(), await client.is_server_ready(),
            await client.is_model_ready(name),
        ]  # fmt: skip
        ask = client.infer
    told = []
    for case in cases:
        try:
            answer = await ask(request_of(case, binary=wire == "grpc" or case["binary"]))
            (output,) = [one for one in answer.outputs if one.name == "logits"]
            told.append(output.as_numpy().tolist())
        except httpx.HTTPStatusError as error:
            told.append([error.response.status_code, error.response.text])
        except Exception as error:  # noqa: BLE001  (gRPC's own)
            code = getattr(error, "code", None)
            told.append([code().name if code else repr(error), str(error)])
    await client.close()
    return {"health": health, "told": told}


if __name__ == "__main__":
    wire, address, name, file = sys.argv[1:]
    with open(file) as stream:  # noqa: PTH123
        cases = json.load(stream)
    print(json.dumps(asyncio.run(answers(wire, address, name, cases))))  # noqa: T201
