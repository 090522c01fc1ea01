"""`cloud-server serve-adapters` as it is used: its processes, and the client of OpenAI."""

import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import numpy as np
import pytest
from tiny_language_models import PAIRS, write_language_model

from cloud_server.departments.sources import source_of
from cloud_server.departments.verified import FILES, verified
from cloud_server.models.adapters import AdapterPlan
from cloud_server.models.export import BundleJob, InitJob
from cloud_server.models.export.bundle_directory import write_bundle_directory
from cloud_server.models.export.model_directory import write_model_directory
from cloud_server.state.model_store import DirectoryStore
from fleet_model.bundle import WorkloadSpec, parse_trainer, sha256_of
from fleet_model.errors import BundleError
from fleet_model.workloads.causal_lm.peft_files import ADAPTER, write_adapter

pytestmark = pytest.mark.torch
DEPARTMENTS = ("books", "toys")
PROMPTS = [prompt for prompt, _ in PAIRS[:4]]
NEW = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory, new_server_dir):
    """Return a server directory whose rehearsal has closed a round, and the base beside it."""
    root = tmp_path_factory.mktemp("world")
    server = new_server_dir(root / "server")
    write_language_model(root / "base")
    shutil.rmtree(server.model)
    spec = WorkloadSpec(name="causal-lm", config={"max_length": 24, "max_new_tokens": NEW})
    job = InitJob(
        workload=spec, trainable="lora", directory=server.model, checkpoint=root / "base",
        adapter=AdapterPlan(rank=2, alpha=4.0), batch_size=4,
    )  # fmt: skip
    write_model_directory(job, lambda line: None)
    write_round(server, 1)
    return server


def write_adapter_of(server, folder, seed):
    adapter = parse_trainer((server.model / "trainer.json").read_bytes()).adapter
    random = np.random.default_rng(seed)
    weights = {n: random.normal(0, 1, s).astype(np.float32) for n, s in adapter.factors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_adapter(adapter, weights, folder)


def write_round(server, number):
    for place, name in enumerate(DEPARTMENTS):
        folder = server.rehearsed / f"round-{number:06d}" / name
        write_adapter_of(server, folder, 10 * number + place)


class Serving:
    """A process that serves, and what it has logged."""

    def __init__(self, server, log, *arguments):
        self.log = log
        words = ["serve-adapters", server.root, "--port", "0", "--threads", "1", *arguments]
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cloud_server.cli", *map(str, words)],
                stdout=stream, stderr=stream, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        self.url = self.wait_for(r"answering on (\S+)")[1]
        self.key = (server.secrets / "departments.key").read_text().strip()

    def wait_for(self, pattern):
        until = time.monotonic() + 240
        while (found := re.search(pattern, self.log.read_text())) is None:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.02)
        return found

    def looks(self):
        answer = httpx.get(f"{self.url[:-3]}/departments", headers=self.headers)
        return {one["department"]: one for one in answer.json()["departments"]}

    @property
    def headers(self):
        return {"Authorization": f"Bearer {self.key}"}

    def until(self, holds):
        until = time.monotonic() + 240
        while not holds(self.looks()):
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.02)


@pytest.fixture(scope="module")
def serving(world, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "log"
    one = Serving(world, log, "--every", "0.05", "--batch", "3", "--context", "48")
    yield one
    one.process.terminate()
    assert one.process.wait(60) == 0, log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.fixture
def client(serving):
    import openai

    with openai.OpenAI(base_url=serving.url, api_key=serving.key, max_retries=0) as client:
        yield client


class Peft:
    """What peft alone answers."""

    def __init__(self, base):
        from tokenizers import Tokenizer
        from transformers import AutoModelForCausalLM

        self.base = base
        self.load = lambda: AutoModelForCausalLM.from_pretrained(base)
        self.tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))

    def answers(self, adapter, prompts):
        import torch
        from peft import PeftModel

        model = PeftModel.from_pretrained(self.load(), adapter)
        found = {}
        for prompt in prompts:
            ids = torch.tensor([self.tokenizer.encode(prompt).ids])
            with torch.no_grad():
                whole = model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW,
                    do_sample=False, eos_token_id=2, pad_token_id=3,
                )  # fmt: skip
            found[prompt] = self.tokenizer.decode(whole[0, ids.shape[1] :].tolist())
        return found


@pytest.fixture(scope="module")
def peft(world):
    return Peft(world.root.parent / "base")


def test_each_department_answers_as_peft_alone_while_adapters_are_swapped(world, serving, client, peft):  # fmt: skip # noqa: E501
    assert [model.id for model in client.models.list()] == list(DEPARTMENTS)
    answers, ended = [], threading.Event()

    def ask(place):
        count = 0
        while not ended.is_set() or count < 2:
            name, prompt = DEPARTMENTS[(place + count) % 2], PROMPTS[(place + count) % 4]
            got = client.completions.create(model=name, prompt=prompt)
            answers.append((name, got.system_fingerprint, prompt, got.choices[0].text))
            count += 1

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, place) for place in range(4)]
        try:
            for number in range(2, 12):
                write_round(world, number)
                serving.until(lambda now, n=number: all(now[d]["what"] == f"round {n}" for d in DEPARTMENTS))  # fmt: skip # noqa: E501
        finally:
            ended.set()
        for one in asking:
            one.result()
    expected, prints = {}, {}
    for number in range(1, 12):
        for name in DEPARTMENTS:
            folder = world.rehearsed / f"round-{number:06d}" / name
            expected[name, number] = peft.answers(folder, PROMPTS)
            prints[fingerprint(folder)] = (name, number)
    assert len(set(map(str, expected.values()))) > 15, "adapters answer differently"
    for name, adapter, prompt, text in answers:
        of, number = prints[adapter]
        assert of == name
        assert text == expected[name, number][prompt]
    assert len({adapter for _, adapter, _, _ in answers}) > 2, "some were answered by new ones"


def test_a_damaged_adapter_is_told_and_the_old_one_goes_on(world, serving, client):
    name, number = DEPARTMENTS[0], 20
    before = serving.looks()[name]
    folder = world.rehearsed / f"round-{number:06d}" / name
    asked = {"model": name, "prompt": PROMPTS[0]}
    old = client.completions.create(**asked)
    write_adapter_of(world, folder, 7)
    whole = (folder / ADAPTER).read_bytes()
    (folder / ADAPTER).write_bytes(whole[:-40])
    serving.until(lambda now: "refused" in now[name])
    told = serving.looks()[name]
    assert (told["adapter"], told["what"]) == (before["adapter"], before["what"])
    assert told["refused"]["what"] == f"round {number}"
    assert ADAPTER in told["refused"]["why"]
    serving.wait_for(rf"department {name}: round {number} is not used: .*; it keeps round")
    assert client.completions.create(**asked).choices[0].text == old.choices[0].text
    (folder / ADAPTER).write_bytes(whole)
    serving.until(lambda now: now[name]["what"] == f"round {number}")
    assert "refused" not in serving.looks()[name]


def test_an_adapter_that_answers_nan_is_not_used(world, serving, client):
    name, number = DEPARTMENTS[1], 21
    adapter = parse_trainer((world.model / "trainer.json").read_bytes()).adapter
    folder = world.rehearsed / f"round-{number:06d}" / name
    folder.mkdir(parents=True)
    large = {n: np.full(s, 1e30, np.float32) for n, s in adapter.factors.items()}
    write_adapter(adapter, large, folder)
    serving.until(lambda now: "refused" in now[name])
    assert "NaN or infinite" in serving.looks()[name]["refused"]["why"]
    assert client.completions.create(model=name, prompt=PROMPTS[0]).choices[0].finish_reason
    shutil.rmtree(folder)


def test_what_the_client_is_told_when_it_asks_wrongly(serving, client):
    import openai

    ask = client.completions.create
    with pytest.raises(openai.NotFoundError, match="no department 'cars'") as error:
        ask(model="cars", prompt=PROMPTS[0])
    assert (error.value.code, error.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="the context is 48 tokens") as error:
        ask(model="books", prompt="the sky " * 30)
    assert error.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="46 new ones"):
        ask(model="books", prompt=PROMPTS[0], max_tokens=46)
    with pytest.raises(openai.BadRequestError, match="logprobs"):
        ask(model="books", prompt=PROMPTS[0], logprobs=3)
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=serving.url, api_key="no", max_retries=0).models.list()


def test_chat_streams_batches_and_samples(serving, client):
    chat = client.chat.completions.create
    messages = [{"role": "user", "content": PROMPTS[0]}]
    whole = chat(model="books", messages=messages)
    assert whole.choices[0].message.role == "assistant"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    stream = list(chat(model="books", messages=messages, stream=True, stream_options={"include_usage": True}))  # fmt: skip # noqa: E501
    text = "".join(one.choices[0].delta.content or "" for one in stream if one.choices)
    assert text == whole.choices[0].message.content
    assert stream[-1].usage == whole.usage
    assert stream[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    many = client.completions.create(model="toys", prompt=PROMPTS)  # more than a batch
    alone = [client.completions.create(model="toys", prompt=p).choices[0].text for p in PROMPTS]
    assert [one.text for one in many.choices] == alone
    drawn = [client.completions.create(model="toys", prompt=PROMPTS[0], temperature=1.5, seed=s).choices[0].text for s in (1, 1, 2, 3, 4)]  # fmt: skip # noqa: E501
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1
    plain = httpx.post(
        f"{serving.url[:-3]}/departments/toys/complete", headers=serving.headers,
        json={"prompt": PROMPTS[1]},
    ).json()  # fmt: skip
    assert (plain["department"], plain["text"]) == ("toys", alone[1])
    metrics = httpx.get(f"{serving.url[:-3]}/metrics", headers=serving.headers).text
    assert 'requests_total{department="toys",status="200"}' in metrics


def test_what_is_published_is_brought_and_of_this_base_alone(world, tmp_path):
    spec = parse_trainer((world.model / "trainer.json").read_bytes())
    shape = {"version": 3, "created_at": "2026-12-01T00:00:00Z", "directory": tmp_path / "bundle"}
    job = BundleJob(model=world.model, weights=world.model / "weights.safetensors", **shape)
    write_bundle_directory(job, lambda line: None)
    store = DirectoryStore(tmp_path / "store")
    store.publish(tmp_path / "bundle", "stable", world.model)
    here = replace(world, root=tmp_path)
    (found,) = source_of(here, "stable", None, spec.files).look().values()
    found.bring(tmp_path)
    assert verified(tmp_path, spec.adapter).rank == 2
    (base,) = (name for name in spec.files if name.endswith(".safetensors"))
    other = {base: spec.files[base].model_copy(update={"sha256": "0" * 64})}
    (found,) = source_of(here, "stable", None, other).look().values()
    with pytest.raises(BundleError, match="version 3 is of another base"):
        found.bring(tmp_path)


@pytest.mark.soak  # a second process that loads PyTorch
def test_it_ends_with_its_process_and_leaves_nothing_behind(world, tmp_path):
    """Killed, too: the process that computes ends with it. Over TLS, what is published."""
    one = Serving(world, tmp_path / "log", "--tls", "--adapters", world.rehearsed / "round-000001")
    trusted = ssl.create_default_context(cafile=str(world.certificates / "ca.crt"))
    assert one.url.startswith("https://")
    url = one.url.replace("127.0.0.1", "localhost") + "/models"
    found = httpx.get(url, headers=one.headers, verify=trusted).json()
    assert [model["what"] for model in found["data"]] == ["as it lies there"] * 2
    children = f"/proc/{one.process.pid}/task/{one.process.pid}/children"
    (child,) = map(int, open(children).read().split())  # noqa: PTH123, SIM115
    os.kill(child, signal.SIGKILL)
    assert one.process.wait(60) == 10
    assert "the process that answers has ended (-9)" in one.log.read_text()
    assert "Traceback" not in one.log.read_text()


def fingerprint(folder):
    return sha256_of("".join(sha256_of((folder / f).read_bytes()) for f in FILES).encode())[:12]
