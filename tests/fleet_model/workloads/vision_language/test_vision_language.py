"""What is asked about pictures, as numbers: tokens, pixels, what is learned. No PyTorch."""

import json

import numpy as np
import pytest
from tiny_language_models import WORDS
from tiny_vision_language import IMAGE_TOKEN, MARK, SIZE, TOKENS, write_files, write_picture

from fleet_model.errors import BundleError, FrameError, SettingsError
from fleet_model.types import Example, Instruction
from fleet_model.workload import rebuild, takes_instructions
from fleet_model.workloads.vision_language import VisionLanguage

NAMES = [*WORDS, MARK]


def made(folder, **config):
    workload = VisionLanguage(
        **{"max_length": 24, "max_new_tokens": 4, "image_size": SIZE, **config}
    )
    workload.read_files(folder)
    return workload


@pytest.fixture
def folder(tmp_path):
    return write_files(tmp_path / "model")


@pytest.fixture
def workload(folder):
    return made(folder)


@pytest.fixture
def red(tmp_path):
    return str(write_picture(tmp_path / "red.png", "red"))


def words(inputs):
    names = [NAMES[number] for number in inputs["input_ids"]]
    used = int(inputs["attention_mask"].sum())
    learned = [w for w, is_answer in zip(names, inputs["answer_mask"], strict=True) if is_answer]
    return names[:used], learned


def test_a_picture_stands_before_what_is_asked_as_its_tokens(workload, red):
    inputs = workload.encode(Instruction(prompt="what is it ?", answer=" red", image=red)).inputs
    asked = ["<s>", *[MARK] * TOKENS, "what", "is", "it", "?"]
    assert words(inputs) == ([*asked, "red", "</s>"], ["red", "</s>"])
    assert {n: (t.shape, t.dtype.name) for n, t in inputs.items()} == {
        n: (spec.shape, spec.dtype) for n, spec in workload.task.inputs.items()
    }
    assert inputs["pixels"][0].min() > inputs["pixels"][2].max()


def test_a_mark_in_the_text_says_where_the_picture_stands(workload, red):
    one = Instruction(prompt=f"what color is {MARK} ?", answer=" red", image=red)
    names, _ = words(workload.encode(one).inputs)
    assert names[:5] == ["<s>", "what", "color", "is", MARK]
    assert names.count(MARK) == TOKENS


def test_a_template_that_takes_parts_gets_the_picture_as_one(workload, red):
    turns = (("user", "what is it ?"), ("assistant", "red"), ("user", "say blue"))
    names, learned = words(
        workload.encode(Instruction(turns=turns, answer="blue", image=red)).inputs
    )
    assert names == [
        "<|user|>", *[MARK] * TOKENS, "what", "is", "it", "?", "<|assistant|>", "red",
        "<|user|>", "say", "blue", "<|assistant|>", "blue", "</s>",
    ]  # fmt: skip
    assert learned == ["blue", "</s>"]


def test_a_text_alone_has_no_picture(workload):
    inputs = workload.encode(Instruction(prompt="say blue", answer=" blue")).inputs
    assert IMAGE_TOKEN not in inputs["input_ids"]
    assert not inputs["pixels"].any()


def test_a_picture_with_a_text_is_learned_without_a_question(workload, red):
    inputs = workload.encode(Instruction(answer="a red sky", image=red)).inputs
    assert words(inputs)[1] == ["a", "red", "sky", "</s>"]
    assert words(inputs)[0][: 1 + TOKENS] == ["<s>", *[MARK] * TOKENS]
    alone = words(workload.encode(Instruction(answer="a red sky")).inputs)
    assert alone == (["<s>", "a", "red", "sky", "</s>"], ["a", "red", "sky", "</s>"])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prompt": f"what is {MARK}"}, "pictures: 0, marks <image> for them: 1"),
        ({"prompt": f"{MARK} is {MARK}", "image": "RED"}, "pictures: 1, marks .* them: 2"),
        ({"prompt": "say", "answer": MARK}, "pictures: 0, marks <image> for them: 1"),
        ({"prompt": "say", "image": "none.png"}, r"none\.png: there is no such picture"),
        ({"prompt": "say", "image": "https://a/b.png"}, "at an address, which is not fetched here"),
        ({"prompt": "the " * 15, "image": "RED"}, "an instruction of 20 tokens .* at most 18"),
        ({"prompt": " "}, "asks nothing"),
    ],
)
def test_what_cannot_be_asked_is_refused(folder, red, values, words):
    workload = made(folder, max_length=18)
    values = {n: red if v == "RED" else v for n, v in values.items()}
    with pytest.raises(FrameError, match=words):
        workload.encode(Instruction(**values))


def test_a_missing_picture_is_found_before_anything_is_read(workload, red, tmp_path):
    target = workload.target(
        Example(raw=Instruction(prompt="say", answer=" red", image=red), key="")
    )
    assert target.weight == 2
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    workload.target(Example(raw=Instruction(prompt="say", answer="red", image=str(broken)), key=""))
    for gone in ("gone.png", "x" * 5000 + ".png", "a\0b.png"):
        with pytest.raises(FrameError, match=r"\.png: there is no such picture"):
            workload.target(
                Example(raw=Instruction(prompt="say", answer="red", image=gone), key="")
            )


def change(folder, name, **values):
    about = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**about, **values}))


def test_settings_that_do_not_fit_the_model_are_refused_with_those_that_do(folder):
    with pytest.raises(BundleError, match=r"pictures of 16 pixels, .* --set image_size=16"):
        made(folder, image_size=32)
    with pytest.raises(BundleError, match=r"takes 4 tokens, and max_length is 10 .*more than 12"):
        made(folder, max_length=10)
    with pytest.raises(SettingsError, match="image_size is 4, expected 8 to 2048 pixels"):
        VisionLanguage(image_size=4)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("config.json", {"model_type": "llama"}, "expected a model of LLaVA's layout"),
        ("config.json", {"image_token_index": 99}, "has no token 99, which stands for a picture"),
        ("config.json", {"image_token_index": 9}, ""),
        ("config.json", {"vision_config": {"patch_size": 0}}, "says no size of pictures"),
        ("preprocessor_config.json", {"resample": 2}, "resample is 2, expected 3"),
        ("preprocessor_config.json", {"do_normalize": False}, "do_normalize is False, expected T"),
        ("preprocessor_config.json", {"crop_size": 8}, "makes pictures of 8 pixels, the tower ta"),
        ("preprocessor_config.json", {"size": 8}, "scales the shortest side to 8 pixels"),
        ("preprocessor_config.json", {"image_std": [1, 0, 1]}, "have three numbers"),
        ("preprocessor_config.json", {"image_mean": "a"}, "its numbers are none"),
    ],
)
def test_files_that_say_something_else_are_refused(folder, name, values, words):
    change(folder, name, **values)
    if not words:
        assert made(folder)._mark == "are", "any token may stand for a picture"
        return
    with pytest.raises(BundleError, match=words):
        made(folder)


def test_files_of_newer_processors_are_read(folder, tmp_path, red):
    one = Instruction(prompt="what is it ?", image=red)
    before = made(folder).encode(one).inputs
    prepared = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(BundleError, match=r"preprocessor_config\.json: missing; save it beside"):
        made(folder)
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": prepared}))
    np.testing.assert_array_equal(made(folder).encode(one).inputs["pixels"], before["pixels"])


def test_what_travels_encodes_the_same(workload, folder, tmp_path, red):
    (tmp_path / "sent").mkdir()
    workload.write_files(folder, tmp_path / "sent")
    assert {file.name for file in (tmp_path / "sent").iterdir()} == set(workload.files)
    there = made(tmp_path / "sent")
    one = Instruction(turns=(("user", "what is it ?"),), answer="red", image=red)
    for name, tensor in workload.encode(one).inputs.items():
        np.testing.assert_array_equal(there.encode(one).inputs[name], tensor)


def test_it_is_rebuilt_from_its_config(workload):
    from fleet_model.bundle import WorkloadSpec

    again = rebuild(WorkloadSpec(name="vision-language", config=dict(workload.config)))
    assert again.config == workload.config
    assert takes_instructions(again)


def test_exports_are_checked_with_real_pictures(folder):
    samples = list(made(folder, max_length=60).samples(None))
    assert len(samples) > 5
    assert all(IMAGE_TOKEN in sample.encoded.inputs["input_ids"] for sample in samples)
    assert len({sample.encoded.inputs["pixels"].tobytes() for sample in samples}) > 5
