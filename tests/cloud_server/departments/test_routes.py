"""What clients are told; nothing is computed here."""

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from prometheus_client import CollectorRegistry

from cloud_server.departments import engine as engines
from cloud_server.departments.asking import Bounds, Desk
from cloud_server.departments.engine import Engine
from cloud_server.departments.job import EngineJob
from cloud_server.departments.routes import BODY_BYTES, make_app
from cloud_server.departments.table import Refused, Served
from cloud_server.departments.verified import Verified
from fleet_model.errors import BundleError, FrameError, RoundError

KEY = "fl-0123456789abcdef"
HEADERS = {"Authorization": f"Bearer {KEY}"}
OPEN = 3


class Words:
    """Tokens are numbers, written out."""

    def numbers(self, one):
        if one.turns and one.turns[0][1] == "refuse":
            raise FrameError("the chat template refuses a conversation: no", "no")
        text = " ".join(text for _, text in one.turns) or one.prompt
        return [int(word) for word in text.split()], []

    def text(self, numbers):
        return "".join(f" {number}" for number in numbers)


@pytest.fixture(autouse=True)
def echo(monkeypatch):
    monkeypatch.setattr(engines, "PROGRAM", (str(Path(__file__).with_name("echoing_engine.py")),))


@asynccontextmanager
async def started(batch=2):
    ended = asyncio.Event()
    job = EngineJob(model=Path("model"), batch=batch, context=20, threads=1)
    engine = Engine(job, OPEN, ended.set)
    engine.over = ended
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


def served(name):
    return Served(name, "round 1", Verified("a" * 64, 2, 100), 1)


def app_of(engine, key=KEY):
    table = SimpleNamespace(
        served={"books": served("books")},
        refused={"toys": Refused("round 1", "it is damaged")},
        as_json=lambda: [{"department": "books"}],
    )
    desk = Desk(table, engine, Words(), Bounds(context=20, usual_new=4))
    return make_app(desk, table, key, CollectorRegistry())


def asked(path, body, headers=HEADERS, key=KEY, method="POST"):
    async def ask():
        async with started() as engine:
            transport = httpx.ASGITransport(app_of(engine, key))
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                return await client.request(method, path, content=content, headers=headers)

    return asyncio.run(ask())


def completion(**more):
    return {"model": "books", "prompt": "5 6", **more}


@pytest.mark.parametrize(
    ("body", "status", "words", "param"),
    [
        (b"{", 400, "the body is no JSON object", None),
        ({"prompt": "5"}, 400, "model: is missing", "model"),
        (completion(max_tokens=0), 400, "max_tokens", "max_tokens"),
        (completion(max_tokens="many"), 400, "max_tokens", "max_tokens"),
        (completion(temperature=3), 400, "temperature", "temperature"),
        (completion(n=2), 400, "n: only 1 is supported here", "n"),
        (
            completion(frequency_penalty=0.5),
            400,
            "frequency_penalty: only 0 is",
            "frequency_penalty",
        ),
        (completion(max_tokns=4), 400, "max_tokns: is not supported here", "max_tokns"),
        (completion(stop=[""]), 400, "stop: expected one to 4 texts", "stop"),
        (completion(prompt=[]), 400, "prompt", "prompt"),
        (completion(prompt=""), 400, "the prompt has no token", "prompt"),
        (completion(prompt="5 " * 20), 400, "the context is 20 tokens", "prompt"),
        (completion(max_tokens=19), 400, "2 tokens are asked and 19 new ones", "prompt"),
        (completion(model="cars"), 404, "there is no department 'cars'", "model"),
        (completion(model="toys"), 503, "no adapter that can be used: it is damaged", None),
        (completion(prompt=["5"] * 4), 429, "3 requests are under way", None),
        (b"x" * (BODY_BYTES + 1), 413, "the body is larger than", None),
    ],
)
def test_what_is_asked_wrongly_is_refused_in_openais_form(body, status, words, param):
    answer = asked("/v1/completions", body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert words in error["message"]
    assert error["param"] == param
    assert ("Retry-After" in answer.headers) == (status == 429)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "messages"),
        ([{"role": "robot", "content": "5"}], "role"),
        (
            [{"role": "user", "content": "5"}, {"role": "assistant", "content": "6"}],
            "nothing is asked",
        ),
        ([{"role": "user", "content": "refuse"}], "the chat template refuses"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "content"),
    ],
)
def test_conversations_that_nobody_can_answer_are_refused(messages, words):
    answer = asked("/v1/chat/completions", {"model": "books", "messages": messages})
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer fl-other"}, {"Authorization": KEY[:4]}])  # fmt: skip # noqa: E501
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/models", "/departments", "/metrics"])
def test_nothing_is_told_without_the_key(path, headers):
    method = "POST" if path.endswith("completions") else "GET"
    answer = asked(path, completion(), headers, method=method)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"


def test_health_and_strange_paths():
    assert asked("/healthz", b"", {}, method="GET").status_code == 200
    assert asked("/v1/embeddings", {}).json()["error"]["code"] == "unknown_url"
    assert asked("/v1/models", b"", {}, key="", method="GET").json()["data"][0]["id"] == "books"


def test_a_text_ends_before_what_is_to_stop_it_whole_and_streamed():
    body = completion(max_tokens=9, stop=" 6 5 6 5 6")
    assert asked("/v1/completions", body).json()["choices"][0]["text"] == " 5"
    lines = asked("/v1/completions", {**body, "stream": True}).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    told = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines[:-2]]
    assert "".join(one["text"] for one in told) == " 5"
    assert told[-1]["finish_reason"] == "stop"


def test_roles_parts_and_neutral_fields_are_taken():
    messages = [
        {"role": "developer", "content": "1"},
        {"role": "user", "content": [{"type": "text", "text": "2"}]},
    ]
    body = {"model": "books", "messages": messages, "n": 1, "user": "me", "logprobs": False}
    got = asked("/v1/chat/completions", {**body, "max_completion_tokens": 2}).json()
    assert got["choices"][0]["message"]["content"] == " 1 2"
    assert got["usage"] == {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}


def test_a_client_that_goes_away_is_not_waited_for(capfd):
    async def scenario():
        async with started() as engine:
            came = asyncio.Event()
            parts = [json.dumps(completion(prompt="99")).encode()]

            async def receive():
                if parts:
                    return {"type": "http.request", "body": parts.pop(), "more_body": False}
                await came.wait()
                return {"type": "http.disconnect"}

            async def send(message):
                del message

            scope = {
                "type": "http", "method": "POST", "path": "/v1/completions", "query_string": b"",
                "headers": [(b"authorization", f"Bearer {KEY}".encode())], "http_version": "1.1",
            }  # fmt: skip
            asking = asyncio.ensure_future(app_of(engine)(scope, receive, send))
            while not engine.open:
                await asyncio.sleep(0.01)
            came.set()
            await asking
            assert engine.open == 0
            await engine.load("b" * 64, Path())  # an order after it: the one before was read

    asyncio.run(scenario())
    assert "left 1" in capfd.readouterr().err


def test_the_end_of_the_process_is_told_to_all_that_wait():
    async def scenario():
        async with started() as engine:
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app_of(engine)), base_url="http://here"
            ) as client:
                bodies = [completion(prompt="99"), completion(prompt="98"), completion()]
                posts = [client.post("/v1/completions", json=b, headers=HEADERS) for b in bodies[:2]]  # fmt: skip # noqa: E501
                answers = await asyncio.gather(*posts)
                await engine.over.wait()
                answers.append(await client.post("/v1/completions", json=bodies[2], headers=HEADERS))  # fmt: skip # noqa: E501
            assert isinstance(engine.failure, RoundError)
            return answers

    for answer in asyncio.run(scenario()):
        assert answer.status_code == 503
        assert "the process that answers has ended (7)" in answer.json()["error"]["message"]


def test_what_the_process_says_at_its_start_is_raised():
    async def scenario():
        async with started(batch=13):
            pass

    with pytest.raises(BundleError, match="about 9000 MB of memory, 10 MB are free"):
        asyncio.run(scenario())
