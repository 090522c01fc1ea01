"""What instructions mean: numbers of tokens, which of them are learned, measures. No PyTorch."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tiny_language_models import WORDS, write_tokenizer

from fleet_model.errors import BundleError, FrameError, SettingsError
from fleet_model.types import Example, Instruction
from fleet_model.workload import rebuild, takes_instructions
from fleet_model.workloads.causal_lm import CausalLM
from fleet_model.workloads.causal_lm.conversation import Conversation

ONE = Instruction(prompt="one plus one is", answer=" two")
ASKED = Instruction(turns=(("user", "say blue"),), answer="blue")


def made(folder, length=16, new=4, **others):
    workload = CausalLM(length, new, **others)
    workload.read_files(folder)
    return workload


@pytest.fixture
def folder(tmp_path):
    return write_tokenizer(tmp_path / "folder")


@pytest.fixture
def workload(folder):
    return made(folder)


def words(inputs):
    """Return the words of an instruction, and those of them that are learned."""
    names = [WORDS[number] for number in inputs["input_ids"]]
    used = int(inputs["attention_mask"].sum())
    learned = [w for w, is_answer in zip(names, inputs["answer_mask"], strict=True) if is_answer]
    assert set(names[used:]) <= {"<pad>"}
    return names[:used], learned


def test_a_prompt_and_its_completion_are_numbers_of_which_the_answer_is_learned(workload):
    inputs = workload.encode(ONE).inputs
    assert {name: (t.shape, t.dtype.name) for name, t in inputs.items()} == {
        name: (spec.shape, spec.dtype) for name, spec in workload.task.inputs.items()
    }
    assert words(inputs) == (
        ["<s>", "one", "plus", "one", "is", "two", "</s>"], ["two", "</s>"]
    )  # fmt: skip


def test_turns_are_written_by_the_chat_template(folder):
    workload = made(folder, 32)
    asked = Instruction(
        turns=(("system", "fine"), ("user", "say red"), ("assistant", "red"), ("user", "say blue")),
        answer="blue",
    )
    names, learned = words(workload.encode(asked).inputs)
    assert " ".join(names).startswith("<s> <|system|> fine </s> <|user|> say red </s>")
    assert names[-3:] == ["<|assistant|>", "blue", "</s>"]
    assert learned == ["blue", "</s>"], "an earlier answer is only read"


def test_an_instruction_without_a_template_is_written_as_alpaca_is(tmp_path):
    workload = made(write_tokenizer(tmp_path / "plain", chat=False), 32)
    names, learned = words(workload.encode(ASKED).inputs)
    assert " ".join(names).startswith("<s> ### Instruction : say blue ###")
    assert names[-4:-2] == ["Response", ":"]
    assert learned == ["blue", "</s>"]
    with pytest.raises(FrameError, match="a conversation of 3 messages, and tokenizer_config"):
        workload.encode(Instruction(turns=(("user", "a"), ("assistant", "a")), answer="a"))


def test_a_template_of_a_file_of_its_own_goes_before(tmp_path):
    folder = write_tokenizer(tmp_path / "folder")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }} ?{% endfor %}"
    )
    assert words(made(folder).encode(ASKED).inputs)[0] == ["say", "blue", "?", "blue", "?", "</s>"]
    into = tmp_path / "into"
    into.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 4, "_name_or_path": "/home/me"}')
    made(folder).write_files(folder, into)
    assert sorted(file.name for file in into.iterdir()) == sorted(CausalLM.files)
    assert json.loads((into / "config.json").read_text()) == {"hidden_size": 4}
    assert words(made(into).encode(ASKED).inputs) == words(made(folder).encode(ASKED).inputs)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for", "its chat_template is no template"),
        ("{{ raise_exception('only two turns') }}", "refuses a conversation: only two turns"),
        ("{{ messages.__class__.__mro__ }}", "refuses a conversation: .*unsafe"),
        ("{{ cycler.__init__.__globals__.os }}", "refuses a conversation: .*unsafe"),
    ],
)
def test_a_template_can_do_nothing_but_write(tmp_path, template, words):
    folder = write_tokenizer(tmp_path / "folder", chat_template=template)
    with pytest.raises((BundleError, FrameError), match=words) as error:
        made(folder).encode(ASKED)
    assert "\n" not in str(error.value)


def test_an_answer_ends_once_and_tells_how_many_tokens_it_has(workload):
    target = workload.target(Example(raw=ONE, key="1"))
    assert (target.weight, int(target.tensors["tokens"])) == (2.0, 2)
    assert [WORDS[n] for n in target.tensors["answer"] if n >= 0] == ["two", "</s>"]
    for raw in (Instruction(prompt="one plus"), "one plus"):
        with pytest.raises(FrameError, match="without an answer"):
            workload.target(Example(raw=raw, key="1"))


def test_what_is_too_long_is_left_out_and_told_once(workload):
    long = Instruction(prompt="one plus " * 9, answer=" two")
    with pytest.raises(FrameError, match="21 tokens with its answer, at most 16"):
        workload.encode(long)
    workload.encode(ONE)
    assert workload.told() == [
        "1 of 2 instructions have more than 16 tokens with their answer: they are left out "
        "(max_length of the workload)"
    ]
    assert not workload.told()


@pytest.mark.parametrize("raw", ["", "  ", b"one", None, Instruction(), Instruction(prompt=" ")])
def test_what_asks_nothing_is_refused(workload, raw):
    with pytest.raises(FrameError):
        workload.encode(raw)


def rows(workload, *answers):
    """Return targets of ONE, and outputs in which these texts were its completions."""
    target = workload.target(Example(raw=ONE, key="")).tensors
    completions = [
        [WORDS.index(word) for word in text.split()] + [-1] * (4 - len(text.split()))
        for text in answers
    ]
    outputs = {"nll": np.array([1.0, 3.0][: len(answers)]), "completion": np.array(completions)}
    return outputs, {name: np.stack([t] * len(answers)) for name, t in target.items()}


def test_measures_are_means_over_tokens(workload):
    found = workload.measure(*rows(workload, "two </s>", "two two </s>"))
    assert found == {"loss": 1.0, "perplexity": pytest.approx(np.e), "exact_match": 0.5}
    assert "exact_match" not in workload.task.measures
    none = workload.measure(*rows(workload, "", ""))
    assert set(none) == {"loss", "perplexity"}, "nothing was completed"


@pytest.mark.parametrize(
    ("completion", "is_exact"), [("two </s>", 1), ("two", 0), ("</s>", 0), ("two three </s>", 0)]
)
def test_a_completion_is_exact_if_it_ends_as_the_answer_does(workload, completion, is_exact):
    assert workload.measure(*rows(workload, completion))["exact_match"] == is_exact


def test_an_answer_longer_than_completions_are_is_never_exact(folder):
    workload = made(folder, new=1)
    outputs, targets = rows(made(folder), "two </s>")
    cut = {"nll": outputs["nll"], "completion": outputs["completion"][:, :1]}
    targets = {"answer": targets["answer"][:, :1], "tokens": targets["tokens"]}
    assert workload.measure(cut, targets)["exact_match"] == 0


def test_a_completion_is_told_as_a_text(workload):
    outputs, _ = rows(workload, "two three </s>")
    (found,) = workload.decode({n: t[0] for n, t in outputs.items()}, None)
    assert found.text == "two three"
    assert not workload.decode({"completion": np.full(4, -1)}, None)


def test_a_client_asks_with_bytes(workload):
    asked = workload.from_bytes(b"say blue")
    assert words(workload.encode(asked).inputs)[0][-1] == "<|assistant|>"
    with pytest.raises(FrameError, match="not UTF-8"):
        workload.from_bytes(b"\xff\xfe\xfa")


def test_instructions_are_encoded_in_several_threads(workload):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(workload.encode, [ONE, ASKED] * 100))
    for one in found[2:]:
        same = found[0] if one.inputs["input_ids"][1] == WORDS.index("one") else found[1]
        np.testing.assert_array_equal(one.inputs["input_ids"], same.inputs["input_ids"])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"max_length": 4}, "max_length is 4, expected 8 to 8192"),
        ({"max_length": "long"}, "max_length is 'long'"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"exact_match": "yes"}, "expected true or false"),
        ({"dtype": "float8"}, "expected one of float32, bfloat16"),
        ({"dtype": "4bit"}, "a base of so few bits is not trained.*Take bfloat16"),
    ],
)
def test_wrong_settings_are_refused(config, words):
    with pytest.raises(SettingsError, match=words):
        CausalLM(**config)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json: missing"),
        (lambda f: (f / "tokenizer_config.json").unlink(), "tokenizer_config.json: missing"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "no tokenizer can be read"),
        (lambda f: (f / "tokenizer_config.json").write_text("[]"), "no JSON object"),
        (lambda f: (f / "tokenizer_config.json").write_text("{}"), "eos_token '' is no token"),
    ],
)
def test_a_damaged_tokenizer_is_named(folder, spoil, words):
    spoil(folder)
    with pytest.raises(BundleError, match=words):
        Conversation(folder)


def test_it_is_rebuilt_from_its_config(workload, folder):
    from fleet_model.bundle import WorkloadSpec

    spec = WorkloadSpec(name="causal-lm", config=dict(workload.config))
    again = rebuild(spec, folder)
    assert again.config == workload.config
    assert takes_instructions(again)
    sample = next(iter(again.samples(None)))
    assert sample.target is not None
